"""Scopes: where in a text an edit holds."""
