"""What `import mend_jax` offers, name by name as the source spells it: nothing changes unsaid.

    python tests/test_public_names.py

writes the snapshot anew; the commit that does so says what changed and why.
"""

import ast
import difflib
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest

import mend_jax as mj

SNAPSHOT = Path(__file__).with_name("public_names.txt")


def signature(node: ast.FunctionDef) -> str:
    """Name, parameters, defaults and what is returned; of a property no parentheses."""
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return node.name + returned
    return f"{node.name}({ast.unparse(node.args)}){returned}"


def spelled(name: str, value: Any) -> list[str]:
    """A function's signature; or a class with its fields and public methods, one a line."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return [f"{name}: {value!r}"]
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body
    if isinstance(node, ast.FunctionDef):
        return [signature(node)]
    assert isinstance(node, ast.ClassDef)
    lines = [f"class {name}({', '.join(map(ast.unparse, node.bases))})"]
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign):
            lines.append("    " + ast.unparse(inner))
        elif isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
            lines.append(f"    .{signature(inner)}")
    return lines


def public_names() -> str:
    """All public names."""
    lines = [line for name in sorted(mj.__all__) for line in spelled(name, getattr(mj, name))]
    wrap = textwrap.TextWrapper(100, subsequent_indent=" " * 8, break_long_words=False)
    wrap.break_on_hyphens = False
    return "\n".join(part for line in lines for part in wrap.wrap(line)) + "\n"


def test_public_names_are_those_of_the_snapshot():
    written, found = SNAPSHOT.read_text(), public_names()
    if found != written:
        changes = difflib.unified_diff(written.splitlines(), found.splitlines(), "was", "is", n=0)
        head = "public names changed; if they should: python tests/test_public_names.py"
        pytest.fail("\n".join([head, *changes]), pytrace=False)


if __name__ == "__main__":
    SNAPSHOT.write_text(public_names())
