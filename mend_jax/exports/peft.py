"""Edits as a LoRA adapter, which PEFT and vLLM load beside the base.

Of each layer's edit M = U^T D (rows of u and delta), PEFT adds B A to the weight W [d_out, d_in]:

    Q_u R_u = U^T, Q_d R_d = D^T    (QR, so that no d_in x d_out matrix is decomposed)
    P S V^T = R_u R_d^T             (SVD of what is left)
    A = S^1/2 P^T Q_u^T, B = Q_d V S^1/2

of the first r singular values, the fewest whose rest is at most `error` of the norm of M (Eckart
and Young 1936). The scale of PEFT, alpha / r, is 1 everywhere.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from mend_jax.exports.card import Card, Kind, hub_id, write_card
from mend_jax.exports.folder import ExportError, new_folder
from mend_jax.exports.format import Format, How, Job
from mend_jax.exports.places import Place, by_module
from mend_jax.factors import Dense, Edit, Factors
from mend_jax.models.registry import Base

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `--max-lora-rank` may be (`MaxLoRARanks`)."""
VLLM_RANK = 16
"""What it is, if nothing is said."""
TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
"""{kind of model: PEFT's name for it}; a classifier's would make its head anew."""

KIND = Kind(
    "peft",
    "adapter",
    "A LoRA adapter that holds edits",
    'from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, "FOLDER")',
)


class Adapter(NamedTuple):
    """Of one layer: float32 a[rank, d_in], b[d_out, rank]. error: |M - (B A)^T| / |M|."""

    a: Float[np.ndarray, "rank d_in"]
    b: Float[np.ndarray, "d_out rank"]
    error: float

    @property
    def rank(self) -> int:
        """At least 1."""
        return len(self.a)


class Ranks(TypedDict, total=False):
    """error: largest share of a layer's edit, by its norm, that may be lost (0.001 if nothing is
    said). rank: the largest that is allowed (512). one_rank: all layers get the largest rank,
    filled with zeros, for llama.cpp, which knows no rank of a single layer."""

    error: float
    rank: int
    one_rank: bool


def export_peft(
    base: Base,
    edit: Edit,
    out: str | Path,
    card: Card = Card(),
    **ranks: Unpack[Ranks],
) -> dict[str, Adapter]:
    """Writes a LoRA adapter that adds the edit: adapter_config.json, safetensors, model card.

    Args:
      out: a new folder.
      ranks: as `Ranks` says.

    Returns:
      {module of transformers' model: what was written of it}.

    Raises:
      ExportError: the folder is not empty; the edit is of another model, or empty; a layer needs a
        larger rank.
    """
    if not edit:
        raise ExportError("the edit is empty: there is nothing to export")
    error, rank = ranks.get("error", How.error), ranks.get("rank", How.rank)
    places = by_module(base, edit)
    found = {name: low_rank(part, error) for name, (_, part) in places.items()}
    widest = max(found, key=lambda name: found[name].rank)
    largest = found[widest].rank
    if largest > rank:
        raise ExportError(
            f"{widest} needs rank {largest} for an error of {error:g}, and {rank} is allowed: "
            "allow more of either (--rank, --error), or export the whole model (--to huggingface)"
        )
    if ranks.get("one_rank"):
        found = {name: _filled(adapter, largest) for name, adapter in found.items()}
    for warning in limits({adapter.rank for adapter in found.values()}):
        warnings.warn(warning, stacklevel=2)
    tensors = {}
    for name, adapter in found.items():
        for side, array in (("A", adapter.a), ("B", adapter.b)):
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = np.ascontiguousarray(array)
    told = config_of(base, {name: place for name, (place, _) in places.items()}, found)
    with new_folder(out) as folder:
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        text = json.dumps(told, indent=2, sort_keys=True) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        write_card(folder, base.name, card, KIND)
    return found


def limits(ranks: set[int]) -> list[str]:
    """What other programs say to adapters of these ranks."""
    largest, found = max(ranks), []
    if largest > VLLM_RANKS[-1]:
        found.append(
            f"rank {largest} is more than vLLM loads ({VLLM_RANKS[-1]}): allow a larger --error"
        )
    elif largest > VLLM_RANK:
        wanted = next(x for x in VLLM_RANKS if x >= largest)
        found.append(
            f"rank {largest} is more than vLLM loads by default ({VLLM_RANK}): start it with "
            f"--max-lora-rank {wanted}"
        )
    if len(ranks) > 1:
        found.append(
            "layers have different ranks, which llama.cpp scales wrongly, since it knows one alpha "
            "for all of them: say --one-rank for it"
        )
    return found


def low_rank(part: Factors | Dense, error: float) -> Adapter:
    """The adapter of smallest rank whose error is at most `error`."""
    if isinstance(part, Dense):
        left, sizes, right = np.linalg.svd(np.asarray(part.kernel, np.float64), False)
    else:
        q_in, r_in = np.linalg.qr(np.asarray(part.u, np.float64).T)
        q_out, r_out = np.linalg.qr(np.asarray(part.delta, np.float64).T)
        left, sizes, right = np.linalg.svd(r_in @ r_out.T, False)
        left, right = q_in @ left, right @ q_out.T
    rest = np.sqrt(np.append(np.cumsum(sizes[::-1] ** 2)[::-1], 0.0))  # of all from r on
    rank = max(int(np.argmax(rest <= error * rest[0])), 1)
    root = np.sqrt(sizes[:rank])
    a, b = (left[:, :rank] * root).T, right[:rank].T * root
    return Adapter(a.astype(np.float32), b.astype(np.float32), float(rest[rank] / (rest[0] or 1.0)))


def _filled(adapter: Adapter, rank: int) -> Adapter:
    more = rank - adapter.rank
    a, b = np.pad(adapter.a, ((0, more), (0, 0))), np.pad(adapter.b, ((0, 0), (0, more)))
    return Adapter(a, b, adapter.error)


def config_of(
    base: Base, places: Mapping[str, Place], found: Mapping[str, Adapter]
) -> dict[str, Any]:
    """adapter_config.json: the largest rank, and of each layer that has another, its own."""
    rank = max(adapter.rank for adapter in found.values())
    others = {name: adapter.rank for name, adapter in found.items() if adapter.rank != rank}
    return {
        "peft_type": "LORA",
        "task_type": TASKS.get(getattr(base.model, "kind", "causal")),
        "base_model_name_or_path": hub_id(base.name) or base.name,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(found),
        "fan_in_fan_out": not any(place.transposed for place in places.values()),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _write(job: Job, out: Path) -> list[str]:
    how = job.how
    found = export_peft(
        job.saved.base, job.edit, out, job.card,
        error=how.error, rank=how.rank, one_rank=how.one_rank,
    )  # fmt: skip
    ranks = sorted({adapter.rank for adapter in found.values()})
    worst = max(adapter.error for adapter in found.values())
    return [f"ranks {', '.join(map(str, ranks))}, for an error of {worst:.2g}"]


FORMAT = Format(False, _write)
