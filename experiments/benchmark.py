"""`mend-jax benchmark`, from a checkout."""

from mend_jax.commands.benchmark import COMMAND
from mend_jax.commands.command import main

if __name__ == "__main__":
    main(COMMAND)
