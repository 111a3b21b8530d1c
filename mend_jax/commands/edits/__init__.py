"""`mend-jax edits NAME`: a store of edits, one file a command."""
