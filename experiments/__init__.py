"""Runs: each file is a docstring (what, paper's numbers, command, hardware, time) and a config."""
