"""The two keys of a text that is read as a whole, by an encoder: it has one position.

    subject   of each head a mean of the tokens' early states: the name, as it is written
    relation  a mean of what the tokens say of it

Every token reads the whole text, so its late states know what it is in it; by all of its states it
says how much it counts for each mean. Keys are held and compared as those of `network`.
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
    times,
    unit,
)


def two_keys_of_text(stages: tuple[int, ...], late: int = 1, **sizes: Unpack[Sizes]) -> Scope:
    """The scope of an encoder-decoder, or of a classifier.

    Args: as of `two_keys`; there is no `asked_heads`.

    Raises:
      TypeError: a size of another name.
    """
    size = sizes_of(sizes | {"asked_heads": 0})
    heads, width = size["heads"], size["width"]

    def init(key: Key[Array, ""], d: int) -> PyTree:
        early, every, pooled = d * (len(stages) - late), d * len(stages), heads * width
        shapes = {
            "whom": (every, heads), "value": (early, pooled),
            "subject": (pooled, size["subject"]), "what": (every, 1),
            "inner": (every, size["hidden"]), "outer": (size["hidden"], size["relation"]),
            "skip": (every, size["relation"]),
        }  # fmt: skip
        return fresh(key, shapes, (len(stages), d))

    def keys(
        phi: PyTree,
        states: Float[Array, "k length kept d"],
        mask: Bool[Array, "k length"] | None = None,
        memory: None = None,
    ) -> Keys:
        del memory  # the source of an answer is read in one piece
        w = phi["kernels"]
        k, length = states.shape[:2]
        plain = standard(phi, states)
        early, every = plain[:, :, :-late].reshape(k, length, -1), plain.reshape(k, length, -1)

        def share(name: str) -> Float[Array, "k length means"]:
            scores = times(every, w[name])
            if mask is not None:
                scores = jnp.where(mask[..., None], scores, -jnp.inf)
            return jax.nn.softmax(scores, axis=1)

        value = times(early, w["value"]).reshape(k, length, heads, width)
        pooled = jnp.einsum("klh,klhw->khw", share("whom"), value)
        whom = times(pooled.reshape(k, 1, -1), w["subject"])
        said = times(jax.nn.gelu(times(every, w["inner"])), w["outer"]) + times(every, w["skip"])
        what = jnp.einsum("kl,klw->kw", share("what")[..., 0], said)[:, None]
        return Keys(unit(whom), unit(what))

    config = {"scope": "two_keys_of_text", "stages": list(stages), "late": late, **size}
    return Scope(init, keys, near, stages, config, whole=True)
