"""Scores a trained editor on any file of records, or on the project's held-out facts.

    mend-jax evaluate --editor runs/quickstart --records FILE --out DIR
    mend-jax evaluate --editor runs/quickstart --protocol contains --out DIR
    mend-jax evaluate --editor runs/quickstart --k 25 --out DIR
    mend-jax evaluate --editor runs/quickstart --sequential 100 --out DIR

Every edit is made alone on the unedited base, or k at once, or one after another. Writes
results.json and scores.png; the metrics are defined in mend_jax/evaluation/metrics.py.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mend_jax.commands.command import Command, Preset
from mend_jax.data.chat import BEFORE, as_chats
from mend_jax.data.codec import codec_of
from mend_jax.data.edited_subjects import without_edited_subjects
from mend_jax.data.preceded import After, preceded
from mend_jax.data.records import drop_known_subjects
from mend_jax.data.sources.base import Read
from mend_jax.data.sources.registry import read_noted
from mend_jax.data.token_records import encode_records, grouped
from mend_jax.editors.method import AtOnce
from mend_jax.evaluation.metrics import PROTOCOLS
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, Mesh, OutFolder, Times
from mend_jax.parallel import mesh_of
from mend_jax.reports.figures import score_bars
from mend_jax.reports.progress import Reporter
from mend_jax.reports.results import About, make_results, table, write_results
from mend_jax.runs.distractors import NOTHING, held_beside
from mend_jax.runs.evaluation import ScoreOptions, measure, trained_on
from mend_jax.runs.opening import EditorPlace, OpeningOptions, has_room, open_editor
from mend_jax.runs.option_groups import AnswerLength, Length, ReadingOptions
from mend_jax.runs.splits import OBEYED, check_conflicts, own_records, reading_of
from mend_jax.runs.work import Work, stream_of
from mend_jax.saved.building import build_editor, outputs_over
from mend_jax.saved.directory import SavedEditor


@dataclass(frozen=True, kw_only=True)
class Evaluate(OpeningOptions, ReadingOptions, ScoreOptions):
    """Options of an evaluation."""

    editor: EditorPlace
    """Directory of a trained editor, or its name on the hub (user/name[@revision])."""
    out: OutFolder
    """Directory for results.json and scores.png."""
    records: Input | None = None
    """Records to score it on: your own JSONL, or a published file (CounterFact, zsRE, FEVER, ...:
    all of mend_jax/data/sources); without it, the held-out subjects of the project's facts."""
    limit: Times = 0
    """Score only so many records (0: all)."""
    after: After = "nothing"
    """Text that is put before every rephrase and locality prompt, and before the edit's own prompt
    as one more rephrase: a sentence about something else, five sentences, the statement of another
    edit, or a turn of a chat."""
    chat: bool = False
    """Ask each prompt as what a user says, in the base's chat template; rephrases come after other
    turns than the edit. Records of "messages" are asked so anyway."""
    hold: Times = 0
    """Hold so many edits, of an editor with a scope, while each group of k is scored (0: k): their
    own, and those of --distractors."""
    distractors: Input | None = None
    """File of records whose edits are held beside, and not scored; those with subjects that the
    editor was trained on come last."""
    at_once: AtOnce | None = None
    """Of k edits: one gradient of their mean loss; or k edits that are made alone and added, or
    joined without their crosstalk; by default as the editor was trained."""
    allow_conflicts: bool = False
    """Let one prompt be edited to two targets at once."""
    longest: Length = 128
    """Longest sequence in tokens; longer pairs are left out and counted."""
    longest_answer: AnswerLength = 32
    """Longest target or answer in tokens; longer pairs are left out and counted."""
    stream: bool = False
    """Hold only the edited layers of the base and those above; the others are read one by one, run
    over all texts, and dropped. So it is done, too, where there is no room for all of the base."""
    mesh: Mesh = "1x1"
    """Devices, DATAxMODEL: edits are split over DATA, the base's weights over MODEL."""


def evaluate(config: Evaluate) -> None:
    """Loads, scores, prints, writes."""
    check(config)
    mesh = mesh_of(config.mesh)
    reading = reading_of(config, "validation")
    given = config.records and read_noted(config.records, reading)  # broken files first
    others = distractors_of(config)
    stream = config.stream or not (against_stream(config) or has_room(config.editor, config, print))
    saved = open_editor(config.editor, config, mesh, stream)
    check_scoped(config, saved)
    if config.at_once is not None:
        editing = saved.config | {"at_once": config.at_once}
        editor = build_editor(editing, outputs_over(saved.base, saved.sites))
        saved = saved._replace(editor=editor, config=editing)
    records, dataset = (
        (given.records, str(config.records)) if given else own_records(saved.base, reading)
    )
    seen = trained_on(saved)
    known = None if seen is None else len(records) - len(drop_known_subjects(records, seen)[0])
    if known:
        print(f"warning: {known} of {len(records)} records have subjects that were trained on")
    began = time.perf_counter()
    limits = (config.longest, config.longest_answer)
    records = as_chats(records, BEFORE) if config.chat else records
    asked = preceded(records[: config.limit or None], config.after, config.seed)
    encode = codec_of(saved.base).pair
    encoded, skipped = encode_records(asked, encode, *limits)
    left_out: dict[str, Any] = skipped.too_long._asdict() | skipped.in_words()
    if len(encoded) < (wanted := config.sequential or config.k):
        raise ValueError(
            f"{dataset}: {wanted} edits are wanted, {len(encoded)} records can be used "
            f"(left out: {left_out})"
        )
    scored = config.sequential or len(encoded) // config.k * config.k
    asked = [entry.record for entry in encoded[:scored]]
    beside, told = NOTHING
    if others:
        apart, _ = drop_known_subjects(others.records, asked)
        wanted = config.hold - config.k
        beside, told = held_beside(str(config.distractors), wanted, apart, seen, encode, limits)
    left_out |= {"records that fill no group": len(encoded) % config.k}
    left_out |= {"file": given.notes} if given and given.notes else {}
    encoded, obeyed = without_edited_subjects(
        encoded[:scored], config.sequential or config.k, beside
    )
    left_out |= {OBEYED: obeyed} if obeyed else {}
    print(f"{len(encoded)} records; left out: {left_out}")
    if config.k > 1 and not config.allow_conflicts and "scoped" not in saved.config:
        check_conflicts(grouped(encoded, config.k))
    with Reporter(0) as reporter:
        work = Work(saved, encoded, mesh, reporter, config.seed, beside)
        if stream:
            print(stream_of(work).told)
        metrics, more = measure(config, work)
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    options |= {"editor": saved.origin, "stream": stream}
    protocol = PROTOCOLS[config.protocol]
    results = make_results(
        About(saved.config["editor"], saved.base.name, dataset, len(encoded), protocol),
        metrics,
        time.perf_counter() - began,
        options
        | {"left_out": left_out, "records of subjects trained on": known}
        | ({"held beside": told | {"file": others.notes}} if others else {}),
    )
    config.out.mkdir(parents=True, exist_ok=True)
    score_bars(config.out / "scores.png", results)
    write_results(config.out / "results.json", results | more)  # last: a run with it is done
    print(table(results))


def distractors_of(config: Evaluate) -> Read | None:
    """The records of --distractors, as chats if the others are."""
    if config.distractors is None:
        return None
    read = read_noted(config.distractors, reading_of(config, "train"))
    return read._replace(records=as_chats(read.records)) if config.chat else read


def check(config: Evaluate) -> None:
    """Raises OptionError for an option whose value is not allowed, and ValueError for options that
    do not fit together."""
    check_options(config)
    if config.stream and (given := against_stream(config)):
        raise ValueError(
            f"--stream: {', '.join(given)} does not go with it. One device runs the layers below "
            "the edited ones once, over texts that are known; to write texts takes all of the base"
        )
    if (config.out / "results.json").exists():
        raise ValueError(f"{config.out} holds a results.json already: give another --out")
    if (config.distractors is not None) != (config.hold > config.k):
        raise ValueError(
            "--hold N and --distractors FILE go together: N edits are held while each group of "
            f"--k {config.k} is scored, so N is more than that"
        )
    single = config.k == 1 and config.at_once is None and not config.alone
    if config.sequential and not (single and config.protocol == "sequence" and not config.generate):
        raise ValueError(
            "--sequential makes one edit after another and scores them under the protocol "
            "`sequence`: --k, --at-once, --alone, --protocol and --generate do not go with it"
        )


def against_stream(config: Evaluate) -> list[str]:
    """The options that are given and need the layers below the edited ones."""
    wrong = {
        "--mesh": config.mesh != "1x1", "--alone": config.alone,
        "--elsewhere": config.elsewhere > 0, "--generate": config.generate > 0,
        f"--protocol {config.protocol}": config.protocol in ("exact", "contains"),
    }  # fmt: skip
    return [option for option, is_given in wrong.items() if is_given]


def check_scoped(config: Evaluate, saved: SavedEditor) -> None:
    """Raises ValueError for options that an editor with a scope does not obey, or one without."""
    if "scoped" not in saved.config:
        if config.hold or config.elsewhere:
            raise ValueError("--hold and --elsewhere are for editors with a scope: this has none")
        return
    if config.elsewhere and saved.base.model.kind != "causal":
        raise ValueError(
            "--elsewhere looks at running text and at what follows an answer: this model reads a "
            "text as a whole, and answers it"
        )
    wrong = {"--at-once": config.at_once is not None, "--alone": config.alone}
    if given := [option for option, is_given in wrong.items() if is_given]:
        raise ValueError(
            f"{', '.join(given)}: not for an editor with a scope. Its edits are made alone, "
            "whatever is held: --k N holds N of them"
        )


PRESETS = {
    "counterfact_500": Preset(
        {"limit": 500, "longest": 48, "batch": 20},
        "with an editor of quickstart --no-scope and CounterFact's validation file: 58.9 s on two "
        "CPU cores, 187.9 s with --alone, the same scores (results/evaluate_500_smollm2.json)",
    ),
    "chat_100": Preset(
        {"chat": True, "protocol": "contains", "limit": 100, "batch": 16, "longest": 96},
        "with the editor that comes with the package: edits answered in 0.920, rephrases in 0.730; "
        "unchanged near 1.000, far 1.000, own 0.940; 710 s on two CPU cores (results/shipped_chat"
        ".json)",
    ),
    "held_1000": Preset(
        {"limit": 1000, "k": 1000, "longest": 48, "batch": 16},
        "with the editor of `train_smollm2_counterfact --preset scoped` and CounterFact's "
        "validation file: reliability 0.992, generality 0.840, near answers that stay 0.979, own "
        "0.986; 157 s on two CPU cores beside other work (results/held_1000_smollm2.json)",
    ),
    "held_5000": Preset(
        {"limit": 1000, "k": 1000, "hold": 5000, "longest": 48, "batch": 16},
        "with the same, and CounterFact's training file as --distractors: reliability 0.992, "
        "generality 0.836, near answers that stay 0.963, own 0.971; 260 s on two CPU cores beside "
        "other work (results/held_5000_smollm2.json)",
    ),
}

COMMAND = Command(Evaluate, evaluate, __doc__, PRESETS)
