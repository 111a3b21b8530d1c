"""Which linear layers a function calls, and what is done with their outputs on the way.

Interception is thread-local state that JAX's caches do not see. Each one therefore enters, together
with its interceptor, one user context with a fresh token, so that an inner `jax.jit` or
`jax.checkpoint` retraces instead of silently answering from its cache.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array

from mend_jax.nnx_layers import other_parts, parted, refusing, takes_module, with_names
from mend_jax.passes import mark, marks
from mend_jax.sites import SiteError, Sites

Seen: TypeAlias = Array | np.ndarray
"""What a linear layer is called with: outside of `jit` it may be numpy's."""

_trace_token = jax.make_user_context(None)

_looked_for: ContextVar[tuple[frozenset[str] | None, ...]] = ContextVar("looked_for", default=())
"""The sites of the interceptions of Linen modules that are in effect; None: any site."""

_interceptors: Sized | None = getattr(nn.module, "_global_interceptor_stack", None)
"""All that are in effect, other people's too; None: this Flax does not tell."""


def is_linear(module: nn.Module) -> bool:
    """What counts as a linear layer: called with one array, computes x @ kernel (+ bias)."""
    return isinstance(module, nn.Dense)


def looked_into(part: str) -> bool:
    """Whether an interception that is in effect is, or may be, for a layer of this part of a model:
    what others than `intercepting` look for cannot be known."""
    ours = _looked_for.get()
    if _interceptors is None or len(_interceptors) > len(ours):
        return True
    return any(
        sites is None or any(f"{site}/".startswith(f"{part}/") for site in sites)
        for sites in ours
    )


@contextlib.contextmanager
def intercepting(
    sites: frozenset[str] | None,
    change: Callable[[str, Seen, Array], Array],
    args: tuple[Any, ...] = (),
    other: Callable[[nn.Module, tuple[Any, ...]], None] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Passes (site, x, y) of each call of a linear layer in `sites` (None: any) to `change`, and
    (module, arguments) of each other call of Linen's to `other`.

    Of `args`, those of a function, it gives those to call it with: a model of NNX is another there.
    """

    def interceptor(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        y = next_fun(*args, **kwargs)
        if context.method_name != "__call__":
            return y
        if not is_linear(context.module):
            if other is not None:
                other(context.module, args)
            return y
        site = "/".join(context.module.path)
        if sites is not None and site not in sites:
            return y
        x = args[0] if args else kwargs["inputs"]
        return change(site, x, y)

    if takes_module(args):
        with with_names(args, sites, change) as given, _trace_token(object()):
            yield given
        return
    before = _looked_for.set((*_looked_for.get(), sites))
    try:
        with nn.intercept_methods(interceptor), _trace_token(object()):
            yield args
    finally:
        _looked_for.reset(before)


class Calls(NamedTuple):
    """What a function calls. linear: the linear layers, {name: (x, y)}, abstract, in order. others:
    the class of every other module. passes: over how many examples each layer is mapped, and in
    which loop."""

    linear: dict[str, tuple[Seen, Array]]
    others: dict[str, str]
    passes: dict[str, tuple[int, str]]


def linear_sites(function: Callable[..., Any], *args: Any) -> tuple[str, ...]:
    """Names of all linear layers that `function(*args)` calls (args may be shapes), in order."""
    return tuple(calls(function, *parted(args)).linear)


def calls_at(at: Sites, function: Callable[..., Any], *args: Any) -> Calls:
    """As `calls`; only of the layers that are named, if that are all, since nothing else need be
    looked into then. What goes wrong is said of all layers."""
    if not isinstance(at, str):
        with contextlib.suppress(Exception):
            found = _calls(function, frozenset(at), args)
            if found.linear.keys() >= set(at):
                return found
    return calls(function, *args)


def calls(function: Callable[..., Any], *args: Any) -> Calls:
    """Of a function, without running it.

    Raises:
      SiteError: what it calls is Flax NNX's, and no module that it takes first.
    """
    found: dict[str, Any] = {}
    with refusing(found, function, args):
        return _calls(function, None, args, found)


def _calls(
    function: Callable[..., Any],
    sites: frozenset[str] | None,
    args: tuple[Any, ...],
    linear: dict[str, tuple[Seen, Array]] | None = None,
) -> Calls:
    """Of the layers that are sites alone (None: of all), as they are found."""
    linear = {} if linear is None else linear
    others: dict[str, str] = other_parts(args)

    def note(site: str, x: Seen, y: Array) -> Array:
        linear[site] = (x, y)
        return mark(y, site)

    def note_other(module: nn.Module, args: tuple[Any, ...]) -> None:
        del args
        others["/".join(module.path)] = type(module).__name__

    def called(*args: Any) -> Any:  # fresh: make_jaxpr caches by identity
        with intercepting(sites, note, args, note_other) as given:
            return function(*given)

    traced = jax.make_jaxpr(called)(*args)
    passes: dict[str, tuple[int, str]] = {}
    for site, n, loop in marks(traced.jaxpr):
        passes[site] = n, loop or passes.get(site, (n, ""))[1]
    return Calls(linear, others, passes)


def check_loops(sites: Iterable[str], passes: Mapping[str, tuple[int, str]]) -> None:
    """Refuses a site whose passes cannot be told apart.

    Raises:
      SiteError: it is called in a loop.
    """
    for site in sites:
        if loop := passes[site][1]:
            raise SiteError(
                f"site {site!r} is called inside of a {loop} of the function itself, where the "
                "gradients of its passes cannot be told apart: use jax.vmap in its place, or "
                "capture what is called in the loop"
            )
