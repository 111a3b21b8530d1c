"""Makes edits with an editor that has a scope, and adds them to a store.

    mend-jax edits add --editor runs/scoped --store edits.db \\
        --prompt "The capital of France is" --target "Rome"
    mend-jax edits add --editor runs/scoped --store edits.db --records FILE

Shows the model's own words before and after, on the prompt and its rephrases, and says where an
edit does not hold. All edits of a file are added in one step, but for those that are refused: an
edit in the scope of a held one, with another target, contradicts it (--replace: that one gives
way).
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mend_jax.commands.command import Command
from mend_jax.data.chat import as_chats, in_template
from mend_jax.data.records import Record, rephrases_of
from mend_jax.data.sources.registry import read_noted
from mend_jax.evaluation.generation import matches
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, OutFile, Text, Tokens
from mend_jax.reports.before_after import Answer, before_after_of
from mend_jax.runs.opening import EditorPlace, OpeningOptions
from mend_jax.saved.directory import SavedEditor, load_editor
from mend_jax.store.database import StoreError
from mend_jax.store.store import Added, EditStore


@dataclass(frozen=True, kw_only=True)
class AddOptions(OpeningOptions):
    """Options of what is added."""

    editor: EditorPlace
    """Directory of a trained editor with a scope, or its name on the hub (user/name[@revision])."""
    store: OutFile
    """The file of the store, which is made if it is not there."""
    prompt: Text | None = None
    """The beginning of a text."""
    target: Text | None = None
    """What the edited model shall go on with."""
    separator: str | None = None
    """What stands between prompt and target, in place of white space or nothing, as the script has
    it."""
    subject: Text | None = None
    """What the prompt is about."""
    rephrase: Annotated[tuple[Text, ...], tyro.conf.UseAppendAction] = ()
    """Another way to ask, to see whether the edit holds there; may be given several times."""
    chat: bool = False
    """Each prompt is what a user says in a chat, in the base's template."""
    records: Input | None = None
    """A file of records to add, in place of a prompt and a target."""
    note: Text | None = None
    """Kept with each edit: who asked for it, and why."""
    replace: bool = False
    """Let held edits that are contradicted give way."""
    tokens: Tokens = 12
    """Longest answer, in tokens."""


def add(config: AddOptions) -> None:
    """Edits, adds, asks, prints."""
    check_options(config)
    records = as_chats(records_of(config)) if config.chat else records_of(config)
    saved = load_editor(config.editor, dtype=config.dtype, trust=config.trust, force=config.force)
    records = in_template(saved.base, records)
    with EditStore(config.store, saved) as store:
        for number, why in store.damaged.items():
            print(f"edit {number} is damaged, and not held: {why}")
        added = store.add(records, config.replace, config.note or "")
        new = [(r, x) for r, x in zip(records, added, strict=True) if x.number and not x.why]
        holds = int((store.numbers > 0).sum())
        print(f"added {len(new)} of {len(records)}; {config.store} holds {holds}")
        show(saved, store, new, config.tokens)
    refused = [x for x in added if x.number is None]
    for record, x in zip(records, added, strict=True):
        if x.why and len(records) > 1:
            print(f"\n{record.prompt} -> {record.target}\n  {x.why}")
    if refused:
        last = refused[0].why if len(records) == 1 else f"{len(refused)} edits, as said above"
        hint = " (--replace lets held edits give way)" if any(x.against for x in refused) else ""
        raise StoreError(f"not added: {last}{hint}")


def records_of(config: AddOptions) -> list[Record]:
    """The one of the options, or those of a file.

    Raises:
      ValueError: neither is given, or both.
    """
    alone = (config.prompt, config.target, config.separator, config.subject, config.rephrase)
    if config.records is None:
        if config.prompt is None or config.target is None:
            raise ValueError("nothing to add: give --prompt and --target, or --records")
        subject, rephrases = config.subject or "", config.rephrase
        return [Record(config.prompt, config.target, rephrases, (), subject, config.separator)]
    if any(x not in (None, ()) for x in alone):
        raise ValueError("--records has all that is added: give no --prompt and the like beside it")
    read = read_noted(config.records)
    for note in read.notes:
        print(f"{config.records}: {note}")
    return read.records


def show(
    saved: SavedEditor, store: EditStore, new: list[tuple[Record, Added]], tokens: int
) -> None:
    """The model's words under all that is held, beside the base's; and what does not hold."""
    asked = [[(r.prompt, r.target), *rephrases_of(r)] for r, _ in new]
    prompts = [prompt for questions in asked for prompt, _ in questions]
    lines = max((len(r.target.strip().splitlines()) for r, _ in new), default=1)
    answers = iter(before_after_of(saved, tokens).ask(store.held, prompts, lines))
    for (record, x), questions in zip(new, asked, strict=True):
        gone = f", in place of {', '.join(map(str, x.against))}" if x.against else ""
        print(f"\n{x.number}: {record.prompt} -> {record.target}{gone}")
        for (_, target), answer in zip(questions, answers, strict=False):
            print_answer(answer, target, "" if answer.prompt == record.prompt else answer.prompt)


def print_answer(answer: Answer, target: str, title: str) -> None:
    """Before and after, and whether the edit does not hold there."""
    if title:
        print(f"  {title}")
    print(f"    before: {answer.before}\n    after:  {answer.after}")
    if not matches(answer.after, target, "contains"):
        where = "on a rephrase" if title else "on its own prompt"
        print(f"    warning: the edit does not hold {where}")


COMMAND = Command(AddOptions, add, __doc__)
