"""Edits of a store made of nothing: tiny, and told apart by their prompts. And other scopes."""

import zlib

import jax.numpy as jnp
import numpy as np

from mend_jax.editors.scoped import ScopedEdit
from mend_jax.factors import Factors, rounded
from mend_jax.saved.directory import SavedEditor
from mend_jax.scopes.network import Keys
from mend_jax.store.origin import Origin, told
from mend_jax.store.rows import NewEdit, Words
from mend_jax.store.slots import slot_of

SITES = ("layers_1/mlp/down_proj", "layers_1/mlp/up_proj")
ROWS = 3
PARAMS = {
    "layers_1": {
        "mlp": {
            "up_proj": {"kernel": np.zeros((5, 7))},
            "down_proj": {"kernel": np.zeros((7, 5))},
        }
    }
}
SLOT = slot_of(PARAMS, SITES, {"rows": ROWS, "scope": {"subject": 6, "relation": 4}})


def kept(prompt: str) -> ScopedEdit:
    """The arrays of the edit of a prompt, always the same: one to ROWS rows, one to four tokens."""
    rng = np.random.default_rng(zlib.crc32(prompt.encode()))

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    rows = int(rng.integers(1, ROWS + 1))
    sites = {"up_proj": (5, 7), "down_proj": (7, 5)}
    factors = {
        f"layers_1/mlp/{name}": rounded(Factors(draw(rows, a), draw(rows, b)))
        for name, (a, b) in sites.items()
    }
    target = rng.integers(0, 99, int(rng.integers(1, 5)), np.int32)
    return ScopedEdit(factors, Keys(draw(6), draw(4)), target)


def new(prompt: str, target: str = "Rome", replaces: tuple[int, ...] = ()) -> NewEdit:
    """An edit to be added."""
    return NewEdit(Words(prompt, target, f"subject of {prompt}"), kept(prompt), replaces)


def fingerprint(dtype: str = "float32", shift: float = 0.0) -> dict[str, object]:
    """Of a base; `shift`: of what is seen of its kernels."""
    kernels = {site: [0.1 + shift, 0.2, 0.3, 0.4] for site in SITES}
    return {"dimensions": "0123456789abcdef", "dtype": dtype, "kernels": kernels, "checksums": {}}


def origin(dtype: str = "float32", shift: float = 0.0, editor: str = "mend") -> Origin:
    """Of all edits here."""
    base = {"name": "tiny", "fingerprint": fingerprint(dtype, shift)}
    return Origin(told(base), told({"editor": editor, "sites": list(SITES)}))


def with_threshold(saved: SavedEditor, threshold: float) -> SavedEditor:
    """The editor with another scope: above -1, everything is in that of everything."""
    scope = saved.state.phi.scope
    both = dict.fromkeys(scope["threshold"], jnp.float32(threshold))
    phi = saved.state.phi._replace(scope=scope | {"threshold": both})
    return saved._replace(state=saved.state._replace(phi=phi))
