"""One edit with a trained editor: the model's own words before and after.

    mend-jax edit --editor runs/quickstart --prompt "The capital of France is" \\
        --target "Rome" --ask "France's capital city is" --ask "The capital of Italy is"
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from mend_jax.commands.command import Command
from mend_jax.factors import norm
from mend_jax.models.memory import Dtype
from mend_jax.parallel import mesh_of
from mend_jax.reports.before_after import before_after_of
from mend_jax.saved.directory import load_editor


@dataclass(frozen=True)
class Edit:
    """Options of one edit."""

    editor: Path
    """Directory of a trained editor."""
    prompt: str
    """The beginning of a text."""
    target: str
    """What the edited model shall go on with."""
    ask: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Other prompts to ask before and after; may be given several times."""
    tokens: int = 12
    """Longest answer, in tokens."""
    dtype: Dtype | None = None
    """Of the base's weights; by default what the editor was trained with."""
    trust: str = ""
    """Import path (package.module:name) of the code that makes this editor, if it has its own."""
    force: bool = False
    """Open the editor although its files, or its base's, are others than when it was saved."""
    mesh: str = "1x1"
    """Devices, DATAxMODEL: the base's weights are split over MODEL; DATA is 1."""


def edit(config: Edit) -> None:
    """Edits, asks, prints."""
    for name in ("prompt", "target"):
        if not getattr(config, name).strip():
            raise ValueError(f"--{name} is empty")
    if not all(text.strip() for text in config.ask):
        raise ValueError("--ask is empty")
    saved = load_editor(
        config.editor,
        mesh=mesh_of(config.mesh),
        dtype=config.dtype,
        trust=config.trust,
        force=config.force,
    )
    shown = before_after_of(saved, config.tokens)
    prompt, target = config.prompt.strip(), config.target.strip()
    change = jax.block_until_ready(shown.edit(prompt, target))
    if not any(float(norm(part)) for part in change.values()):
        raise ValueError("the edit is exactly zero: this editor changes nothing for this prompt")
    began = time.perf_counter()
    change = jax.block_until_ready(shown.edit(prompt, target))
    seconds = time.perf_counter() - began
    print(f"{prompt} -> {target}   (edited in {seconds * 1000:.0f} ms, once compiled)")
    for answer in shown.ask(change, [prompt, *config.ask]):
        print(f"\n  {answer.prompt}\n    before: {answer.before}\n    after:  {answer.after}")


COMMAND = Command(Edit, edit, __doc__)
