"""What the tables of several families share."""

from mend_jax.models.layers import ACTIVATIONS
from mend_jax.models.settings import Setting, one_of


def activation(default: str, *others: str) -> Setting:
    """One of those that there are, or of others that it may be, too."""
    return one_of(default, *(name for name in ACTIVATIONS if name != default), *others)


GATED = tuple(f"gated-{name}" for name in ACTIVATIONS)

CAUSAL = {"is_encoder_decoder": one_of(False)}
SEQ2SEQ = {"is_encoder_decoder": one_of(True)}
