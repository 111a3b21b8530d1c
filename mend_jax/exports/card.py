"""The model card of an export: README.md, with the YAML header that the Hugging Face hub reads."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MOST_TOLD = 100
"""Edits that a card lists; of the others it tells the number."""
HUB_IDS = {
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2",
}
"""Of pinned models."""


class Card(NamedTuple):
    """What a card tells of edits.

    edits: (prompt, target) of each. scores: {what was measured: number}. notes: sentences.
    commands: that made the export.
    """

    edits: Sequence[tuple[str, str]] = ()
    scores: Mapping[str, float] = {}
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()


class Kind(NamedTuple):
    """Of what is exported.

    library: that loads it, by the hub's name. relation: to the base, by the hub's name. what: "The
    model with edits in its weights". usage: Python that loads it, with `FOLDER` in it.
    """

    library: str
    relation: str
    what: str
    usage: str


def hub_id(name: str) -> str | None:
    """The hub's name of a base; None if it is of this machine."""
    name = HUB_IDS.get(name, name)
    there = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists()
    return name if there else None


def write_card(folder: Path, base: str, card: Card, kind: Kind) -> None:
    """Writes README.md.

    Args:
      base: what the base was loaded by.
    """
    from huggingface_hub import EvalResult, ModelCardData  # slow to import

    results = [
        EvalResult("text-generation", "edits", "the edits", name, float(x), metric_name=name)
        for name, x in card.scores.items()
    ]
    header = ModelCardData(
        base_model=hub_id(base),
        library_name=kind.library,
        tags=["model-editing", "mend-jax"],
        model_name="edited-model" if results else None,
        eval_results=results or None,
        base_model_relation=kind.relation if hub_id(base) else None,
    ).to_yaml()
    (folder / "README.md").write_text(
        f"---\n{header}\n---\n\n{_text(hub_id(base) or Path(base).name, card, kind)}",
        encoding="utf-8",
    )


def _text(base: str, card: Card, kind: Kind) -> str:
    """Below the header."""
    parts = [f"# {base}, edited", f"{kind.what}, made by mend_jax on `{base}`."]
    parts += card.notes
    parts.append(f"```python\n{kind.usage}\n```")
    if card.scores:
        rows = [f"| {name} | {x:.4g} |" for name, x in card.scores.items()]
        parts.append("\n".join(["| measured | |", "|---|---|", *rows]))
    parts.append(f"## Edits: {len(card.edits)}")
    if card.edits:
        told = [f"| {_cell(a)} | {_cell(b)} |" for a, b in card.edits[:MOST_TOLD]]
        parts.append("\n".join(["| prompt | target |", "|---|---|", *told]))
    if len(card.edits) > MOST_TOLD:
        parts.append(f"... and {len(card.edits) - MOST_TOLD} more.")
    if card.commands:
        commands = "\n".join(card.commands)
        parts.append(f"## Made by\n\n```text\n{commands}\n```")
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """A text in a table: no line ends there, no column, and no mark-up begins."""
    one = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", one)
