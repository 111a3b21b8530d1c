"""A command that is printed can be pasted into a shell: it means what was meant."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mend_jax.commands.command import parse
from mend_jax.commands.edit import COMMAND
from mend_jax.commands.quickstart import edit_command
from mend_jax.data.records import Record
from mend_jax.models import memory
from mend_jax.weights import WeightsError
from mend_jax.weights.hf_folder import read_folder

AWKWARD = ("Turgut Özal", "it's $HOME", "`x` \\u00d6 \\", '"a" & b; c | d', "-5 is", "--ask",
           "a\nb", "北京", "!x", "~", "*", "#", "x=y")  # fmt: skip
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


def in_a_shell(command: str) -> list[str]:
    """The arguments that a program gets, without its name."""
    shown = f"{shlex.quote(sys.executable)} -c {shlex.quote(SHOW)} {command}"
    done = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True)
    got: list[str] = json.loads(done.stdout)
    return got


@pytest.mark.parametrize("text", AWKWARD)
def test_the_quickstart_s_next_command_is_an_edit(text: str):
    record = Record(f"{text}", text, (f"{text}, in other words",))
    command = edit_command(Path("runs") / "my run's", record)
    arguments = shlex.split(command)
    assert arguments[:2] == ["mend-jax", "edit"]
    config = parse(COMMAND, arguments[2:], "mend-jax edit", "")
    assert (config.prompt, config.target) == (text, text)
    assert config.ask == (f"{text}, in other words",)
    assert config.editor == str(Path("runs") / "my run's")


def test_prompt_and_target_may_come_first_without_their_names():
    def told(*words: str):
        config = parse(COMMAND, words, "mend-jax edit", "")
        return config.prompt, config.target, config.ask

    asked = ("--ask", "c")
    assert told("a = b", "t", *asked) == told(*asked, "--prompt=a = b", "--target", "t")
    assert told("a", *asked, "--target", "t") == ("a", "t", ("c",))
    for words in (("a",), ("a", "b", "c"), (*asked, "a", "t")):
        with pytest.raises(SystemExit):
            told(*words)


def test_a_shell_takes_it_as_shlex_does():
    record = Record("".join(AWKWARD), "".join(reversed(AWKWARD)))
    command = edit_command(Path("a b"), record)
    assert in_a_shell(command) == shlex.split(command)


def test_commands_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "it's mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(WeightsError) as error:
        read_folder(folder)
    command = str(error.value).rpartition("mend-jax ")[2]
    assert in_a_shell(command) == ["convert", str(folder)]
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10)
    with pytest.raises(memory.RoomError) as room:
        shapes = {"w": jax.ShapeDtypeStruct((9, 9), jnp.float32)}
        memory.check_room("it's mine", shapes, (), None, "float32", jnp.float32)
    assert in_a_shell(str(room.value).split("`")[1]) == ["mend-jax", "plan", "--model", "it's mine"]
