"""A trained editor as a directory."""
