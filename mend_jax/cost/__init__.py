"""What a run will need, before it is run, and what it takes."""
