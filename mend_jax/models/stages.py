"""A model is stages over a carry, so that its frozen beginning need not be run again.

A staged model is a Linen module with the fields `start` and `stop` and the property `stages` (names
in execution order, each the path prefix of its sites). Its `__call__` runs the stages from `start`
up to, not including, `stop`; what it returns in the middle is what it takes there. Module paths
are the same either way, so one parameter tree serves the model, its trunk and its tail.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mend_jax.calls import intercepting, linear_sites
from mend_jax.scopes.memory import Memory
from mend_jax.sites import SiteError, Sites, match_sites


class Seen(NamedTuple):
    """What was seen on the way through the stages, for those who ask later.

    tokens: of the text (of an encoder-decoder: the source). states: before each of the stages that
    the model was told to `keep`. mask: which of them are no padding (None: all).
    """

    tokens: Int[Array, "k length"]
    states: Float[Array, "k length kept d"]
    mask: Bool[Array, "k length"] | None = None


class Watch(nn.Module):
    """Does nothing, before the first stage that may be edited: those who intercept it learn what
    was seen of each text up to there, and may keep of it what they need for what follows.

    seen: of the tokens of this call. at: int32[k, n], their positions. read: which of them the
    last block is asked for (None: all). Where a text is read as a whole, what is decided of it
    holds for all its positions, and for those of its answer.

    Args:
      cache_length: with more than 0, what is remembered is kept in the collection `cache`.
    """

    cache_length: int = 0

    def __call__(
        self, seen: Seen, at: Int[Array, "k n"], read: Int[Array, "k answers"] | None
    ) -> Seen:
        del at, read
        return seen

    def memory(self, at: Int[Array, "k n"]) -> Memory | None:
        """Of all calls that went into the cache; None without one."""
        if not self.cache_length:
            return None
        rows = jnp.arange(at.shape[0])[:, None]

        def recall(name: str) -> Any:
            return self.get_variable("cache", name)

        def keep(name: str, new: Array) -> Array:
            old = recall(name)
            if old is None:
                old = jnp.zeros((new.shape[0], self.cache_length, *new.shape[2:]), new.dtype)
            every = old.at[rows, at].set(new)
            self.put_variable("cache", name, every)
            return every

        return Memory(at, recall, keep)


class Inputs(NamedTuple):
    """Inputs of a model, and the carry between its stages.

    x: tokens int32[k, length], or hidden states float[k, length, d] after the first stage. Of an
      encoder-decoder it is the source: tokens, then the encoder's states.
    read: int32[k, answers], the positions whose logits are wanted (None: all of them). The head,
      and the last block's queries and MLP, run at these positions only.
    positions: int32[k, length] if they do not count 0, 1, 2, ... (decoding with a cache).
    mask: bool[k, length], which of x is no padding (None: all of it). Causal models need none
      where the padding is to the right, since that does not reach a token. With one, padding to
      the left is not seen, and positions count from the first token that is none.
    target: of an encoder-decoder, the decoder's tokens int32[k, answers] (what it has to say, moved
      one to the right), then its states float[k, answers, d]. The logits are those after each.
    seen: of a model with stages to `keep`: what was kept of them so far. All stages hand it on.
    """

    x: Int[Array, "k length"] | Float[Array, "k length d"]
    read: Int[Array, "k answers"] | None = None
    positions: Int[Array, "k length"] | None = None
    mask: Bool[Array, "k length"] | None = None
    target: Int[Array, "k answers"] | Float[Array, "k answers d"] | None = None
    seen: Seen | None = None


@runtime_checkable
class Staged(Protocol):
    """What `split` needs of a model; other models work too, without the saving."""

    start: int
    stop: int | None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names in execution order."""
        ...

    def example_inputs(self) -> PyTree:
        """The smallest valid inputs, to trace shapes with."""
        ...

    def clone(self, **changes: Any) -> nn.Module:
        """The same module with other fields (Linen's own)."""
        ...


def abstract_params(model: nn.Module) -> PyTree:
    """Shapes and dtypes of the model's parameters, without allocating any."""
    return _once(_abstract, model)


def _once(work_out: Any, model: nn.Module) -> Any:
    """What a function with a memory makes of a model; a model that cannot be remembered is worked
    on each time."""
    try:
        hash(model)
    except TypeError:
        return work_out.__wrapped__(model)
    return work_out(model)


@lru_cache(maxsize=64)
def _abstract(model: nn.Module) -> PyTree:
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda: model.init(key, model.example_inputs()))
    return variables["params"]


def linear_in(model: nn.Module) -> tuple[str, ...]:
    """Names of all linear layers of a staged model, in the order in which they are called."""
    found: tuple[str, ...] = _once(_linear_in, model)
    return found


@lru_cache(maxsize=64)
def _linear_in(model: nn.Module) -> tuple[str, ...]:
    params = abstract_params(model)
    return linear_sites(lambda p: model.apply({"params": p}, model.example_inputs()), params)


def sites_of(model: nn.Module, at: Sites) -> tuple[str, ...]:
    """Names of the linear layers of a staged model that `at` matches.

    Raises:
      SiteError: none matches; or one that is no linear layer.
    """
    return match_sites(at, linear_in(model), {})


def sites_at_read(model: nn.Module, sites: Collection[str]) -> tuple[str, ...]:
    """Those of a causal model's sites whose layers see no positions but those of `read`: in the
    last block, all but the ones that make keys and values."""
    length, answers, found = 3, 2, set[str]()
    asked = Inputs(jnp.zeros((1, length), jnp.int32), jnp.zeros((1, answers), jnp.int32))

    def note(site: str, x: Any, y: Array) -> Array:
        found.update([site] if x.shape[1] == answers else [])
        return y

    with intercepting(frozenset(sites), note):
        jax.eval_shape(lambda p: model.apply({"params": p}, asked), abstract_params(model))
    return tuple(site for site in sites if site in found)


def split(model: nn.Module, at: Sites) -> tuple[nn.Module | None, nn.Module]:
    """Cuts the model before the first stage that holds an edited site.

    Returns:
      (trunk, tail). `tail.apply(variables, trunk.apply(variables, inputs))` equals
      `model.apply(variables, inputs)`. Without stages or sites, or if the first stage is edited:
      (None, model).

    Raises:
      SiteError: a site belongs to no stage.
    """
    if not isinstance(model, Staged) or (not at and at != ""):
        return None, model
    return split_at(model, sites_of(model, at))


def split_at(model: nn.Module, sites: Collection[str]) -> tuple[nn.Module | None, nn.Module]:
    """As `split`; of these sites it is known that the model has them."""
    if not isinstance(model, Staged):
        return None, model
    first = len(model.stages) if sites else 0
    for site in sites:
        owners = [i for i, stage in enumerate(model.stages) if f"{site}/".startswith(f"{stage}/")]
        if not owners:
            raise SiteError(f"site {site!r} belongs to no stage of {type(model).__name__}")
        first = min(first, owners[0])
    if first == 0:
        return None, model
    return model.clone(stop=first), model.clone(start=first)


def can_be_cached(trunk: nn.Module) -> bool:
    """Whether the trunk's output is a function of one text: not if it reaches into a decoder."""
    return trunk.stop <= getattr(trunk, "decoding", trunk.stop)


def tell_of_all(seen: Seen) -> None:
    """Tells what was seen of texts that are read as a whole (see `Watch`)."""
    at = jnp.zeros((len(seen.tokens), 1), jnp.int32)
    Watch(name="watch")(seen, at, None)


def traced(part: nn.Module, inputs: Inputs) -> tuple[PyTree, Any]:
    """(shapes of the parameters that some stages read, shapes of what they return), of what they
    are given, or of its shapes."""
    key = jax.random.key(0)
    carry, variables = jax.eval_shape(lambda x: part.init_with_output(key, x), inputs)
    return variables.get("params", {}), carry


def run_trunk(trunk: nn.Module, params: PyTree, inputs: Inputs) -> Inputs:
    """The carry after the trunk for inputs with any leading axes, without gradient."""
    lead = inputs.x.shape[:-2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(lead) + 1 :]), inputs)
    carry = trunk.apply({"params": params}, flat)
    carry = jax.tree.map(lambda x: x.reshape(*lead, -1, *x.shape[1:]), carry)
    return jax.lax.stop_gradient(carry)
