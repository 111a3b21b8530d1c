"""Every option of every command refuses senseless values, before any work is done.

The values come as Python code gives them, and as a user types them. What an option takes all the
same stands in ALLOWED, with the reason why it is no slip.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from typed import Ended, typed

from mend_jax.commands.command import Command
from mend_jax.commands.console import module_of, names
from mend_jax.commands.form import docstrings
from mend_jax.option_checks import Option, check_options, options_of, plain, refusal, rules_of
from mend_jax.option_types import Address, Batch, OptionError, Rate, Text
from mend_jax.runs.options import ExperimentError, TrainConfig, check_config

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(file.stem for file in (ROOT / "experiments").glob("train_*.py"))
TYPED = [module_of(name) for name in names()]
COMMANDS = [*TYPED, *(f"experiments.{name}" for name in EXPERIMENTS)]
"""The experiments are `mend-jax train` with other defaults, so they need not be typed too."""

NUMBERS = (-1, 0, 10**12, -(10**12), 10**30)
FLOATS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e30, -1e30, 1e-30, 1e12)
TEXTS = ("", " ", "no such", "nosuch", "nan", "(", "a\0b", "\ud800", "a:", ":b", "0x0", "²x1",
         "99999x99999", "-1", "1,0", "1,1", "mend,mend", "mend,rome")  # fmt: skip
PATHS = ("no/such/file", "a\0b", "\ud800", "x" * 300, f"{__file__}/below")
OF_OTHER_TYPES: dict[Any, tuple[Any, ...]] = {
    int: (1.0, 1.5, True, "1", [1], b"1"), float: (True, "1", [1.0], 1j), str: (1, b"a", Path("a")),
    bool: (1, 0, "yes", 0.0), Path: ("a", 1, b"a"), tuple: ("a", [], (3,), ["a"]),
}  # fmt: skip

ALL, NONE = "0 is all of them", "0 is none"
ALLOWED: dict[tuple[Any, str], str] = {
    (0, "seed"): "a seed like any other",
    (0, "ft-breadth.seed"): "a seed like any other",
    (0, "process-id"): "the first process",
    (0, "max-train"): ALL, (0, "phrasings"): ALL, (0, "max-validation"): ALL,
    (0, "limit"): ALL, (0, "facts"): ALL,
    (0, "localities"): NONE, (0, "near"): NONE, (0, "far"): NONE, (0, "dev"): NONE,
    (0, "calibrate"): "editors without statistics need no batches",
    (0, "patience"): "0 is never",
    (0, "sequential"): "0 is no sequence", (0, "generate"): "0 is no more than is needed",
    (0, "naming"): "BERT learns verdicts at once",
    (0, "at"): "0 is before the first event", (0, "held"): "0 is not timed",
    (0, "elsewhere"): "0 is not looked at", (0, "hold"): "0 is no more than a group",
    (0, "asked"): NONE, (0, "chats"): NONE, (0, "unused"): "0 is whatever was used last",
    (0, "steps of a comparison"): "0 is as many as fit in --minutes",
    ("", "sites"): "the family's own", ("", "trust"): "none",
    ("", "grace.site"): "by the number of blocks",
    **{(text, name): "what stands between two texts may be any text, or none"
       for name in ("separator", "in-context.after")
       for text in TEXTS if text not in ("a\0b", "\ud800")},
    **{(text, name): "only the model knows its layers: SiteError once it is loaded"
       for name in ("sites", "grace.site")
       for text in TEXTS if text and text not in ("(", "a\0b", "\ud800")},
    **{(text, name): "anything may be said to a model"
       for name in ("prompt", "target", "ask", "subject", "rephrase", "note")
       for text in TEXTS if text.strip() and text not in ("a\0b", "\ud800")},
    **{(text, name): "only the base knows its matrices; only the folder, which bases it has"
       for name in ("matrices", "base")
       for text in TEXTS if text.strip() and text not in ("a\0b", "\ud800")},
    **{(text, "model"): "may be a hub id: only the loader can tell"
       for text in ("nosuch", "nan", "0x0", "²x1", "99999x99999", "-1")},
    **{("no/such/file", name): "will be made" for name in ("out", "json", "new store")},
}  # fmt: skip
COMPARISONS = ("ablate", "batch_edits", "compare", "sites")


def command_of(module: str) -> Command:
    command: Command = import_module(module).COMMAND
    return command


def optional(hint: Any) -> bool:
    return type(None) in get_args(hint) or any(map(optional, get_args(hint)))


def senseless(option: Option) -> list[Any]:
    """Values that mean nothing for an option of its type."""
    kind = plain(option.hint)
    nothing = [] if optional(option.hint) else [None]
    if get_origin(kind) is Literal:
        return ["nosuch", "", 1, True, *nothing]
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        parts = senseless(option._replace(hint=inner))
        others = [x for x in OF_OTHER_TYPES[tuple] if x != (3,) or plain(inner) is not int]
        return [*((part,) for part in parts), *others, None]
    values = {int: (*NUMBERS, *FLOATS), float: FLOATS, str: TEXTS, bool: (),
              Path: tuple(map(Path, PATHS))}[kind]  # fmt: skip
    return [*values, *OF_OTHER_TYPES[kind], *nothing]


def called(module: str, option: Option) -> str:
    built_in = (".plan", ".benchmark", ".benchmark_scoped", ".make_random")
    if option.name == "model" and module.endswith(built_in):
        return "built-in model"
    if option.name == "target" and module.endswith(".plan"):
        return "card"
    if option.name == "store" and module.endswith(".add"):
        return "new store"
    compares = module.rpartition(".")[2] in COMPARISONS
    return "steps of a comparison" if compares and option.name == "steps" else option.name


def reason(value: Any, name: str) -> str | None:
    """Why an option takes this value, if it does."""
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    value = str(value) if isinstance(value, Path) else value
    return ALLOWED.get((value, name)) if type(value) in (int, str) else None


@pytest.mark.parametrize("module", COMMANDS)
def test_senseless_values_are_refused(module: str):
    wrong = []
    for option in options_of(command_of(module).config):
        name = called(module, option)
        for value in senseless(option):
            said = refusal(option.hint, value)
            if bool(said) == bool(reason(value, name)):
                wrong.append(f"--{name} {value!r}: {said or 'is taken'}")
    assert not wrong, "\n".join(wrong)


def test_every_reason_is_of_use():
    used = set()
    for module in COMMANDS:
        for option in options_of(command_of(module).config):
            name = called(module, option)
            used |= {(x, name) for x, of in ALLOWED if of == name and not refusal(
                option.hint, Path(x) if plain(option.hint) is Path else
                (x,) if get_origin(plain(option.hint)) is tuple else x)}
    assert used == set(ALLOWED)


@pytest.mark.parametrize("module", COMMANDS)
def test_options_have_rules_and_defaults_keep_them(module: str):
    """A number without a range, or a default out of its range, is a slip of ours; zeros that are
    allowed are explained to users too."""
    command = command_of(module)
    said: dict[type[Any], Mapping[str, str]] = {}
    given = [{}, *(dict(preset.options) for preset in command.presets.values())]
    for option in options_of(command.config):
        if plain(option.hint) in (int, float):
            assert rules_of(option.hint), option.name
        if option.field.default is not dataclasses.MISSING:
            assert not refusal(option.hint, option.field.default), option.name
        if option.owner not in said:
            said[option.owner] = docstrings(option.owner)
        text = said[option.owner][option.field.name]
        if ALLOWED.get((0, called(module, option)), "seed").partition(" ")[0] == "0":
            assert re.search(r"\b0\b", text), f"{option.name}: what 0 is"
    for options in given:
        made = [o for o in options_of(command.config) if o.field.name in options]
        for option in (o for o in made if len(o.path) == 1):
            assert not refusal(option.hint, options[option.field.name]), option.name


def line(module: str, folder: Path) -> dict[str, list[str]]:
    """What has to be typed, all of it allowed."""
    file = folder / "file.json"
    file.write_text("{}")
    values = {"out": folder / "out", "editor": folder, "model": folder, "folder": folder,
              "prompt": "p", "target": "t", "family": "t5", "numbers": 1}  # fmt: skip
    needed: dict[str, list[str]] = {}
    for option in options_of(command_of(module).config):
        of = option.field
        if dataclasses.MISSING is of.default and dataclasses.MISSING is of.default_factory:
            needed[option.name] = [str(values.get(of.name, file))]
    if module.endswith(".plan"):
        needed["model"] = ["gpt2-xl"]
    return needed


def typed_with(module: str, needed: dict[str, list[str]], given: dict[str, str]) -> Ended:
    """The command with these options; `folder` and `results` are typed without their names."""
    arguments = []
    for name, value in (needed | {k: [v] for k, v in given.items()}).items():
        arguments += value if name in ("folder", "results", "numbers") else [f"--{name}", *value]
    return typed("mend-jax", *module.split(".")[2:], *arguments)


@pytest.mark.parametrize("module", TYPED)
def test_a_command_refuses_them_all_at_once_before_any_work(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As they are typed: one message, which names each option; and nothing is written."""
    needed = line(module, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file.json"))
    for values in (
        {int: "-1", float: "nan", str: "a\0b", Path: f"{__file__}/below"},
        {int: "1000000000000", float: "-inf"},
    ):
        options = [o for o in options_of(command_of(module).config) if plain(o.hint) in values]
        ended = typed_with(module, needed, {o.name: values[plain(o.hint)] for o in options})
        if not options:
            continue
        assert ended.code == 1, ended
        (said, where) = ended.error.strip().splitlines()
        assert said.startswith("error: --") and where.startswith("(MEND_JAX_TRACEBACK=1")
        for option in options:
            assert f"--{option.name} " in said
        assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


MAY_BE_EMPTY = ("folder", "results", "separator")


@pytest.mark.parametrize("module", TYPED)
def test_empty_arguments_are_refused(module: str, tmp_path: Path):
    needed = line(module, tmp_path)
    for option in options_of(command_of(module).config):
        if plain(option.hint) in (str, Path) and option.name not in MAY_BE_EMPTY:
            ended = typed_with(module, needed, {option.name: ""})
            assert ended.code == 1 and f"error: --{option.name} is empty" in ended.error


def test_an_action_begins_with_the_check(tmp_path: Path):
    """So a config made in Python is checked as well, and every wrong option is told."""
    file = tmp_path / "file"
    file.touch()
    for module in COMMANDS:
        command = command_of(module)
        values: dict[str, Any] = {"out": file}
        for option in options_of(command.config):
            if plain(option.hint) in (int, float):
                values.setdefault(option.path[0], math.nan)
        names_of_fields = {field.name for field in dataclasses.fields(command.config)} - {"own"}
        config = object.__new__(command.config)  # as Python code could make it
        vars(config).update(default_values(command.config) | {
            k: v for k, v in values.items() if k in names_of_fields
        })
        with pytest.raises(OptionError):
            command.action(config)


def default_values(config: type[Any]) -> dict[str, Any]:
    """Of all fields; None where there is no default."""
    made = {}
    for of in dataclasses.fields(config):
        factory = of.default_factory
        made[of.name] = None if factory is dataclasses.MISSING else factory()
        if of.default is not dataclasses.MISSING:
            made[of.name] = of.default
    return made


@dataclass(frozen=True)
class Group:
    """A group of options."""

    rate: Rate = 0.1


@dataclass(frozen=True, kw_only=True)
class Base:
    """Options."""

    batch: Batch = 10
    own: Group = field(default_factory=Group)
    group: Group = field(default_factory=Group)
    asked: tuple[Text, ...] = ()
    limit: Batch | None = None


@dataclass(frozen=True, kw_only=True)
class Derived(Base):
    """With another default, which says nothing of what is allowed."""

    batch: int = 20


def test_one_message_names_every_wrong_option():
    wrong = Derived(
        batch=0, own=Group(math.nan), group=Group(-1), asked=("a", " "), limit=70_000
    )
    with pytest.raises(OptionError) as error:
        check_options(wrong)
    assert str(error.value) == (
        "--batch 0: from 1 to 65,536 is allowed; --rate nan: a finite number is wanted; "
        "--group.rate -1: from 1e-12 to 10 is allowed; --asked 'a' ' ': of ' ', a text that is not "
        "empty is wanted; --limit 70000: from 1 to 65,536 is allowed"
    )
    check_options(Derived())


def test_a_type_that_options_do_not_have_is_an_error_of_ours():
    with pytest.raises(TypeError, match="dict"):
        refusal(dict, {})


@pytest.mark.parametrize("text", ["localhost:1", "node-3.cluster:65535", "[::1]:8080"])
def test_addresses(text: str):
    assert not refusal(Address, text)


def test_processes_go_together(tmp_path: Path):
    config = TrainConfig(out=tmp_path, address="a:1", processes=2, process_id=1)
    check_config(config)
    for changes in ({"address": None}, {"processes": None}, {"process_id": None}):
        with pytest.raises(ExperimentError, match="go together: give all"):
            check_config(dataclasses.replace(config, **changes))
    with pytest.raises(ExperimentError, match="--process-id 2: .* there are 2"):
        check_config(dataclasses.replace(config, process_id=2))


def test_help_says_what_is_allowed():
    said = " ".join(typed("train", "--help").out.replace("│", " ").split())
    assert "Edits a step, each made alone. [from 1 to 65,536] (default: 10)" in said
    assert "[from 1 to 128] (default: 64)" in said
