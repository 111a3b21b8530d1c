"""Places to edit: which layers they are, and that it does not matter where the model is cut."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from tiny_run import Files, options

import mend_jax as mj
from mend_jax.commands.sites import Places, compare_places
from mend_jax.cost.small_families import SMALL
from mend_jax.models.registry import family_of
from mend_jax.runs.places import places_named, sites_at

pytest_plugins = ["finished_run"]


@pytest.mark.parametrize(
    "family, place, wanted",
    [
        ("llama", "mlp_1", "layers_1/mlp/gate_proj layers_1/mlp/up_proj layers_1/mlp/down_proj"),
        ("llama", "reads_1", "layers_1/mlp/gate_proj layers_1/mlp/up_proj"),
        ("gpt2", "writes_2", "h_0/mlp/c_proj h_1/mlp/c_proj"),
        ("gpt_neox", "attention_1", "layers_1/attention/query_key_value layers_1/attention/dense"),
        ("bert", "reads_2", "block_0/mlp/intermediate block_1/mlp/intermediate"),
        ("t5", "writes_1", "encoder/block_1/mlp/wo decoder/block_1/mlp/wo"),
        ("t5", "default", "a b"),
    ],
)
def test_the_layers_of_a_place(family: str, place: str, wanted: str):
    kind = family_of(SMALL[family])
    model = kind.model(kind.dimensions(SMALL[family]))
    assert sorted(sites_at(place, model, ("a", "b"))) == sorted(wanted.split())


@pytest.mark.parametrize(
    "place, message", [("mlp_3", "of layers_N there are 2"), ("reads_1", "no such linear layers")]
)
def test_places_that_a_model_has_not(place: str, message: str):
    kind = family_of(SMALL["mixtral"])
    model = kind.model(kind.dimensions(SMALL["mixtral"]))
    with pytest.raises(ValueError, match=f"{place}: .*{message}"):
        sites_at(place, model, ())


@pytest.mark.parametrize(
    "names, message",
    [("", "no places are named"), ("mlp_0", "no place is called 'mlp_0'; known are default, mlp_N"),
     ("mlp_1,mlp_1", "twice"), ("mlp", "no place is called 'mlp'")],
)  # fmt: skip
def test_names_that_are_none(names: str, message: str):
    with pytest.raises(ValueError, match=message):
        places_named(names)


def test_where_the_model_is_cut_makes_no_difference(tiny_files: Files, tmp_path: Path):
    """Both blocks are edited by default, so the model is cut below; mlp_1 is the second's alone."""
    both = r"layers_[01]/mlp/\w+"

    def rows(name: str, **changes: str) -> list[dict]:
        made = options(tiny_files, tmp_path / name, steps=3, calibrate=2, **changes)
        known = {field.name: getattr(made, field.name) for field in fields(made)}
        compare_places(Places(**known | {"places": name}))
        return json.loads((tmp_path / name / "compare.json").read_text())

    above, failed = rows("mlp_1,mlp_3", sites=both)
    (alone,) = rows("default", sites=r"layers_1/mlp/\w+")
    assert "of layers_N there are 2" in failed["error"]
    assert above["n"] == alone["n"] == 4  # those set apart
    found, wanted = (
        [row["metrics"][name]["value"] for name in ("edit_success", "perplexity_drawdown")]
        for row in (above, alone)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    folder = tmp_path / "mlp_1,mlp_3"
    sites = [mj.load_editor(at).sites for at in (folder / "mlp_1", tmp_path / "default/default")]
    assert sites[0] == sites[1] and len(sites[0]) == 3
