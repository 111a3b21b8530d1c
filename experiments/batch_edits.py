"""`mend-jax batch_edits`, from a checkout."""

from mend_jax.commands.batch_edits import COMMAND
from mend_jax.commands.command import main

if __name__ == "__main__":
    main(COMMAND)
