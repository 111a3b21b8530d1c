"""A run from options to results: one editor, several side by side, a base of one's own."""
