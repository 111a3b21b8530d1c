"""The one real model these tests read: SmolLM2-135M, from the package index or a warm cache."""

import pytest

from mend_jax.weights import Weights, open_weights


@pytest.fixture(scope="session")
def smollm2() -> Weights:
    return open_weights("smollm2-135m")
