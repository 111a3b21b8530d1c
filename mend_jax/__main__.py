"""`python -m mend_jax NAME`: the script `mend-jax`."""

from mend_jax.commands.console import console

if __name__ == "__main__":
    console()
