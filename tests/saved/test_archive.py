"""An archive as MEND's authors publish them becomes an editor: with the golden figures in it, it
makes the golden edits; and no code of it is run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from compare import assert_close
from safetensors.numpy import save_file
from test_golden import authors_site, example, golden
from transformers import GPT2Config
from typed import typed

import mend_jax as mj
from mend_jax.models.stages import Inputs
from mend_jax.objectives import negative_log_likelihood
from mend_jax.saved.archive_file import read_archive
from mend_jax.saved.arrays import EditorError

VARIANTS = {
    "default": (), "noshare": (), "nonorm": ("--no-normalized",), "xavier": ("--no-identity",),
    "onesided": (), "xonly": (), "donly": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden base as a Hugging Face folder."""
    found = tmp_path_factory.mktemp("golden")
    config = GPT2Config(
        vocab_size=23, n_positions=32, n_embd=8, n_layer=3, n_head=2, n_inner=12,
        architectures=["GPT2LMHeadModel"], bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    (found / "config.json").write_text(json.dumps(config.to_dict()))
    base = {n.removeprefix("base/"): a for n, a in golden().items() if n.startswith("base/")}
    save_file({k: np.ascontiguousarray(a) for k, a in base.items()}, found / "model.safetensors")
    return found


def model_of(variant: str, prefix: str = "mend") -> dict[str, Any]:
    """What the authors' `state_dict` has; shapes in the order of the matrices."""
    held: dict[str, Any] = {"edit_lrs": torch.tensor(golden()[f"{variant}/editor/edit_lrs"])}
    for part in ("editor", "step1/stats"):
        for name, array in golden().items():
            known, _, rest = name.partition(f"{variant}/{part}/")
            if not known and rest and rest != "edit_lrs":
                held[f"{prefix}.{rest}"] = torch.tensor(array)
    return held | {"model_config": GPT2Config(n_layer=3)}


def archive_of(variant: str, path: Path, prefix: str = "mend") -> Path:
    torch.save({"model": model_of(variant, prefix), "opt": {"state": {}}, "step": 7}, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_golden_edits(variant: str, folder: Path, tmp_path: Path):
    path = archive_of(variant, tmp_path / "archive.pt", "gtn" if variant == "default" else "mend")
    out = tmp_path / "editor"
    listed = [f"--matrices={name}" for name in golden()["inner_params"]]
    how = (*VARIANTS[variant], *(listed if variant != "default" else ["--sites", "h_(1|2)/mlp/.*"]))
    done = typed("mend-jax", "convert", "--editor", path, "--model", folder, "--out", out, *how)
    assert done.code == 0, done.error
    assert "its edits are added" in done.out
    saved = mj.load_editor(out)

    def loss(params: Any, pair: mj.Pair) -> jax.Array:
        ids, mask = pair.inputs
        logits = saved.base.model.apply({"params": params}, Inputs(ids, mask=mask != 0))
        return negative_log_likelihood(logits[:, :-1], pair.labels[:, 1:])

    chain = mj.links.from_config(saved.config["options"]["chain"], {})
    editor, params = mj.gradient_editor(loss, saved.sites, chain), saved.base.params
    merged = mj.merge(params, jax.jit(editor.edit)(saved.state, params, example(1)))
    for site in saved.sites:
        kernel: Any = merged
        for key in (*site.split("/"), "kernel"):
            kernel = kernel[key]
        assert_close(kernel, golden()[f"{variant}/eval_edited/{authors_site(site)}"], 1e-4)


def test_rates_and_modes_are_numbered_as_listed(folder: Path, tmp_path: Path):
    """GPT-2's lists name c_proj before c_fc; then its shape comes first in the archive."""
    model = model_of("default")
    first = [name for name in model if name.startswith("mend.(12, 8)")]
    turned = {name: model[name] for name in (*first, *model)}
    torch.save({"model": turned}, tmp_path / "archive.pt")
    asked = ("--model", folder, "--sites", "h_(1|2)/mlp/.*", "--out", tmp_path / "editor")
    assert typed("mend-jax", "convert", "--editor", tmp_path / "archive.pt", *asked).code == 0
    phi = mj.load_editor(tmp_path / "editor").state.phi
    rates = golden()["default/editor/edit_lrs"]
    order = [f"h_{block}/mlp/{name}" for block in (1, 2) for name in ("c_proj", "c_fc")]
    assert {k: float(x) for k, x in phi[-1]["alpha"].items()} == dict(
        zip(order, map(float, rates), strict=True)
    )


class Runs:
    """Code, in a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no archive": (lambda p: p.write_bytes(b"not a zip"), "no archive of torch.save"),
    "another pickle": (lambda p: p.write_bytes(pickle.dumps({"model": 1})), "no archive of torch"),
    "code": (lambda p: torch.save({"model": Runs()}, p), "is refused: to load .*print would run"),
    "a model": (lambda p: torch.save({"a": torch.ones(2)}, p), "no editor of MEND's.*'a'"),
    "a list": (lambda p: torch.save([torch.ones(2)], p), "no editor of MEND's.*nothing"),
    "cut short": (
        lambda p: p.write_bytes(archive_of("default", p).read_bytes()[:2000]),
        "no archive of torch.save",
    ),
    "without an array": (
        lambda p: torch.save({"model": {
            k: v for k, v in model_of("default").items() if not k.endswith("layers.1.bias")
        }}, p),
        r"2 arrays do not fit.*\(8, 12\)\.mlp\.layers\.1\.bias is missing",
    ),
    "with another": (
        lambda p: torch.save({"model": model_of("default") | {"mend.(5, 5).k": torch.ones(1)}}, p),
        r"\(5, 5\)\.k is of no edited matrix",
    ),
    "untrained": (
        lambda p: torch.save({"model": {
            k: torch.full_like(v, torch.nan) if k.endswith((".k", "_s")) else v
            for k, v in model_of("default").items()
        }}, p),
        "not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_archives(kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One clear error; nothing is written, nothing run."""
    make, said = BAD[kind]
    path, out = tmp_path / "archive.pt", tmp_path / "editor"
    make(path)
    asked = ("--model", folder, "--sites", "h_(1|2)/mlp/.*", "--out", out)
    done = typed("mend-jax", "convert", "--editor", path, *asked)
    assert done.code == 1 and not out.exists()
    assert done.error.count("error: ") == 1
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(" ".join(done.error.split()))
    assert "run" not in capsys.readouterr().out


def test_other_matrices(folder: Path, tmp_path: Path):
    path = archive_of("default", tmp_path / "archive.pt")
    asked = ("--editor", path, "--model", folder, "--out", tmp_path / "editor")
    few = typed("mend-jax", "convert", *asked, "--sites", "h_2/mlp/.*")
    assert "rates of 4 matrices, and 2 are to be edited" in few.error
    wrong = typed("mend-jax", "convert", *asked, "--matrices", "transformer.h.9.mlp.c_fc.weight")
    assert "has no matrix 'transformer.h.9" in wrong.error
    neither = typed("mend-jax", "convert")
    assert neither.code == 1 and "give the folder of a model, or --editor" in neither.error
    alone = typed("mend-jax", "convert", "--editor", path)
    assert "goes with --model ID, its base, and --out DIR" in alone.error


def test_half_precision_and_bare_state_dicts_are_read(tmp_path: Path):
    bare = {k: v.half() if isinstance(v, torch.Tensor) else v for k, v in
            model_of("default").items()}  # fmt: skip
    torch.save(bare, tmp_path / "bare.pt")
    found = read_archive(tmp_path / "bare.pt")
    assert found.rates.dtype == np.float32 and found.arrays["(8, 12).k"].dtype == np.float32
    with pytest.raises(EditorError, match="missing|no archive"):
        read_archive(tmp_path / "absent.pt")
