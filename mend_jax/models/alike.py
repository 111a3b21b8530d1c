"""Blocks that are alike, traced once: one program with the weights of each.

Most blocks of a model differ in their weights alone. Where nobody looks into a block, it is a
jitted function of its weights and inputs; of blocks that are equal as modules, JAX traces,
differentiates and lowers one.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, PyTree

from mend_jax.calls import looked_into


def run_block(block: nn.Module, alike: bool, x: Array, *args: Any) -> Any:
    """`block(x, *args)`; if `alike`, traced once for all blocks like it.

    As it is where an interception may be for one of its layers, where it makes its parameters, and
    where its intermediate values are asked for.
    """
    asked = block.is_mutable_collection("intermediates")
    if not alike or asked or block.is_initializing() or looked_into("/".join(block.path)):
        return block(x, *args)
    mutable = ("cache",) if block.is_mutable_collection("cache") else ()
    nameless = block.clone(parent=None, name=None)
    out, changed = _run(nameless, mutable, dict(block.variables), x, *args)
    for name, value in changed.get("cache", {}).items():
        block.put_variable("cache", name, value)
    return out


@partial(jax.jit, static_argnums=(0, 1))
def _run(
    block: nn.Module, mutable: tuple[str, ...], variables: PyTree, *args: Any
) -> tuple[Any, PyTree]:
    return block.apply(variables, *args, mutable=list(mutable))
