"""Editing methods, each an `Editor`."""
