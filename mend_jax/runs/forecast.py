"""How long a training run will take, and how much memory, said before it begins: an estimate.

    trunk    2 FLOPs a weight and token, once for all texts
    tail     6 for each token of an edit or of an outer pair, 8 for one of a locality pair, whose
             logits are needed with the edit and without
    editor   6 for each of its network's weights and row: an edited layer's token

The machine's speed is that of a large product, of which a step reaches about half. What cannot be
known of numbers alone is left out: compiling, and the time that the training of a scope takes. Its
memory is that of the states that it reads: of the run's texts, of others about their subjects and
in chats (`scope_passages`), and of a batch.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mend_jax.data.batches import Shapes, shapes_of
from mend_jax.data.bucketing import SHORT
from mend_jax.data.scope_batches import DRAWN, RUNNING_TEXTS
from mend_jax.data.training_batches import parts_of
from mend_jax.data.trunk_pass import Passed
from mend_jax.models.memory import device_bytes
from mend_jax.models.registry import Base
from mend_jax.models.stages import split
from mend_jax.runs.options import TrainConfig
from mend_jax.runs.scope_passages import BEFORE, CHATS, PIECES
from mend_jax.runs.scoping import OWN, check_can_scope, reads_whole
from mend_jax.runs.splits import Data
from mend_jax.runs.streaming import COPIES, network_sizes, texts_of

REACHED = 0.5
"""Of the speed of a large product, by a step."""
SIDE = 1024
"""Rows and columns of that product."""
CHAT = 50
"""Tokens that a chat has beside what is asked."""
SCOPED = 12
"""Of a scope's batch, with what is between its states and its losses."""


class Forecast(NamedTuple):
    """Bytes of the weights, the editor, the cached states, the activations of a step, and what a
    scope is trained on; FLOPs of the trunk, once, and of one step."""

    weights: float
    editor: float
    cached: float
    activations: float
    scope: float
    flops_trunk: float
    flops_step: float

    @property
    def memory(self) -> float:
        """Bytes of all of it."""
        return self.weights + self.editor + self.cached + self.activations + self.scope

    def seconds(self, steps: int, speed: float) -> float:
        """Of so many steps, at so many FLOPs a second."""
        return (self.flops_trunk + steps * self.flops_step) / speed


def forecast(config: TrainConfig, base: Base, sites: tuple[str, ...], data: Data) -> Forecast:
    """What the numbers of the base and the records say."""
    trunk, _ = split(base.model, sites)
    below = set(base.model.stages[: trunk.stop]) if trunk is not None else set()
    kernels = {"/".join(path[:-1]): x for path, x in _leaves(base.params) if path[-1] == "kernel"}
    in_trunk = sum(x.size for name, x in kernels.items() if _within(name, below))
    in_tail = {name: x for name, x in kernels.items() if not _within(name, below)}
    weights_tail = sum(x.size for x in in_tail.values())
    parts = parts_of(data.train)
    shares = (1.0,) if parts is None else (1 - parts.share, parts.share)
    shaped = ([*data.train, *data.dev],) if parts is None else parts[:2]
    steps = [_tokens(config, shapes_of(part, config.swap)) for part in shaped]
    most = steps[-1]
    edit, asked, kept = (
        sum(share * float(n) for share, n in zip(shares, of, strict=True))
        for of in zip(*((step.edit, step.asked, step.kept) for step in steps), strict=True)
    )
    at = [kernels[site].shape for site in sites]
    sizes = network_sizes(config, at)
    rows = edit * sum(sizes.get(shape, 0.0) for shape in at)
    texts = {tokens.tobytes(): len(tokens) for tokens in texts_of(data)}
    width = min(min(shape) for shape in at)
    states = sum(texts.values()) * width if trunk is not None else 0
    wide = sum(x.shape[0] + x.shape[1] for x in in_tail.values() if x.ndim == 2)
    return Forecast(
        weights=device_bytes(base.params),
        editor=4.0 * COPIES * sum(sizes.values()),
        cached=4.0 * states * (config.trunk_cache == "memory"),
        activations=4.0
        * ((most.asked + most.kept) * wide + 3 * most.answers * base.config.vocab_size),
        scope=_scope_bytes(config, base, sites, data, list(texts.values()), width),
        flops_trunk=2.0 * in_trunk * sum(texts.values()),
        flops_step=6.0 * weights_tail * asked + 8.0 * weights_tail * kept + 6.0 * rows,
    )


class _Tokens(NamedTuple):
    """Of a step, padded: of the edits; of the edits and what is asked; of locality prompts; and of
    all answers."""

    edit: int
    asked: int
    kept: int
    answers: int


def _tokens(config: TrainConfig, shapes: Shapes) -> _Tokens:
    edits, stays = config.batch * config.k, config.near + config.far
    asked, answers = (edits * (shapes.edit[i] + config.outer * shapes.outer[i]) for i in range(2))
    kept, more = (edits * stays * shapes.locality[i] for i in range(2))
    return _Tokens(edits * shapes.edit[0], asked, kept, answers + more)


def told(found: Forecast, config: TrainConfig) -> str:
    """The forecast in words, at the speed of this machine."""
    speed = REACHED * speed_of_products()
    seconds = found.seconds(config.steps, speed)
    long = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
    trained = config.scope and not config.scope_of
    scope, states = (
        (", and the training of the scope", f", the scope's {found.scope / 1e9:.2g}")
        if trained else ("", "")
    )  # fmt: skip
    return (
        f"about {long} for {config.steps:,} steps of {found.flops_step / 1e9:,.3g} GFLOP{scope}; "
        f"about {found.memory / 1e9:.2g} GB of memory: base {found.weights / 1e9:.2g}, editor "
        f"{found.editor / 1e9:.2g}, cached states {found.cached / 1e9:.2g}, a step "
        f"{found.activations / 1e9:.2g}{states} (estimates)"
    )


def told_of_pass(passed: Passed) -> str:
    """A pass through the trunk, in words, beside the speed of this machine's products."""
    speed = passed.flops / max(passed.seconds, 1e-9)
    share = speed / speed_of_products()
    return (
        f"{passed.tokens:,} tokens through the layers below in {passed.seconds:.0f} s: "
        f"{speed / 1e9:,.0f} GFLOP/s, {share:.2f} of a large product's (float32)"
    )


def speed_of_products() -> float:
    """FLOPs a second of a float32 product on the first device."""
    a = jnp.ones((SIDE, SIDE), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    began = time.perf_counter()
    for _ in range(3):
        product(a, a).block_until_ready()
    return float(3 * 2 * SIDE**3 / max(time.perf_counter() - began, 1e-9))


def _scope_bytes(
    config: TrainConfig,
    base: Base,
    sites: tuple[str, ...],
    data: Data,
    lengths: list[int],
    width: int,
) -> float:
    """Of the states that the training of a scope holds, if it is trained here."""
    if not config.scope or config.scope_of:
        return 0.0
    row = len(check_can_scope(base.model, sites).stages) * width
    length, n = sum(lengths) / len(lengths), len(data.train) + len(data.dev)
    each = OWN * length
    if not reads_whole(base.model):
        each += 3 * length  # after other text; and spoken of
        each += 2 * BEFORE * sum(PIECES) / len(PIECES)
        each += 4 * CHATS * (length + CHAT) * bool(base.chat.source)
    drawn = sum(DRAWN.values()) * config.scope_batch + RUNNING_TEXTS
    kept = 2.0 * (sum(lengths) + n * each)  # in bfloat16
    return row * (kept + 4.0 * SCOPED * drawn * SHORT)


def _leaves(params: Any) -> list[tuple[tuple[str, ...], Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(tuple(str(key.key) for key in path), x) for path, x in leaves]


def _within(name: str, stages: set[str]) -> bool:
    """Whether a module is of one of the stages."""
    return any(name == stage or name.startswith(f"{stage}/") for stage in stages)
