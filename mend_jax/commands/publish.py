"""Puts a trained editor on the Hugging Face hub, for others: arrays, options, scores, a card.

    hf auth login
    mend-jax publish --editor runs/scoped --name USER/NAME

Says under which commit it stands there; so others get it wherever they would name a folder
(`mend-jax edit --editor USER/NAME@COMMIT`). No path of this machine, and no code, goes with it.
`mend-jax pack` halves its size first.
"""

from dataclasses import dataclass
from typing import Annotated

from mend_jax.commands.command import Command
from mend_jax.exports.published import check_name, publish_editor
from mend_jax.option_checks import check_options
from mend_jax.option_types import InputFolder, accepted_by
from mend_jax.runs.opening import OpeningOptions


@dataclass(frozen=True, kw_only=True)
class Publish(OpeningOptions):
    """Options of the publishing."""

    editor: InputFolder
    """Directory of a trained editor; it is opened first, on its base."""
    name: Annotated[str, accepted_by(check_name)]
    """USER/NAME on the hub; made there, if there is no such repository."""
    private: bool = False
    """Make it a private one."""


def publish(config: Publish) -> None:
    """Opens, uploads, and says where it is."""
    check_options(config)
    done = publish_editor(
        config.editor, config.name, private=config.private,
        dtype=config.dtype, trust=config.trust, force=config.force,
    )  # fmt: skip
    print(f"published: {done}")


COMMAND = Command(Publish, publish, __doc__)
