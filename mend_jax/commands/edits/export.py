"""Writes the edits that a store holds as files that other programs load.

    mend-jax edits export --editor runs/scoped --store edits.db --to scoped --out DIR
    mend-jax edits export --editor runs/scoped --store edits.db --to huggingface --out DIR

--to scoped: beside a model of transformers, where each edit acts only where it belongs.
--to huggingface: a model of transformers with the edits in its weights.
--to peft: a LoRA adapter of them, for PEFT and vLLM.
--to gguf: a Llama-like model with the edits in its weights, for llama.cpp.

Weights have no scopes: edits that are merged into them are felt everywhere, and add up. So the
command asks their prompts, and neighbours that must stay, with scopes and without, says what is
lost, and writes only with --without-scopes.
"""

import random
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from mend_jax.commands.command import Command
from mend_jax.commands.edits.check import records_for, records_in
from mend_jax.exports.card import Card
from mend_jax.exports.cost import Questions, everywhere, in_scopes
from mend_jax.exports.folder import ExportError, check_free
from mend_jax.exports.format import Format, How, Job
from mend_jax.exports.formats import format_of
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, OutFolder, Seed, Some, Times, Tokens, accepted_by
from mend_jax.runs.opening import EditorPlace, OpeningOptions
from mend_jax.saved.directory import SavedEditor, load_editor
from mend_jax.store.standing import Standing
from mend_jax.store.store import EditStore


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OpeningOptions):
    """Options of an export."""

    editor: EditorPlace
    """Directory of the editor that made the edits, or its name on the hub."""
    store: Input
    """The file of the store."""
    to: Annotated[str, accepted_by(format_of)]
    """The format."""
    out: OutFolder
    """New folder for the files."""
    at: Times | None = None
    """What was held after this event of the history (0: before the first); by default now."""
    without_scopes: bool = False
    """Merge edits into weights, which have no scopes: they are felt everywhere."""
    asked: Times = 100
    """So many edits are asked, drawn at random, to say what holds (0: none)."""
    records: Input | None = None
    """Records whose locality prompts are neighbours, which must stay, unless they are edited; by
    default the project's held-out facts."""
    neighbours: Some = 100
    """Of these, so many are asked."""
    seed: Seed = 0
    """Of the choice of what is asked."""
    tokens: Tokens = 12
    """Longest answer, in tokens."""
    own: How = field(default_factory=How)
    """Of the formats."""


class Measured(NamedTuple):
    """scores: for the card. lines: in words."""

    scores: Mapping[str, float]
    lines: list[str]


def export(config: ExportOptions) -> None:
    """Measures, says, writes.

    Raises:
      ExportError: --out is not empty; there are no edits; the format has no scopes, and
        --without-scopes is not said; or as the format.
    """
    check_options(config)
    check_free(config.out)
    made = format_of(config.to)
    read = records_in(config.records) if config.records else None
    saved = load_editor(config.editor, dtype=config.dtype, trust=config.trust, force=config.force)
    given = records_for(saved.base, read)
    near = list(dict.fromkeys(x.prompt for record in given for x in record.locality))
    with EditStore(config.store, saved, create=False) as store:
        standing = Standing(store.held, store.numbers, store.event, store.damaged)
        if config.at is not None:
            standing = store.at(config.at)
        held = store.ledger.at(standing.event).edits
        edits = [
            (held[number].words.prompt, held[number].words.target)
            for number in standing.numbers.tolist() if number
        ]  # fmt: skip
        for number, why in standing.damaged.items():
            print(f"edit {number} is damaged, and left out: {why}")
        if not edits:
            raise ExportError(f"{config.store}: it holds no edits after event {standing.event}")
        near = [prompt for prompt in near if prompt not in {prompt for prompt, _ in edits}]
        found = measured(config, saved, standing, Questions(edits, near, config.tokens))
        print("\n".join(found.lines))
        check_scopes(config, made, len(edits))
        notes = [f"{len(standing.damaged)} damaged edits are left out."] if standing.damaged else []
        if not made.scopes:
            notes.append("The edits have lost their scopes: they are felt in every text.")
        card = Card(edits, found.scores, notes, [command_of(config, saved.origin)])
        said = made.write(Job(saved, standing.slots, card, config.own), config.out)
    print("\n".join([*said, f"{config.out}: {len(edits)} edits, as {config.to}"]))


def measured(
    config: ExportOptions, saved: SavedEditor, standing: Standing, whole: Questions
) -> Measured:
    """What holds, in scopes and, if the format has none, without."""
    if not config.asked:
        return Measured({}, ["nothing was asked (--asked 0), so what holds is not known"])
    draw = random.Random(config.seed)
    edits = draw.sample(list(whole.edits), min(config.asked, len(whole.edits)))
    near = draw.sample(list(whole.neighbours), min(config.neighbours, len(whole.neighbours)))
    questions = Questions(edits, near, config.tokens)
    ways = {}
    ways["in their scopes"], before = in_scopes(saved, standing.slots, questions)
    if not format_of(config.to).scopes:
        for stored in dict.fromkeys(("float32", config.own.stored)):
            how = f"without scopes, in {stored}"
            ways[how] = everywhere(saved, standing.slots, questions, before, stored)
    lines = [
        f"{how}: {said.hold} of {len(edits)} edits hold on their own prompt"
        + (f", {said.stay} of {len(near)} neighbours stay" if near else "")
        for how, said in ways.items()
    ]
    scores = {f"edits that hold, {how}": x.hold / len(edits) for how, x in ways.items()}
    if near:
        scores |= {f"neighbours that stay, {how}": x.stay / len(near) for how, x in ways.items()}
    return Measured(scores, lines)


def check_scopes(config: ExportOptions, made: Format, n: int) -> None:
    """Raises ExportError where scopes would be lost, and nobody has said that they may be."""
    if made.scopes or config.without_scopes:
        return
    raise ExportError(
        f"--to {config.to} has no scopes: {n} edits would be felt in every text, as said above. "
        "Say --without-scopes to write them all the same, or --to scoped, which keeps them"
    )


def command_of(config: ExportOptions, editor: str) -> str:
    """The command, for the card: without folders of this machine."""
    editor = Path(editor).name if Path(editor).is_dir() else editor
    names = [f"--editor={editor}", f"--store={config.store.name}", f"--out={config.out.name}"]
    flags = [f"--at={config.at}"] * (config.at is not None)
    flags += ["--without-scopes"] * config.without_scopes
    usual = vars(How())
    flags += [
        f"--{key.replace('_', '-')}={value}"
        for key, value in vars(config.own).items() if value != usual[key]
    ]  # fmt: skip
    return shlex.join(["mend-jax", "edits", "export", *names, f"--to={config.to}", *flags])


COMMAND = Command(ExportOptions, export, __doc__)
