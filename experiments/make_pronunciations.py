"""`mend-jax make_pronunciations`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.make_pronunciations import COMMAND

if __name__ == "__main__":
    main(COMMAND)
