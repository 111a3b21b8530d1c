"""Taps on linear layers: gradients as factors, and kernels as if edited.

`capture` and `edited` transform any function that calls linear layers of Flax, Linen's or NNX's,
in anybody's model; nothing in it has to know. For a layer z = u W + b with loss L,

    dL/dW = sum_r u_r delta_r^T,   delta = dL/dz,

so one custom-VJP identity on z, whose dummy argument receives (u, delta) as its cotangent, is all
that is needed: no d_in x d_out gradient is formed, nothing below the first site differentiated.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mend_jax.calls import Seen, calls_at, check_loops, intercepting
from mend_jax.factors import Dense, Edit, Factors, matmul, shape_of, to_dense
from mend_jax.nnx_layers import is_module, kernels, parted, refuse_nnx, refusing, with_kernels
from mend_jax.passes import tap
from mend_jax.programs import run
from mend_jax.sites import (
    SiteError,
    Sites,
    check_editable,
    check_kernel,
    check_visited,
    match_sites,
    reboxed,
    unboxed,
)


def capture(
    loss: Callable[..., Float[Array, ""]], at: Sites
) -> Callable[..., tuple[Float[Array, ""], dict[str, Factors]]]:
    """Like `jax.value_and_grad` with respect to the kernels `at`, with gradients as `Factors`.

    Args:
      loss: `loss(params, *args) -> scalar`, which calls linear layers of Linen modules; or
        `loss(module, *args) -> scalar`, as for `nnx.value_and_grad`, which calls an NNX module.
      at: the sites, e.g. `r"layers_(28|29)/mlp/(up|down)_proj"`, or a sequence of names.

    Returns:
      `f(params, *args) -> (value, {site: Factors})`; `u` is float32[rows, d_in], `delta`
      float32[rows, d_out], rows being all leading axes of the layer's input, flattened, and those
      of all examples that the loss itself maps over by `jax.vmap`.
      `sum_r u_r delta_r^T` equals `jax.grad(loss)` at that kernel.

    Raises:
      SiteError: a site matches nothing, or no linear layer; is called twice in one pass; or stands
        in a loop of the loss itself (scan, map, fori_loop, shard_map). A model of NNX is not what
        the loss takes first; or the kernel of a site is that of another layer, too.
    """
    fixed = (at if isinstance(at, str) else tuple(at),)

    def captured(*args: Any) -> tuple[Float[Array, ""], dict[str, Factors]]:
        return run(_capturing, loss, fixed, *parted(args))

    return captured


def _capturing(loss: Callable[..., Float[Array, ""]], at: Sites) -> Callable[..., Any]:
    def capturing(*args: Any) -> tuple[Float[Array, ""], dict[str, Factors]]:
        linear, others, passes = calls_at(at, loss, *args)
        sites = match_sites(at, linear, others)
        params, slots = kernels(args[0]), {}
        for site in sites:
            x, y = linear[site]
            check_kernel(params, site, x.shape[-1], y.shape[-1])
            rows = x.size // x.shape[-1] * passes[site][0]
            slots[site] = Factors(
                jnp.zeros((rows, x.shape[-1]), jnp.float32),
                jnp.zeros((rows, y.shape[-1]), jnp.float32),
            )

        check_loops(sites, passes)

        def with_slots(slots: dict[str, Factors]) -> Float[Array, ""]:
            visited: set[str] = set()

            def tapped(site: str, x: Seen, y: Array) -> Array:
                if site in visited:
                    raise SiteError(
                        f"site {site!r} is called twice in one pass: the gradient of its kernel "
                        "would mix both calls; capture a function that calls it once"
                    )
                visited.add(site)
                return tap(y, x, slots[site], slots[site].u.shape[0])

            with intercepting(frozenset(sites), tapped, args) as given:
                value = loss(*given)
            check_visited(sites, visited)
            return value

        return jax.value_and_grad(with_slots)(slots)

    return capturing


def edited(
    function: Callable[..., Any], edit: Edit, at: Mapping[str, Bool[Array, "*rows"]] | None = None
) -> Callable[..., Any]:
    """`function` as if the edit had been added to the kernels: z + x u^T delta at every site.

    The base's weights are neither read for this nor written; dropping the edit undoes it. The
    factors are applied in float32, whatever the layer's dtype. With an empty edit the function is
    unchanged.

    Args:
      at: of each site, at which of its rows the edit is felt (None: at all).

    Raises:
      SiteError: the function does not call one of the sites, or the shapes do not fit.
    """
    if not edit:
        return function

    def as_edited(*args: Any, **kwargs: Any) -> Any:
        return run(_editing, function, (), edit, at, parted(args), kwargs)

    return as_edited


def _editing(function: Callable[..., Any]) -> Callable[..., Any]:
    def as_edited(
        edit: Edit, at: Mapping[str, Array] | None, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        visited: set[str] = set()

        def shift(site: str, x: Seen, y: Array) -> Array:
            if (x.shape[-1], y.shape[-1]) != shape_of(edit[site]):
                raise SiteError(
                    f"site {site!r} maps {x.shape[-1]} to {y.shape[-1]} features, but the edit "
                    f"is {' x '.join(map(str, shape_of(edit[site])))}: made for another model?"
                )
            visited.add(site)
            moved = (y.astype(jnp.float32) + matmul(x, edit[site])).astype(y.dtype)
            return moved if at is None else jnp.where(at[site][..., None], moved, y)

        with refusing(visited, function, args, kwargs):
            with intercepting(frozenset(edit), shift, args) as given:
                out = function(*given, **kwargs)
        check_visited(edit, visited)
        return out

    return as_edited


def merge(params: PyTree, edit: Edit) -> PyTree:
    """New parameters, or a new NNX module, with the edit added to its kernels, in their own dtype.

    To ship a model. A kernel that lies in a box with the names of its axes
    (`nn.with_partitioning`) stays in it. In bfloat16 most of a small edit is lost to rounding: keep
    the edit beside the model instead where that matters.

    Raises:
      SiteError: `params` has no kernel at a site, or one of another shape, or an int8 one, or one
        that two layers of a module use; or they are a state of NNX, without its module.
    """
    if is_module(params):
        return with_kernels(params, merge(kernels(params), edit), edit)
    refuse_nnx(params)
    paths = {s: check_editable(params, s, *shape_of(part)) for s, part in edit.items()}

    def folded(tree: Any, path: tuple[str, ...], part: Factors | Dense) -> Any:
        if not path:
            kernel = unboxed(tree)
            return reboxed(tree, (kernel.astype(jnp.float32) + to_dense(part)).astype(kernel.dtype))
        return {**tree, path[0]: folded(tree[path[0]], path[1:], part)}

    for site, part in edit.items():
        params = folded(params, paths[site], part)
    return params
