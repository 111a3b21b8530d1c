"""`mend-jax quickstart`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.quickstart import COMMAND

if __name__ == "__main__":
    main(COMMAND)
