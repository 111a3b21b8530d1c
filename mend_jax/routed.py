"""A function as if, at each position, one of many edits had been added to its kernels.

Which of them it is, is decided while the function runs, by what it has seen: a staged model that is
told to `keep` states says what they were (`stages.Watch`) before any layer that may be edited.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from mend_jax.calls import intercepting
from mend_jax.factors import Factors
from mend_jax.models.stages import Seen, Watch
from mend_jax.scopes.memory import Memory
from mend_jax.sites import SiteError, check_visited

Decide: TypeAlias = Callable[[Seen, Memory | None], Int[Array, "k length"]]
"""What is seen of texts, and what is known of what came before it in a cache (None: nothing does)
-> the edit that acts at each of their positions, or -1."""


def seen_by(function: Callable[..., Any], *args: Any) -> Seen:
    """What a function's model has seen of its texts.

    Raises:
      SiteError: it does not say.
    """
    found: list[Seen] = []

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, Watch):
            found.append(args[0])

    with intercepting(frozenset(), lambda site, x, y: y, other=watch):
        function(*args)
    if not found:
        raise SiteError("the function's model keeps no states: load it with the scope's `keep`")
    return found[0]


def routed(
    function: Callable[..., Any],
    edits: Mapping[str, Factors],
    decide: Decide,
    late: Collection[str],
) -> Callable[..., Any]:
    """`function` with z + x u_e^T delta_e at a position where edit e acts, and z where none does.

    Of the edits only the rows of those that act are read: the cost does not grow with their number.

    Args:
      edits: of every site, float[edits, rows, d_in] and [edits, rows, d_out].
      late: the sites that see no positions but those `read`.

    Raises:
      SiteError: the function does not call one of the sites, or says not before what was seen.
    """

    def as_routed(*args: Any, **kwargs: Any) -> Any:
        visited: set[str] = set()
        acting: dict[bool, Array] = {}

        def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(module, Watch):
                seen, at, read = args
                which = decide(seen, module.memory(at))
                of_read = which if read is None else jnp.take_along_axis(which, read, axis=1)
                acting.update({False: which, True: of_read})

        def shift(site: str, x: Any, y: Array) -> Array:
            if not acting:
                raise SiteError(
                    f"site {site!r} comes before the states that tell which edit acts there"
                )
            at = acting[site in late]
            visited.add(site)
            acts = (jnp.take(part, jnp.maximum(at, 0), axis=0) for part in edits[site])
            u, delta, x = (part.astype(jnp.float32) for part in (*acts, x))
            if at.shape[1] == 1:  # one edit for the whole text
                moved = (x @ jnp.swapaxes(u[:, 0], 1, 2)) @ delta[:, 0]
            else:
                inner = jnp.einsum("kpd,kprd->kpr", x, u)
                moved = jnp.einsum("kpr,kpre->kpe", inner, delta)
            moved = (y.astype(jnp.float32) + moved).astype(y.dtype)
            return jnp.where((at >= 0)[..., None], moved, y)

        with intercepting(frozenset(edits), shift, other=watch):
            out = function(*args, **kwargs)
        check_visited(edits, visited)
        return out

    return as_routed
