"""How commands open a saved editor."""

from dataclasses import dataclass
from typing import Annotated

from mend_jax.models.memory import Dtype
from mend_jax.option_types import ImportPath, accepted_by
from mend_jax.saved.place import check_place

EditorPlace = Annotated[str, accepted_by(check_place)]
"""A directory, the name of a base that an editor comes with the package for, or a name on the hub;
see `saved.place`."""


@dataclass(frozen=True, kw_only=True)
class TrustOptions:
    """What is taken of a saved editor."""

    trust: ImportPath = ""
    """Import path (package.module:name) of the code that makes this editor, if it has its own."""
    force: bool = False
    """Open the editor although its files, or its base's, are others than when it was saved."""


@dataclass(frozen=True, kw_only=True)
class OpeningOptions(TrustOptions):
    """How a saved editor is opened."""

    dtype: Dtype | None = None
    """Of the base's weights; by default what the editor was trained with."""
