"""Times transformers' `generate` with and without scoped edits that are attached to the model.

    mend-jax edits benchmark_scoped --json results/scoped_edits_cpu.json

Needs PyTorch. Weights and edits are random, of the sizes that the model with the default sites and
scope has. `held`: no edit acts, as in most texts. `acting`: one acts at every position, the worst
there is. A busy machine is told by its load, and by the processors' own seconds.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from operator import getitem
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mend_jax.commands.command import Command
from mend_jax.cost.held import random_edits
from mend_jax.editors.base import EditorState, no_edit
from mend_jax.editors.scoped import ScopedPhi
from mend_jax.exports.scoped import export_scoped
from mend_jax.files import write_text
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.models.registry import default_sites, load
from mend_jax.models.stages import split
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, OutFile, Seed, Some, Tokens
from mend_jax.saved.directory import SavedEditor
from mend_jax.scopes.network import two_keys
from mend_jax.scopes.reading import stages_for
from mend_jax.sites import kernel_path


@dataclass(frozen=True)
class ScopedBenchmark:
    """Options of the benchmark."""

    model: PublishedModel = "smollm2-135m"
    """A built-in causal model, or a folder."""
    edits: Some = 1000
    """Held edits."""
    batch: Batch = 1
    """Texts that are gone on with at a time."""
    prompt: Tokens = 16
    """Tokens of each."""
    new: Tokens = 64
    """Tokens that are said after it."""
    rounds: Some = 7
    """Each way is timed so often, in turns; the fastest counts."""
    seed: Seed = 0
    """Of weights, edits and prompts."""
    json: OutFile | None = None
    """Write the results to this file."""


def saved_of(folder: Path, width: int) -> tuple[SavedEditor, Any]:
    """The model in a folder as the base of an editor with a scope, untrained; and its scope.

    Args:
      width: features of its states.
    """
    base = load(str(folder))
    sites = default_sites(base)
    trunk, _ = split(base.model, sites)
    stages, late = stages_for(len(base.model.stages) - 2, 0 if trunk is None else trunk.stop)
    scope = two_keys(stages, late=late)
    phi = scope.init(jax.random.key(0), width)
    config = {"scoped": {"scope": scope.config}}
    state = EditorState(ScopedPhi({}, phi), {})
    return SavedEditor(no_edit(), state, base, sites, config), scope


def run(config: ScopedBenchmark, folder: Path) -> dict[str, Any]:
    """Times everything, with files in `folder`; returns what is written to the file."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(config.seed)
    said = dict(config_of(config.model))
    made: Any = AutoConfig.for_model(**said)
    model = AutoModelForCausalLM.from_config(made).eval()
    model.save_pretrained(folder / "model")
    saved, scope = saved_of(folder / "model", made.hidden_size)
    phi = saved.state.phi.scope
    shapes = {}
    for site in saved.sites:
        path = kernel_path(saved.base.params, site) or ()
        shapes[site] = reduce(getitem, path, saved.base.params).shape
    held = random_edits(scope, phi, shapes, config.edits)
    export_scoped(saved, held, folder / "held")
    always = dict.fromkeys(phi["threshold"], jnp.float32(-2.0))
    eager = saved.state._replace(phi=ScopedPhi({}, phi | {"threshold": always}))
    export_scoped(saved._replace(state=eager), held, folder / "acting")
    sys.path.append(str(folder / "held"))
    attach = import_module("scoped_edits").attach
    rng = np.random.default_rng(config.seed)
    text = torch.tensor(rng.integers(3, said["vocab_size"], (config.batch, config.prompt)))

    def say() -> np.ndarray:
        began = clock()
        model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=config.new,
                       min_new_tokens=config.new, do_sample=False, pad_token_id=0)  # fmt: skip
        return config.batch * config.new / (clock() - began)

    def attached(name: str) -> np.ndarray:
        edits = attach(model, folder / name)
        speed = say()
        edits.remove()
        return speed

    ways: dict[str, Callable[[], np.ndarray]] = {
        "plain": say, "held": lambda: attached("held"), "acting": lambda: attached("acting")
    }  # fmt: skip
    say()  # warm
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for _ in range(config.rounds):
        for name, way in ways.items():
            found[name].append(way())
    speeds = {name: np.max(each, axis=0).tolist() for name, each in found.items()}
    size = (folder / "held" / "scoped_edits.safetensors").stat().st_size
    return {
        "model": config.model, "edits": config.edits, "sites": len(saved.sites),
        "batch": config.batch, "prompt": config.prompt, "new": config.new, "seed": config.seed,
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "load": os.getloadavg()[0], "file_bytes": size,
        "tokens_a_second": {name: x[0] for name, x in speeds.items()},
        "tokens_a_cpu_second": {name: x[1] for name, x in speeds.items()},
    }  # fmt: skip


def clock() -> np.ndarray:
    """Seconds of the wall's clock, and those that the processors have spent on this process."""
    return np.array([time.perf_counter(), time.process_time()])


def benchmark(config: ScopedBenchmark) -> None:
    """Times, prints, writes."""
    check_options(config)
    with tempfile.TemporaryDirectory() as folder:
        found = run(config, Path(folder))
    print(f"{found['edits']:,} edits at {found['sites']} sites of {found['model']}, "
          f"{found['file_bytes'] / 1e6:,.0f} MB; torch {found['torch']}, "
          f"{found['threads']} threads, {found['cores']} cores, load {found['load']:.1f}"
    )  # fmt: skip
    for kind in ("second", "cpu_second"):
        speeds = found[f"tokens_a_{kind}"]
        told = (f"{name} {x:.1f} ({x / speeds['plain']:.2f})" for name, x in speeds.items())
        print(f"  tokens a {kind.replace('_', ' ')} (of plain): {', '.join(told)}")
    if config.json:
        write_text(config.json, json.dumps(found, indent=1) + "\n")


COMMAND = Command(ScopedBenchmark, benchmark, __doc__)
