"""What a base says to many texts, in batches of fixed shapes: one program a bucket of lengths."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from mend_jax.data.bucketing import LENGTHS, bucket
from mend_jax.data.encoding import Ids
from mend_jax.models.generate import Choice, generate, most_likely
from mend_jax.models.registry import Base


def pad_prompts(
    prompts: Sequence[Ids],
    rows: int | None = None,
    length: int | None = None,
) -> tuple[Int[np.ndarray, "k length"], Int[np.ndarray, "k"]]:
    """Token ids of prompts, padded to the right to a bucket's length, and their true lengths.

    Args:
      rows: with it, empty prompts fill up to so many.
      length: to pad to, in place of the smallest bucket that holds them.
    """
    k = len(prompts) if rows is None else rows
    tokens = np.zeros((k, length or bucket(max(map(len, prompts)), LENGTHS)), np.int32)
    for row, prompt in zip(tokens, prompts, strict=False):
        row[: len(prompt)] = prompt
    lengths = [len(prompt) for prompt in prompts]
    return tokens, np.asarray([*lengths, *[1] * (k - len(prompts))], np.int32)


def greedy(key: Key[Array, ""]) -> Choice:
    """The most likely token, whatever the key."""
    return most_likely()


def answers(
    base: Base,
    prompts: Sequence[Ids],
    new: int,
    batch: int,
    choice: Callable[[Key[Array, ""]], Choice] = greedy,
    seed: int = 0,
) -> Iterator[tuple[int, list[int]]]:
    """Yields (index of a prompt, `new` tokens after it), the short prompts first.

    Args:
      prompts: token ids; prompts of similar length go side by side, `batch` of them.
      choice: of the next token, given the key of a batch. The same function compiles once.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch):
        part = order[first : first + batch]
        key = jax.random.fold_in(jax.random.key(seed), first)
        padded = pad_prompts([prompts[i] for i in part], batch)
        said = _say(base.model, base.params, padded, key, new, choice)
        yield from zip(part, np.asarray(said).tolist(), strict=False)


@partial(jax.jit, static_argnames=("model", "new", "choice"))
def _say(
    model: nn.Module,
    params: PyTree,
    prompts: tuple[Int[Array, "k length"], Int[Array, "k"]],
    key: Key[Array, ""],
    new: int,
    choice: Callable[[Key[Array, ""]], Choice],
) -> Int[Array, "k new"]:
    return generate(model, params, *prompts, new, choice(key))
