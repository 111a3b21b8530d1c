"""GRACE: an edit is an entry of a codebook beside one layer (Hartvigsen et al. 2023). The codebook,
and what entries do to each other: `editors/codebook.py`.

From the paper: an entry's key is the layer's input at the last token of the edit's prompt; its
value is trained by gradient descent, with all else frozen, until the model answers (section 3).

From the authors' code: the layer is one linear layer of an MLP (in GPT-2 XL of block 35 of 48). The
value is trained by Adam with a rate of 1, 100 steps; it begins as the layer's own output, or at
random (`val_init`; the former here, which took as many steps). It is put out at the position that
was looked up, at all of the prompt before it, or everywhere (`replacement`). For the latter two the
code is told where the prompt ends; while the model speaks, it looks every new token up by itself.

Chosen here, so that GRACE does as well as it can: every position is looked up by its own input, so
that what is scored with the answer fed in is what the model says by itself (`replace_last`, at
every position); answers are compared token by token (the code compares the means of their
numbers); training ends early when the edit's loss is low; and epsilon_init, which the authors
choose by hand, is the one that serves edit success and locality of training records best.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.calls import intercepting
from mend_jax.editors.base import Editor, EditorState, observe_nothing
from mend_jax.editors.codebook import Entry, codebook, looked_up
from mend_jax.editors.held import alone, count
from mend_jax.editors.method import Ground, Method
from mend_jax.example import Example, Pair
from mend_jax.models.stages import Inputs, linear_in, sites_of
from mend_jax.objectives import IGNORED, Outputs, negative_log_likelihood
from mend_jax.option_types import Radius, Rate, SiteNames, Some
from mend_jax.sites import SiteError, Sites, match_sites

ENOUGH = 0.05
"""Mean loss of an edit, in nats, at which its value is trained."""
SIDE_BY_SIDE = 8
"""Edits of one example whose values are trained at a time."""
GRID = np.geomspace(1e-3, 1e5, 400, dtype=np.float32)
"""Radii to choose from, each 5 % above the one before."""

Looks = Callable[[PyTree, Pair], tuple[Float[Array, "k d_in"], Float[Array, "k d_out"]]]


def grace(
    outputs: Outputs,
    at: Sites,
    *,
    radius: float | None = None,
    learning_rate: float = 1.0,
    steps: int = 100,
) -> Editor:
    """The editor; an edit is a codebook of the k pairs of an example, added in their order.

    Args:
      at: one site, by its name.
      radius: epsilon_init. None: the best one for the examples that it is calibrated with
        (`parting`).
      learning_rate, steps: of Adam, for each value; so many steps at most.

    Raises (from init):
      SiteError: `at` is not one site; there is no such site.
    """
    look, book = looks(outputs, at), codebook()
    train = value_of(outputs, at, learning_rate, steps)

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        del key
        jax.eval_shape(look, params, example.edit)  # its errors come now
        if radius is not None:  # nothing has to be measured
            return EditorState({}, {})
        none = jnp.zeros(len(GRID))
        return EditorState({}, {"outer": none, "locality": none, "updates": jnp.zeros(())})

    def within(params: PyTree, example: Example, pair: Pair) -> Float[Array, "radii"]:
        """How many of the pairs are within each radius of the edit, which itself does not count."""
        own, asked = look(params, example.edit)[0][0], look(params, pair)[0]
        gaps = jnp.linalg.norm(asked - own[None], axis=-1)
        other = jnp.any(pair.labels != IGNORED, axis=-1) & (gaps > 1e-5 * jnp.linalg.norm(own))
        return jnp.sum((gaps[:, None] <= GRID[None]) & other[:, None], axis=0, dtype=jnp.float32)

    def calibrate(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        if radius is not None:
            return state.stats
        each = alone(examples)
        of_all = jax.vmap(within, (None, 0, 0))
        found = {
            name: jnp.sum(of_all(params, each, getattr(each, name)), axis=0)
            for name in ("outer", "locality")
        }
        found["updates"] = jnp.minimum(found["locality"][-1], 1.0)  # without, none is too wide
        return jax.tree.map(jnp.add, state.stats, found)

    def edit(state: EditorState, params: PyTree, example: Example) -> Any:
        epsilon = jnp.float32(radius) if radius is not None else parting(**state.stats)

        def entry(pair: Pair) -> Entry:
            key, start = (x[0] for x in look(params, pair))
            new = Entry(key, start, epsilon, pair.labels[0])
            return new._replace(value=train(params, pair, new))

        pairs = jax.tree.map(lambda x: jnp.asarray(x)[:, None], example.edit)
        made = jax.lax.map(entry, pairs, batch_size=SIDE_BY_SIDE)
        return book.apply(book.hold(made, count(made)))

    def apply(state: EditorState, function: Callable[..., Any], edit: Any) -> Callable[..., Any]:
        del state
        return looked_up(function, one_site(at), edit)

    options = {"radius": radius, "learning_rate": learning_rate, "steps": steps}
    config = {"editor": "grace", "options": options}
    return Editor(init, calibrate, edit, observe_nothing(edit), apply, config)


def looks(outputs: Outputs, at: Sites) -> Looks:
    """`look(params, pair)`: the site's input and output where the answer to each prompt begins."""

    def look(params: PyTree, pair: Pair) -> tuple[Array, Array]:
        site, found = one_site(at), dict[str, tuple[Any, Array]]()

        def note(site: str, x: Any, y: Array) -> Array:
            found[site] = x, y
            return y

        with intercepting(None, note, (params,)) as (model,):
            outputs.logits(model, pair._replace(inputs=pair.inputs._replace(read=None)))
        match_sites((site,), found, {})
        x, y = (part.astype(jnp.float32) for part in found[site])
        place = asked_at(pair.inputs, outputs.kind, site)[:, None, None]
        at_place = [jnp.take_along_axis(part, place, axis=1, mode="clip")[:, 0] for part in (x, y)]
        return at_place[0], at_place[1]

    return look


def asked_at(inputs: Inputs, kind: str, site: str) -> Int[Array, "k"]:
    """The position, among those that the site sees, at which a prompt has been read: its last token
    or, in a decoder that is given none of it, the first; where a classifier is read, if this is
    one."""
    k, length = inputs.x.shape[:2]
    if kind == "seq2seq":
        if site.startswith("decoder/"):
            return jnp.zeros(k, jnp.int32)
        if inputs.mask is not None:
            return jnp.sum(inputs.mask, axis=-1, dtype=jnp.int32) - 1
    elif inputs.read is not None:
        return jnp.asarray(inputs.read[:, 0])
    return jnp.full(k, 0 if kind == "classifier" else length - 1, jnp.int32)


def value_of(
    outputs: Outputs, at: Sites, learning_rate: float, steps: int
) -> Callable[[PyTree, Pair, Entry], Float[Array, "d_out"]]:
    """`train(params, pair, entry)`: the value with which a codebook of this entry alone answers the
    pair [1, ...]."""
    optimiser = optax.adam(learning_rate)

    def train(params: PyTree, pair: Pair, entry: Entry) -> Float[Array, "d_out"]:
        def loss(value: Float[Array, "d_out"]) -> Float[Array, ""]:
            book = jax.tree.map(lambda x: x[None], entry._replace(value=value))
            said = looked_up(outputs.logits, one_site(at), book)(params, pair)
            return negative_log_likelihood(said, pair.labels)

        def unanswered(carry: Any) -> Array:
            _, _, step, done = carry
            return (step < steps) & ~done

        def descend(carry: Any) -> Any:
            now, moments, step, _ = carry
            left, gradient = jax.value_and_grad(loss)(now)
            updates, moments = optimiser.update(gradient, moments)
            done = left < ENOUGH
            return jnp.where(done, now, now + updates), moments, step + 1, done

        start = entry.value
        begin = (start, optimiser.init(start), jnp.int32(0), jnp.asarray(False))
        return jax.lax.while_loop(unanswered, descend, begin)[0]

    return train


def parting(
    outer: Float[Array, "radii"], locality: Float[Array, "radii"], updates: Float[Array, ""]
) -> Float[Array, ""]:
    """The radius with the largest product of edit success, (1 + the share of rephrases within) / 2,
    and locality, 1 - the share of locality prompts within. Of equal ones the widest; NaN, within
    which nothing is, if none were counted."""
    reached, harmed = (x / jnp.maximum(x[-1], 1.0) for x in (outer, locality))
    good = (1 + reached) * (1 - harmed)
    widest = len(GRID) - 1 - jnp.argmax(good[::-1])
    return jnp.where(updates > 0, jnp.asarray(GRID)[widest], jnp.nan)


def one_site(at: Sites) -> str:
    """The name of the one site.

    Raises:
      SiteError: there are more, or none.
    """
    names = (at,) if isinstance(at, str) else tuple(at)
    if len(names) != 1:
        raise SiteError(f"GRACE has its codebook beside one layer; {len(names)} sites are given")
    return names[0]


@dataclass(frozen=True, kw_only=True)
class GraceOptions:
    """Options of GRACE."""

    site: SiteNames = ""
    """The layer beside which the codebook is; empty: the last of the MLP three quarters up (of an
    encoder-decoder, in the encoder)."""
    radius: Radius | None = None
    """Of a new entry (epsilon_init); by default from training records."""
    learning_rate: Rate = 1.0
    """Of Adam, for each value."""
    steps: Some = 100
    """Steps at most; they end when the edit's loss is low."""


def _sites(options: GraceOptions, model: Any, _: tuple[str, ...]) -> tuple[str, ...]:
    return (one_site(sites_of(model, options.site)) if options.site else last_of_mlp(model),)


def last_of_mlp(model: Any) -> str:
    """The linear layer that is called last in the MLP of the block three quarters up: in GPT-2 XL
    of block 35, as the authors have it."""
    blocks = model.stages[1 : getattr(model, "decoding", -1)]
    block = blocks[3 * (len(blocks) - 1) // 4]
    return [site for site in linear_in(model) if site.startswith(f"{block}/mlp/")][-1]


def _choose(options: GraceOptions, ground: Ground) -> dict[str, Any]:
    del ground
    return {name: value for name, value in asdict(options).items() if name != "site"}


METHOD = Method(
    grace,
    GraceOptions,
    _choose,
    lambda options: {"calibrate": 8 if options.radius is None else 0},
    sites=_sites,
)
