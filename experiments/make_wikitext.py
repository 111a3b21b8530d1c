"""`mend-jax make_wikitext`, from a checkout."""

from mend_jax.commands.command import main
from mend_jax.commands.make_wikitext import COMMAND

if __name__ == "__main__":
    main(COMMAND)
