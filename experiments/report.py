"""`mend-jax report`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.report import COMMAND

if __name__ == "__main__":
    main(COMMAND)
