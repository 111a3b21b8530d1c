"""`mend-jax sites`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.sites import COMMAND

if __name__ == "__main__":
    main(COMMAND)
