"""What is scored, and the ways to do it."""
