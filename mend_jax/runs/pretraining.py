"""Training a small base from nothing, so that there is something it knows, to edit.

Every epoch asks for every fact once, in one of its phrasings, drawn anew; the loss is the mean
negative log-likelihood of the answer's tokens. Batches are of one length each, cut from the epoch
sorted by length, the long answers (a tenth) apart, so that little of them is padding.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from mend_jax.data.batches import collate
from mend_jax.data.bucketing import ANSWERS, LENGTHS, bucket
from mend_jax.data.encoding import Tokens
from mend_jax.example import Pair
from mend_jax.objectives import answered, sequence_logits, sequence_loss
from mend_jax.training.loop import TrainingError

STALL_LIMIT = 20
"""Training ends after so many steps in a row whose loss or gradient was not finite."""

Epoch = Callable[[np.random.Generator], list[Tokens]]
"""One epoch's pairs."""


class Course(NamedTuple):
    """How long and how fast a base learns: steps, of which `warm_up` (a tenth at most) the rate
    goes up to its peak; and questions a step."""

    steps: int
    learning_rate: float
    warm_up: int = 100
    batch: int = 64
    seed: int = 0


def pretrain(
    model: nn.Module,
    params: PyTree,
    draw: Epoch,
    course: Course,
    report: Callable[[int, float, float], None] = lambda step, loss, seconds: None,
) -> PyTree:
    """Adam with a linear warm-up and a cosine decay to zero; returns the trained parameters.

    Args:
      params: donated, do not use them again.
      report: called after every 50th step and the last, with the mean loss since the last call.

    Raises:
      TrainingError: `STALL_LIMIT` steps in a row had a loss or a gradient that was not finite; or
        the last one had, or the parameters are not finite.
    """
    steps, learning_rate, warm_up, batch, seed = course
    warm_up = min(warm_up, max(steps // 10, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warm_up, max(steps, warm_up + 1)
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    loss = sequence_loss(model)

    def step(
        params: PyTree, state: Any, stalled: Array, pair: Pair
    ) -> tuple[PyTree, Any, Array, Array]:
        value, gradient = jax.value_and_grad(loss)(params, pair)
        updates, state = optimiser.update(gradient, state, params)
        sound = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
        stalled = jnp.where(sound, 0, stalled + 1)
        return optax.apply_updates(params, updates), state, stalled, value

    jitted = jax.jit(step, donate_argnums=(0, 1))
    state, stalled = optimiser.init(params), jnp.zeros((), jnp.int32)
    pairs = _batches(draw, batch, seed)
    began, losses = time.perf_counter(), []
    for number in range(1, steps + 1):
        params, state, stalled, value = jitted(params, state, stalled, next(pairs))
        losses.append(value)
        if number % STALL_LIMIT == 0 or number == steps:
            _check_sound(number, int(stalled), STALL_LIMIT if number < steps else 1)
        if number % 50 == 0 or number == steps:
            mean = float(jnp.mean(jnp.stack(losses)))
            report(number, mean, time.perf_counter() - began)
            losses = []
    if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(params)):
        raise TrainingError("the trained parameters are not finite: lower the learning rate")
    return params


def _check_sound(number: int, stalled: int, limit: int) -> None:
    if stalled >= limit:
        raise TrainingError(
            f"stopped at step {number}: the last {stalled} steps had a loss or a gradient that was "
            "not finite. Nothing is learned like this, and no base is written: lower the learning "
            "rate, or check that the weights at the start are finite"
        )


def exact_match(
    model: nn.Module, params: PyTree, pairs: Sequence[Tokens], batch: int = 256
) -> np.ndarray:
    """Which pairs are answered with every token right: bool[pairs].

    That is greedy generation compared with the answer: where all tokens before are right, the next
    one sees the same text.
    """
    logits = sequence_logits(model)
    run = jax.jit(lambda params, pair: answered(logits(params, pair), pair.labels))
    right = np.zeros(len(pairs), bool)
    for chosen, pair in _by_length(pairs, batch):
        right[chosen] = np.asarray(run(params, pair))[: len(chosen)] == 1
    return right


def _batches(draw: Epoch, batch: int, seed: int) -> Iterator[Pair]:
    epoch = 0
    while True:
        rng = np.random.default_rng((seed, epoch))
        ready = [pair for _, pair in _by_length(draw(rng), batch, rng)]
        for i in rng.permutation(len(ready)):
            yield ready[i]
        epoch += 1


def _by_length(
    pairs: Sequence[Tokens], batch: int, rng: np.random.Generator | None = None
) -> Iterator[tuple[list[int], Pair]]:
    """(which pairs, the batch) with the last of it filled up by repeats, which stand at its end."""
    shuffled = np.arange(len(pairs)) if rng is None else rng.permutation(len(pairs))
    answers = sorted(len(pair.labels) for pair in pairs)
    few, most = (bucket(answers[n * (len(answers) - 1) // 10], ANSWERS) for n in (9, 10))

    def shape(i: int) -> tuple[bool, int]:
        return len(pairs[i].labels) > few, bucket(len(pairs[i].tokens), LENGTHS)

    order = sorted(shuffled.tolist(), key=shape)
    for i in range(0, len(order), batch):
        chosen = order[i : i + batch]
        filled = [pairs[chosen[j % len(chosen)]] for j in range(batch)]
        length = bucket(max(len(p.tokens) for p in filled), LENGTHS)
        short = all(len(p.labels) <= few for p in filled)
        pair = collate([filled], (length, few if short else most))
        yield chosen, jax.tree.map(lambda x: x[0], pair)
