"""Pre-trained weights: found, opened, checked and read, one tensor at a time."""

from mend_jax.weights.errors import WeightsError
from mend_jax.weights.fetch import fetch, open_weights
from mend_jax.weights.gguf_file import read_gguf
from mend_jax.weights.hf_folder import read_folder
from mend_jax.weights.source import Expected, Weights, load_params

__all__ = [
    "Expected",
    "Weights",
    "WeightsError",
    "fetch",
    "load_params",
    "open_weights",
    "read_folder",
    "read_gguf",
]
