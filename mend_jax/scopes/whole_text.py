"""The two keys of a text that is read as a whole, by an encoder: it has one position.

    subject   of each head a mean over tokens, of their early states: the name, as it is written
    relation  the same of their late states

Every token has read the whole text, so its late states know what it is in it; by all of its states
it says how much it counts in each mean. Keys are held and compared as those of `network`.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from mend_jax.scopes.network import (
    Keys,
    Scope,
    Sizes,
    fresh,
    near,
    sizes_of,
    standard,
    unit,
)


def two_keys_of_text(stages: tuple[int, ...], late: int = 1, **sizes: Unpack[Sizes]) -> Scope:
    """The scope of an encoder-decoder, or of a classifier.

    Args: as of `two_keys`.

    Raises:
      TypeError: a size of another name.
    """
    size = sizes_of(sizes)
    heads, width = size["heads"], size["width"]

    def init(key: Key[Array, ""], d: int) -> PyTree:
        early, every, pooled = d * (len(stages) - late), d * len(stages), heads * width
        shapes = {
            "whom": (every, heads), "names": (early, pooled), "subject": (pooled, size["subject"]),
            "what": (every, heads), "asks": (d * late, pooled),
            "inner": (pooled, size["hidden"]), "outer": (size["hidden"], size["relation"]),
            "skip": (pooled, size["relation"]),
        }  # fmt: skip
        return fresh(key, shapes, (len(stages), d))

    def keys(
        phi: PyTree,
        states: Float[Array, "k length kept d"],
        mask: Bool[Array, "k length"] | None = None,
    ) -> Keys:
        w = phi["kernels"]
        k, length = states.shape[:2]
        plain = standard(phi, states)
        early, last, every = (
            part.reshape(k, length, -1)
            for part in (plain[:, :, :-late], plain[:, :, -late:], plain)
        )

        def mean(
            x: Float[Array, "k length d"], value: str, counts: str
        ) -> Float[Array, "k 1 pooled"]:
            scores = every @ w[counts]
            if mask is not None:
                scores = jnp.where(mask[..., None], scores, -jnp.inf)
            values = (x @ w[value]).reshape(k, length, heads, width)
            pooled = jnp.einsum("klh,klhw->khw", jax.nn.softmax(scores, axis=1), values)
            return pooled.reshape(k, 1, -1)

        whom, what = mean(early, "names", "whom"), mean(last, "asks", "what")
        relation = jax.nn.gelu(what @ w["inner"]) @ w["outer"] + what @ w["skip"]
        return Keys(unit(whom @ w["subject"]), unit(relation))

    config = {"scope": "two_keys_of_text", "stages": list(stages), "late": late, **size}
    return Scope(init, keys, near, stages, config, whole=True)
