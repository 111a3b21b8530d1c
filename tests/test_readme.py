"""The pages for strangers: what they show runs, what they name is there, what they ask is short."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mend_jax.commands import console
from mend_jax.models.registry import Base

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/README.md")
LINKED = (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
LINES = 150
OPTIONS = 5

COMMAND = re.compile(r"(?:^|\s)(?:mend-jax\s|python -m experiments\.)")
NAMED = re.compile(r"(?:mend-jax +|\bexperiments\.)([a-z][a-z0-9_]*)(?![\w*])")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def commands(page: Path) -> Iterator[str]:
    """Every command line, in a block or between backticks; wrapped ones as one line."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line
        for _, block in FENCE.findall(text)
        for line in re.sub(r"\\+\n", " ", block).splitlines()
    ]
    inline = (" ".join(one.split()) for one in INLINE.findall(FENCE.sub("", text)))
    yield from (line for line in (*lines, *inline) if COMMAND.search(line))


def options(command: str) -> list[str]:
    """The options of the last command of a line; those of `pip` and the like are not ours."""
    words = command.split()
    ours = [i for i, word in enumerate(words) if re.match(r"mend-jax$|experiments\.", word)]
    return [word for word in words[ours[-1] :] if re.match(r"--[a-z]", word)]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LINES


def test_the_readmes_python_runs(real_base: Base, capsys: pytest.CaptureFixture[str]):
    """`real_base` is the same file, fetched by then."""
    del real_base
    names: dict[str, Any] = {}
    found = blocks(README, "python")
    assert found and all(len(block.splitlines()) <= 15 for block in found)
    for block in found:
        exec(compile(block, str(README), "exec"), names)
    assert float(names["after"]) < float(names["before"])
    printed = re.search(r"loss ([\d.]+), edited ([\d.]+), merged ([\d.]+)", capsys.readouterr().out)
    said = re.search(r"`loss ([\d.]+), edited ([\d.]+), merged ([\d.]+)`", README.read_text())
    assert printed and said
    assert [*map(float, printed.groups())] == pytest.approx([*map(float, said.groups())], abs=0.1)


def test_the_ideas_python_runs(real_base: Base):
    """Everything that it names is built: a name that is gone, or another signature, is an error."""
    del real_base
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs/ideas.md", "python"):
        exec(compile(block, "docs/ideas.md", "exec"), names)
    assert names["sites"] and callable(names["step"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_is_long(page: Path):
    found = list(commands(page))
    assert found or page.name in ("ideas.md", "models.md")
    assert [line for line in found if len(options(line)) > OPTIONS] == []


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    names = set(NAMED.findall(text))
    script = {name.split(" ")[0] for name in console.names()}
    there = script | {file.stem for file in (ROOT / "experiments").glob("*.py")}
    assert sorted(names - there) == []
    assert sorted(set(re.findall(r"mend-jax +([a-z][a-z0-9_]*)", text)) - script) == []


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    lost = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    assert lost == []


def test_the_example_of_an_editor_is_the_tested_one():
    tested = ast.parse((ROOT / "tests/editors/test_registry.py").read_text(encoding="utf-8"))
    own = next(
        ast.literal_eval(line.value)
        for line in tested.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "OWN"
    )
    assert own in blocks(ROOT / "CONTRIBUTING.md", "python")
