"""Records, the project's facts, and batches of padded pairs."""
