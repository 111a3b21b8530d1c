"""One file a data set, and what only it uses."""
