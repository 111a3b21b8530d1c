"""`mend-jax make_random`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.make_random import COMMAND

if __name__ == "__main__":
    main(COMMAND)
