"""`mend-jax edits ...`, from a checkout."""

from mend_jax.commands.console import console

if __name__ == "__main__":
    console("edits", script="python -m experiments.")
