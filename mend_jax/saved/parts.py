"""A scoped editor's base in two parts: its trunk, run block by block, and its tail, one program.

Its trunk, in which nothing is edited, is called from the host, so that little is compiled for a few
texts: of blocks that are alike, one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mend_jax.example import Example
from mend_jax.models.stages import can_be_cached, split_at
from mend_jax.objectives import through
from mend_jax.saved.directory import SavedEditor


def trunk_of(saved: SavedEditor) -> nn.Module | None:
    """What of the base is run before the editor; None for an editor that wants all of it."""
    if "scoped" not in saved.config or saved.base.stored is not None:
        return None
    trunk = split_at(saved.base.model, saved.sites)[0]
    return trunk.clone(alike=True) if trunk is not None and can_be_cached(trunk) else None


def entered(trunk: nn.Module | None, params: PyTree, example: Example) -> Example:
    """The example (any leading axes), whose edit pairs have passed the trunk and stand for the
    others, too: it is there to edit with."""
    edit = through(trunk, params, jax.tree.map(jnp.asarray, example.edit))
    return example._replace(edit=edit, outer=edit, locality=edit)
