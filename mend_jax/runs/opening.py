"""How commands open a saved editor."""

from dataclasses import dataclass

from mend_jax.models.memory import Dtype
from mend_jax.option_types import ImportPath


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
