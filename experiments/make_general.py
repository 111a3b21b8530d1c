"""`mend-jax make_general`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.make_general import COMMAND

if __name__ == "__main__":
    main(COMMAND)
