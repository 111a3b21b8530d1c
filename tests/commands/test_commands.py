"""The commands as a user types them: --help, one edit, an evaluation, and errors in one line."""

import json
import re
import shlex
import signal
import time
from pathlib import Path
from subprocess import Popen
from unittest import mock

import pytest
from tiny_run import Files, Finished, some_records, start
from typed import Ended, typed

from mend_jax.commands.quickstart import Quickstart
from mend_jax.data.records import Record, write_records

pytest_plugins = ["finished_run"]

TRAINING = {
    "--out", "--model", "--train", "--validation", "--dev", "--steps", "--batch", "--seed",
    "--log-every", "--checkpoint-every", "--resume", "--flip", "--locality", "--questions",
}  # fmt: skip
COMMANDS = {
    "quickstart": (TRAINING, ("(default: runs/quickstart)", f"(default: {Quickstart.steps})")),
    "train_smollm2_counterfact": (TRAINING, ("(required)", "(default: smollm2-135m)")),
    "evaluate": (
        {
            "--editor", "--records", "--out", "--dtype", "--mesh", "--protocol", "--k",
            "--generate", "--flip", "--locality",
        },
        ("(default: 8)", "{sequence,token,exact,contains}"),
    ),  # fmt: skip
    "edit": ({"--editor", "--prompt", "--target", "--ask", "--dtype"}, ("(default: 12)",)),
    "compare": (TRAINING | {"--editors", "--minutes"}, ("mend,ft,ft_kl,ft_breadth,",)),
    "ablate": (TRAINING | {"--editors"}, ("no_sharing,no_norm",)),
    "sites": (TRAINING | {"--places"}, ("default,mlp_1,mlp_2",)),
    "batch_edits": (TRAINING | {"--ks"}, ("(default: 1,5,25,75,125)",)),
    "pretrain": ({"--family", "--out", "--pararel", "--steps"}, ("{t5,bart,", "(default: 64)")),
    "report": ({"--out"}, ("Files results.json or compare.json",)),
    "convert": ({"--out", "--shard-gb"}, ("FOLDER",)),
    "plan": ({"--model", "--mesh", "--batch", "--dtype", "--json"}, ("(default: 1x1)",)),
    "benchmark": ({"--model", "--json", "--random-weights"}, ("distilgpt2",)),
    **{
        name: (TRAINING | {"--dtype", "--mesh"}, ("(default: 1920)", f"runs/{name}", base))
        for name, base in (
            ("train_t5xxl", "google/t5-xxl-ssm-nq"),
            ("train_t5xl", "google/t5-xl-ssm-nq"),
            ("train_gptj", "EleutherAI/gpt-j-6B"),
            ("train_gptneo27", "EleutherAI/gpt-neo-2.7B"),
            ("train_bart_zsre", "facebook/bart-base"),
            ("train_bert_fever", "bert-base-uncased"),
            ("train_distilgpt2_wikitext", "distilbert/distilgpt2"),
        )
    },
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_and_its_default(name: str):
    code, out, error = typed(name, "--help")
    assert code == 0, error
    wanted, defaults = COMMANDS[name]
    assert f"python -m experiments.{name}" in out
    missing = [option for option in wanted if option not in out]
    assert not missing
    for text in defaults:
        assert text in out


def test_processes_of_their_own(tmp_path: Path):
    """What the others type in this process is what a shell starts."""
    script = "from mend_jax.commands.console import console; console()"
    children = [
        start(tmp_path, "-m", "experiments.edit", "--help"),
        start(tmp_path, "-c", script, "edit", "--help"),
        start(tmp_path, "-m", "experiments.edit", "--editor", tmp_path, "--prompt", "p",
              "--target", "t"),
    ]  # fmt: skip
    help_, console, broken = (Ended(x.returncode, *said) for x, said in ended(children))
    here = typed("edit", "--help")
    assert help_.code == here.code == 0 and words(help_.out) == words(here.out)
    assert console.code == 0 and "usage: mend-jax edit" in console.out
    assert broken.code == 1 and broken.error.startswith("error: ")
    assert "no editor here" in broken.error


def ended(children: list[Popen]) -> list[tuple[Popen, tuple[str, str]]]:
    """Each with what it printed."""
    return [(child, child.communicate()) for child in children]


def words(text: str) -> list[str]:
    """Without the frames around them, which differ with the terminal."""
    return re.findall(r"[\w-]+\w", text)


def test_edit_shows_the_models_words_before_and_after(finished: Finished):
    code, out, error = typed(
        "edit", "--editor", finished.config.out, "--prompt", "Person 3 lives in",
        "--target", "Oslo", "--ask", "The home of person 3 is", "--ask", "Person 4 lives in",
    )  # fmt: skip
    assert code == 0, error
    lines = [line for line in out.splitlines() if line.strip()]
    assert lines[0].startswith("Person 3 lives in -> Oslo   (edited in ")
    asked = ["Person 3 lives in", "The home of person 3 is", "Person 4 lives in"]
    assert [line.strip() for line in lines[1::3]] == asked
    assert all(line.strip().startswith("before:") for line in lines[2::3])
    assert all(line.strip().startswith("after:") for line in lines[3::3])


def test_edit_takes_texts_as_they_are_written(finished: Finished):
    """The whole text is tokenised in one way, whoever brings the space: the edit is the same."""
    rest = ("--editor", finished.config.out, "--tokens", 3)
    ways = (
        ("--prompt", "Person 24 lives in", "--target", "Rome"),
        ("--prompt", "Person 24 lives in", "--target", " Rome"),
        ("--prompt", "Person 24 lives in", "--target", "Rome", "--separator", " "),
        ("Person 24 lives in", "Rome"),
    )
    found = []
    for way in ways:
        code, said, error = typed("edit", *way, *rest)
        assert code == 0, error
        found.append([x.strip() for x in said.splitlines() if x.strip()][2:])
    assert found == [found[0]] * 4 and len(found[0]) == 2
    code, said, _ = typed("edit", *rest, "--prompt", "Person 24\n", "--target", "Rome")
    assert code == 0 and said.startswith("Person 24\n -> Rome")


def test_evaluate_scores_as_the_run_did(finished: Finished, tmp_path: Path):
    """The run's own validation records give the run's own numbers."""
    records, out = tmp_path / "records.jsonl", tmp_path / "scores"
    too_long = Record("word " * 200, "Oslo")
    write_records(records, [*some_records(24, 8), too_long])
    code, _, error = typed(
        "evaluate", "--editor", finished.config.out, "--records", records, "--out", out
    )
    assert code == 0, error
    results = json.loads((out / "results.json").read_text())
    assert list(results) == list(finished.run.results)
    assert results["n"] == 8 and results["config"]["left_out"]["records"] == 1
    assert results["dataset"] == str(records)
    assert results["config"]["flip"] == "all" and results["config"]["locality"] is None
    for name, metric in finished.run.results["metrics"].items():
        assert results["metrics"][name] == pytest.approx(metric, abs=1e-4), name
    assert (out / "scores.png").stat().st_size > 0


def test_evaluate_needs_no_records(finished: Finished, tmp_path: Path):
    """The facts are there; and the base comes in the dtype that is asked for."""
    out = tmp_path / "scores"
    code, _, error = typed(
        "evaluate", "--editor", finished.config.out, "--out", out, "--limit", 3, "--dtype", "int8"
    )
    assert code == 0, error
    results = json.loads((out / "results.json").read_text())
    assert results["dataset"] == "facts" and results["config"]["dtype"] == "int8"
    assert results["n"] == 3 and results["metrics"]["edit_success_before"]["value"] == 0


def test_evaluate_under_other_protocols_at_once_and_in_sequence(
    finished: Finished, tmp_path: Path
):
    ways = {
        "contains": ("--protocol", "contains"),
        "token": ("--protocol", "token", "--generate", "6"),
        "alone": ("--protocol", "token", "--alone"),
        "k": ("--k", "3", "--at-once", "summed"),
        "sequence": ("--sequential", "6"),
    }
    records = tmp_path / "records.jsonl"
    write_records(records, some_records(24, 7))
    found = {}
    for name, way in ways.items():
        code, _, error = typed(
            "evaluate", "--editor", finished.config.out, "--records", records,
            "--out", tmp_path / name, "--batch", 2, *way,
        )  # fmt: skip
        assert code == 0, error
        found[name] = json.loads((tmp_path / name / "results.json").read_text())
    assert {name: x["n"] for name, x in found.items()} == {
        "contains": 7, "token": 7, "alone": 7, "k": 6, "sequence": 6,
    }  # fmt: skip
    assert found["contains"]["protocol"] == "greedy generation, contains the answer"
    assert found["token"]["protocol"] == "teacher-forced token"
    for name in ("contains", "token"):
        first = found[name]["texts"][0]["outer"][0]
        assert first["prompt"] == "Person 24 lives in" and first["answer"] == "Paris"
    assert [point["edits"] for point in found["sequence"]["curve"]] == [1, 2, 5, 6]
    for name, metric in found["token"]["metrics"].items():
        assert found["alone"]["metrics"][name] == pytest.approx(metric, rel=1e-4, abs=1e-5), name


TRAIN = ("--no-scope", "--dev", 4, "--steps", 400, "--batch", 3, "--rank", 5, "--longest", 24,
         "--log-every", 1, "--evaluate-every", 400, "--checkpoint-every", 400, "--calibrate", 2,
         "--sites", r"layers_1/mlp/up_proj")  # fmt: skip


def test_a_signal_in_training_says_which_command_goes_on(tiny_files: Files, tmp_path: Path):
    out = tmp_path / "an out"
    given = ["--model", tiny_files.model, "--train", tiny_files.train, "--validation",
             tiny_files.validation, "--out", out, *TRAIN]  # fmt: skip
    child = start(tmp_path, "-m", "experiments.train", *given)
    rows = out / "metrics.jsonl"
    while not (rows.exists() and rows.read_text().count("\n") > 2) and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, error = child.communicate()
    assert child.returncode == 143, error
    told = error.strip().splitlines()[-1]
    step = int(re.findall(r"at step (\d+), whose checkpoint is written", told)[0])
    assert told.startswith(f"stopped by SIGTERM at step {step}")
    command = shlex.join(["train", *map(str, given), "--resume"])
    assert told.endswith(f"; to go on: python -m experiments.{command}")
    assert "Traceback" not in error and (out / "checkpoints" / str(step)).is_dir()
    assert not {".lock", ".owner"} & {path.name for path in out.iterdir()}


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_elsewhere_ends_a_command_at_once(
    tiny_files: Files, tmp_path: Path, number: signal.Signals, resume: tuple[str, ...]
):
    given = ("--model", tiny_files.model, "--train", tiny_files.train, "--validation",
             tiny_files.validation, "--out", tmp_path / "out", *resume)  # fmt: skip

    def signalled(*_: object) -> None:
        signal.raise_signal(number)
        raise AssertionError("not stopped")

    with mock.patch("mend_jax.runs.run.load", signalled):
        code, _, error = typed("train", *given)
    again = shlex.join(["train", *map(str, given), *([] if resume else ["--resume"])])
    assert (code, error) == (
        128 + number, f"stopped by {number.name}; to go on: python -m experiments.{again}\n"
    )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_to_a_command_that_is_not_resumed(tmp_path: Path):
    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with mock.patch("mend_jax.commands.prepare.read_records", signalled):
        code, _, error = typed("prepare", "--records", tmp_path, "--out", tmp_path / "out")
    assert (code, error) == (143, "stopped by SIGTERM\n")


def test_errors_are_one_message_and_exit_code_1(finished: Finished, tmp_path: Path):
    """No traceback, and what was wrong."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "p"}\n')
    editor = finished.config.out
    edit = ("edit", "--target", "t")
    cases = [
        ((*edit, "--editor", tmp_path, "--prompt", "p"), "no editor here"),
        ((*edit, "--editor", editor, "--prompt", " "), "--prompt is empty"),
        ((*edit, "--editor", editor, "--prompt", "p", "--ask", ""), "--ask is empty"),
        ((*edit, "--editor", editor, "--prompt", "word " * 200), "is too long: at most 128 fit"),
        (
            ("evaluate", "--editor", editor, "--records", broken, "--out", "x"),
            f"{broken}, line 1: the field 'target' is missing",
        ),
        (
            ("evaluate", "--editor", editor, "--records", broken, "--out", editor),
            "holds a results.json already",
        ),
        (
            ("evaluate", "--editor", editor, "--out", "x", "--sequential", "9",
             "--k", "2"),
            "--k, --at-once, --alone, --protocol and --generate do not go with it",
        ),
        (
            ("quickstart", "--out", editor),
            "is not empty: give another --out",
        ),
    ]
    for arguments, message in cases:
        code, _, error = typed(*arguments)
        assert code == 1, error
        assert error.startswith("error: ") and message in error
        assert "Traceback" not in error and len(error.strip().splitlines()) == 2
