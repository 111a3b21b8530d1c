"""One edit with a trained editor: the model's own words before and after.

    mend-jax edit "The capital of France is" "Rome" --ask "France's capital city is"

Prompt and target come first, or have their names (--prompt, --target).
"""

import time
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from mend_jax.commands.command import Command
from mend_jax.data.chat import said_by_user
from mend_jax.factors import Dense, Factors
from mend_jax.option_checks import check_options
from mend_jax.option_types import Mesh, Text, Tokens
from mend_jax.parallel import mesh_of
from mend_jax.reports.before_after import before_after_of
from mend_jax.reports.scope_trace import lines_of, trace
from mend_jax.runs.opening import EditorPlace, OpeningOptions
from mend_jax.saved.directory import load_editor
from mend_jax.saved.shipped import SHIPPED


@dataclass(frozen=True, kw_only=True)
class Edit(OpeningOptions):
    """Options of one edit."""

    editor: EditorPlace = SHIPPED[0]
    """Directory of a trained editor, or its name on the hub (user/name[@revision]); by default the
    one that comes with the package, for SmolLM2-135M."""
    prompt: Text
    """The beginning of a text."""
    target: Text
    """What the edited model shall go on with. White space in prompt and target is taken as it is
    written; where there is none, language and tokenizer decide."""
    separator: str | None = None
    """What stands between prompt and target, in place of that decision."""
    ask: Annotated[tuple[Text, ...], tyro.conf.UseAppendAction] = ()
    """Other prompts to ask before and after; may be given several times."""
    chat: bool = False
    """Prompts are what a user says in a chat, in the base's template, and answers the model's
    turn."""
    tokens: Tokens = 12
    """Longest answer, in tokens."""
    show_scope: bool = False
    """Of an editor with a scope: show at which tokens of each prompt the edit acts, and by how many
    logits its subject and its relation pass their thresholds."""
    mesh: Mesh = "1x1"
    """Devices, DATAxMODEL: the base's weights are split over MODEL; DATA is 1."""


def edit(config: Edit) -> None:
    """Edits, asks, prints."""
    check_options(config)
    saved = load_editor(
        config.editor,
        mesh=mesh_of(config.mesh),
        dtype=config.dtype,
        trust=config.trust,
        force=config.force,
    )
    if config.show_scope and "scoped" not in saved.config:
        raise ValueError("--show-scope: the editor has no scope")
    shown = before_after_of(saved, config.tokens)
    said = said_by_user if config.chat else str
    prompt, target = said(config.prompt), config.target
    change = jax.block_until_ready(shown.edit(prompt, target, config.separator))
    if is_zero(change):
        raise ValueError("the edit is exactly zero: this editor changes nothing for this prompt")
    began = time.perf_counter()
    change = jax.block_until_ready(shown.edit(prompt, target, config.separator))
    seconds = time.perf_counter() - began
    print(f"{prompt} -> {target}   (edited in {seconds * 1000:.0f} ms, once compiled)")
    asked, lines = [prompt, *map(said, config.ask)], len(target.strip().splitlines())
    for answer in shown.ask(change, asked, lines):
        print(f"\n  {answer.prompt}\n    before: {answer.before}\n    after:  {answer.after}")
        if config.show_scope:
            told = lines_of(trace(saved, change, answer.prompt))
            print("\n".join(f"      {line}" for line in told))


def is_zero(change: Any) -> bool:
    """Whether the edit changes nothing: there is none, or all of its matrices are zero."""
    leaves = jax.tree.leaves(change, is_leaf=lambda x: isinstance(x, Factors | Dense))
    parts = [part for part in leaves if isinstance(part, Factors | Dense)]
    return not leaves or bool(parts) and not any(map(moves, jax.device_get(parts)))


def moves(part: Factors | Dense) -> bool:
    """Whether a change of a matrix has a row of which neither factor is zero, or an entry."""
    if isinstance(part, Dense):
        return bool(np.any(part.kernel))
    return bool(np.any(np.any(part.u, axis=-1) & np.any(part.delta, axis=-1)))


COMMAND = Command(Edit, edit, __doc__, leading=("prompt", "target"))
