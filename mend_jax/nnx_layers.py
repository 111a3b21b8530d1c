"""Linear layers of Flax NNX: their names, and a look at each of their calls.

Linen has interceptors. In NNX a function takes its model as an object, and each `nnx.Linear` in it
holds the function that multiplies x by its kernel (`dot_general`). So a transform gives its
function a copy of the model in which these know the name of their layer, `blocks/0/up`: the path on
which `nnx.iter_graph` comes to it first. A name is a static part of the graph; it stays with the
layer in `nnx.jit`, `nnx.remat` and `nnx.vmap`. The model itself does not change, nor does Flax.

Flax NNX is imported where a model of it is seen: it takes longer than the rest of this package.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
from jaxtyping import Array, PyTree

from mend_jax.sites import SiteError, at_path

if TYPE_CHECKING:
    from flax import nnx

Change: TypeAlias = Callable[[str, Any, Array], Array]
"""(site, x, y) of a call -> what the layer puts out in place of y."""

_open: ContextVar[tuple[Change, ...]] = ContextVar("changes", default=())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parted:
    """A model as its graph, which is static, and its arrays. JAX by itself would make two layers of
    one that stands in two places."""

    graph: Any = field(metadata={"static": True})
    state: Any


@dataclass(frozen=True)
class Named:
    """The product of a layer that has a name, which shows it to the change it was named for."""

    site: str
    depth: int
    product: Callable[..., Array]

    def __call__(self, x: Any, kernel: Any, *args: Any, **kwargs: Any) -> Array:
        y, changes = self.product(x, kernel, *args, **kwargs), _open.get()
        return changes[self.depth](self.site, x, y) if self.depth < len(changes) else y


def is_module(x: Any) -> bool:
    """Whether it is a model, or a part of one, of Flax NNX."""
    loaded = sys.modules.get("flax.nnx")
    return loaded is not None and isinstance(x, loaded.Module)


def parted(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a function; the first of them `Parted` if it is a module."""
    if not args or not is_module(args[0]):
        return args
    from flax import nnx

    return Parted(*nnx.split(args[0])), *args[1:]


def takes_module(args: tuple[Any, ...]) -> bool:
    """Whether the first argument is a module, parted or not."""
    return bool(args) and (isinstance(args[0], Parted) or is_module(args[0]))


def copy_of(model: Any) -> "nnx.Module":
    """A module of one's own, with the same arrays."""
    from flax import nnx

    if isinstance(model, Parted):
        return nnx.merge(model.graph, model.state, copy=True)
    return nnx.clone(model)


def layers_of(model: "nnx.Module") -> dict[str, "nnx.Linear"]:
    """Its linear layers, by name."""
    from flax import nnx

    parts = nnx.iter_graph(model)
    return {_name(path): part for path, part in parts if isinstance(part, nnx.Linear)}


def other_parts(args: tuple[Any, ...]) -> dict[str, str]:
    """The class of every part of a module that is no linear layer; of other arguments, none."""
    if not takes_module(args):
        return {}
    from flax import nnx

    modules = ((p, x) for p, x in nnx.iter_graph(copy_of(args[0])) if isinstance(x, nnx.Module))
    return {_name(p): type(x).__name__ for p, x in modules if not isinstance(x, nnx.Linear)}


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


@contextlib.contextmanager
def with_names(
    args: tuple[Any, ...], sites: Collection[str] | None, change: Change
) -> Iterator[tuple[Any, ...]]:
    """The arguments, a copy of the module first, whose layers at the sites (None: all) pass each
    call of theirs to `change`.

    Raises:
      SiteError: the kernel of a site is that of another layer too.
    """
    model, changes = copy_of(args[0]), _open.get()
    linear = layers_of(model)
    if sites is not None:
        linear = {site: layer for site, layer in linear.items() if site in sites}
        check_untied(model, linear)
    for site, layer in linear.items():
        layer.dot_general = Named(site, len(changes), layer.dot_general)
    before = _open.set((*changes, change))
    try:
        yield model, *args[1:]
    finally:
        _open.reset(before)


def check_untied(model: Any, sites: Iterable[str]) -> None:
    """Refuses a site whose kernel another layer uses too; a layer that stands in two places passes.

    Raises:
      SiteError: there is one.
    """
    from flax import nnx

    for paths in nnx.find_duplicates(model):
        names = list(map(_name, paths))
        for site in sites:
            own = f"{site}/kernel".lstrip("/")
            if own in names:
                other = next(name for name in names if name != own)
                raise SiteError(
                    f"the kernel of site {site!r} is also {other!r}: an edit of it is felt at one "
                    "place of the two; edit other layers, or give each its own kernel"
                )


def kernels(params: PyTree) -> PyTree:
    """Of a module, its kernels, `{"blocks": {"0": {"up": {"kernel": array}}}}`; other parameters
    as they are."""
    if not takes_module((params,)):
        return params
    tree: dict[str, Any] = {}
    for site, layer in layers_of(copy_of(params)).items():
        inner = tree
        for name in filter(None, site.split("/")):
            inner = inner.setdefault(name, {})
        inner["kernel"] = layer.kernel[...]
    return tree


def with_kernels(model: Any, tree: PyTree, sites: Iterable[str]) -> "nnx.Module":
    """A copy of the module with these kernels at the sites."""
    model = copy_of(model)
    linear = layers_of(model)
    check_untied(model, sites)
    for site in sites:
        path = (*filter(None, site.split("/")), "kernel")
        linear[site].kernel[...] = at_path(tree, path)
    return model


@contextlib.contextmanager
def refusing(
    found: Collection[str], function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any = None
) -> Iterator[None]:
    """Tells of what is Flax NNX's in a function that finds no layer, or cannot be traced for it.
    Where it takes a module first, what goes wrong in it is its own.

    Raises:
      SiteError: there is such; names its class.
    """
    first = takes_module(args)
    try:
        yield
    except Exception:
        if not found and not first:
            refuse_nnx(function, args, kwargs)
        raise
    if not found:
        refuse_nnx(function, args[1:] if first else args, kwargs)


def refuse_nnx(*values: Any) -> None:
    """Refuses models, states and parameters of Flax NNX, also where a function refers to them.

    Raises:
      SiteError: there is one; names its class.
    """
    held = [getattr(x, "__self__", None) for x in values]
    for function in filter(inspect.isfunction, values):
        seen = inspect.getclosurevars(function)
        held += [*seen.nonlocals.values(), *seen.globals.values()]
    for x in jax.tree.leaves([*values, *held], is_leaf=_is_nnx):
        if _is_nnx(x):
            raise SiteError(
                f"{type(x).__name__} is of Flax NNX, of which layers are seen in the module alone "
                "that a function takes first: give it `loss(module, ...)`, and call this module. "
                "Layers of one that it merges (nnx.merge) or refers to have no names"
            )


def _is_nnx(x: Any) -> bool:
    of = type(x).__mro__
    return not isinstance(x, type) and any(cls.__module__.startswith("flax.nnx") for cls in of)
