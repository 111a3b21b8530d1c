"""One program for each shape, of what is called outside of `jax.jit` too.

JAX runs a function that is not jitted operation by operation, and compiles each of them; inside of
an interception these programs cannot be kept, and stay in memory. So what intercepts is compiled
as a whole, once for each function and shape, and forgotten with the function.
"""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

Build = Callable[..., Callable[..., Any]]
"""build(function, *fixed) -> what is to run, for arguments that are arrays and others."""


def jit_quickly(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """`jax.jit(function, **how)` for a program that is run a few times, by hand: on a CPU it is
    compiled without most of XLA's optimisations. Its products are a library's, and as fast."""
    options: dict[str, bool | int] = {}
    if jax.default_backend() == "cpu":
        options["xla_backend_optimization_level"] = 0
        if jax.__version_info__ < (0, 11):  # an option that is not known would be an error
            options["xla_cpu_use_fusion_emitters"] = False
    return jax.jit(function, compiler_options=options, **how)


_kept: weakref.WeakKeyDictionary[Any, dict[Hashable, Callable[..., Any]]]
_kept = weakref.WeakKeyDictionary()


class _Rest(NamedTuple):
    """Arguments without their arrays, in whose places stands None: a static argument of jit."""

    tree: Any
    leaves: tuple[Hashable, ...]
    arrays: tuple[bool, ...]


def run(build: Build, function: Callable[..., Any], fixed: tuple[Hashable, ...], *args: Any) -> Any:
    """`build(function, *fixed)(*args)`, as one program if it is not part of another already.

    Functions that cannot be kept (they are not hashable, say), and those that are traced by
    somebody else, are run as they are.
    """
    leaves, tree = jax.tree.flatten(args)
    arrays = tuple(isinstance(x, jax.Array | np.ndarray) for x in leaves)
    if not any(arrays) or any(isinstance(x, jax.core.Tracer) for x in leaves):
        return build(function, *fixed)(*args)
    others = tuple(None if array else x for x, array in zip(leaves, arrays, strict=True))
    rest = _Rest(tree, others, arrays)
    try:
        hash(rest)
        program = _program(build, function, fixed)
    except TypeError:  # no weak reference, or no hash
        return build(function, *fixed)(*args)
    try:
        return program(rest, [x for x, array in zip(leaves, arrays, strict=True) if array])
    except (TypeError, jax.errors.JAXTypeError):  # it looks at numbers, or gives something else
        return build(function, *fixed)(*args)


def _program(
    build: Build, function: Callable[..., Any], fixed: tuple[Hashable, ...]
) -> Callable[..., Any]:
    """The jitted function, which lives as long as the function, or the object whose method it is:
    a method is another object each time that it is looked up."""
    owner = getattr(function, "__self__", function)
    method = getattr(function, "__func__", None)
    programs = _kept.setdefault(owner, {})
    key = (build, method, fixed)
    if key not in programs:
        weak = weakref.ref(owner)

        def whole(rest: _Rest, arrays: list[Any]) -> Any:
            alive: Any = weak()
            called = alive if method is None else method.__get__(alive)
            given = iter(arrays)
            places = zip(rest.leaves, rest.arrays, strict=True)
            leaves = [next(given) if array else leaf for leaf, array in places]
            return build(called, *fixed)(*jax.tree.unflatten(rest.tree, leaves))

        programs[key] = jax.jit(whole, static_argnums=0)
    return programs[key]
