"""Edits as files that other programs load."""
