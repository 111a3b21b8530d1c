"""`mend-jax finetune_fever`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.finetune_fever import COMMAND

if __name__ == "__main__":
    main(COMMAND)
