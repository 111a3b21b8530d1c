"""`mend-jax ablate`, from a checkout."""

from mend_jax.commands.ablate import COMMAND
from mend_jax.commands.command import main

if __name__ == "__main__":
    main(COMMAND)
