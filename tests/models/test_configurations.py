"""Configurations of every family: the logits are transformers', or one error names file and key.

Each configuration is a small model's config.json with some keys changed (or taken out: `ABSENT`).
Transformers makes of it a config and a model with random weights, and `load` gets the same
config.json and the same tensors. `SAME` has to load; the others may be refused. Hypothesis draws
combinations of all of them.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from compare import assert_close
from configurations import KINDS, our_base, raw_config, tensors_of, torch_model
from hypothesis import given, settings
from hypothesis import strategies as st

from mend_jax.models import registry
from mend_jax.models.settings import ConfigError
from mend_jax.models.stages import Inputs
from mend_jax.weights import WeightsError

LENGTH = 13

PROGRAMS: dict[Any, Any] = {}
"""One for each model: configurations that mean the same are compiled once."""


def our_logits(base: registry.Base, inputs: Inputs) -> np.ndarray:
    """With blocks that are alike traced once: of each, all that it differs in is in its module."""
    run = PROGRAMS.setdefault(base.model, jax.jit(base.model.clone(alike=True).apply))
    return np.asarray(run({"params": base.params}, inputs))


@cache
def plain_tensors(name: str) -> dict[str, Any]:
    """Those of the small model with nothing changed."""
    return tensors_of(torch_model(name, raw_config(name, {})))


def verdict(name: str, changes: Mapping[str, Any], folder: Path) -> str:
    """"same" or "refused"; fails where neither is so."""
    raw = raw_config(name, changes)
    try:
        our_base(dict(raw), plain_tensors(name), folder)
    except ConfigError as error:
        text = str(error)
        assert text.startswith(f"{folder}/config.json: ") and "\n" not in text, text
        assert any(key in text for key in changes), text
        return "refused"
    except WeightsError:
        pass  # these settings are of other tensors
    theirs = torch_model(name, raw)
    assert theirs is not None, f"transformers refuses {changes}"
    base = our_base(dict(raw), tensors_of(theirs), folder)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, parity.VOCABULARY, (2, LENGTH)).astype(np.int32)
    target = tokens[:, :5] if base.model.kind == "seq2seq" else None
    inputs = Inputs(jnp.asarray(tokens), mask=jnp.ones(tokens.shape, bool), target=target)
    more = {} if target is None else {"decoder_input_ids": torch.tensor(target).long()}
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor(tokens).long(), **more).logits.numpy()
    assert_close(our_logits(base, inputs), wanted, 1e-5)
    return "same"


@pytest.mark.parametrize("name", KINDS)
def test_what_has_to_load_is_transformers(name: str, tmp_path: Path):
    for key, values in {"vocab_size": (parity.VOCABULARY,), **KINDS[name].same}.items():
        for value in values:
            assert verdict(name, {key: value}, tmp_path) == "same", (key, value)


@pytest.mark.parametrize("name", KINDS)
def test_what_may_be_refused_is_transformers_or_named(name: str, tmp_path: Path):
    for key, values in KINDS[name].other.items():
        for value in values:
            assert verdict(name, {key: value}, tmp_path) in ("same", "refused")


def test_there_are_enough_of_them():
    each = [v for k in KINDS.values() for table in (k.same, k.other) for v in table.values()]
    assert sum(map(len, each)) >= 250


@st.composite
def combinations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A family, and two to four keys of its tables with a value each."""
    name = draw(st.sampled_from(sorted(KINDS)))
    both = KINDS[name].same.items(), KINDS[name].other.items()
    values = {key: [] for table in both for key, _ in table}
    for table in both:
        for key, some in table:
            values[key] += some
    keys = draw(st.lists(st.sampled_from(sorted(values)), min_size=2, max_size=4, unique=True))
    return name, {key: draw(st.sampled_from(values[key])) for key in keys}


@settings(derandomize=True, max_examples=40, deadline=None, database=None)
@given(drawn=combinations())
def test_combinations_are_transformers_or_named(
    drawn: tuple[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
):
    verdict(*drawn, tmp_path_factory.getbasetemp())
