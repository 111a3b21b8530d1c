"""Imports run down only: one list of floors, from the ground up, and no circle between modules."""

import re
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

FLOORS = """
factors | example | parallel | peak | products | programs | typed
passes | sites | links | files | option_types | scopes
nnx_layers | option_checks
calls
intercept
weights
models
routed
objectives
editors | data
training | evaluation | saved
cost | reports | store
runs | opened | exports
mend_jax
commands
experiments | __main__
"""
"""From the ground up. A room imports from the floors below it, never from beside it or above it;
`mend_jax` is the package's own `__init__`, the public names. So editors know no data, and models,
weights, data and parallel know no editors."""

TESTS = Path(__file__).parent


def floors() -> dict[str, int]:
    """Every room and the number of its floor."""
    lines = FLOORS.strip().splitlines()
    return {room: i for i, line in enumerate(lines) for room in line.split(" | ")}


def room(module: str) -> str:
    """`mend_jax.models.t5` is in `models`; all of `experiments` is one room."""
    package, *inner = module.split(".")
    return inner[0] if package == "mend_jax" and inner else package


def upward(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """The imports that do not run down, one line each."""
    floor = floors()
    return [
        f"{importer} ({room(importer)}) imports {imported} ({room(imported)})"
        for importer, all_imported in sorted(imports.items())
        for imported in sorted(all_imported)
        if room(importer) != room(imported) and floor[room(importer)] <= floor[room(imported)]
    ]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Modules and what each imports, inside functions too; foreign ones by their package."""
    graph = grimp.build_graph(
        "mend_jax", "experiments", include_external_packages=True, cache_dir=None
    )
    ours = (module for module in graph.modules if room(module) in floors() or "." in module)
    return {module: graph.find_modules_directly_imported_by(module) for module in ours}


@pytest.fixture(scope="module")
def inner(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same, without foreign ones."""
    return {module: found & imports.keys() for module, found in imports.items()}


def test_every_room_has_a_floor(inner: dict[str, set[str]]):
    assert {room(module) for module in inner} == set(floors())


def test_imports_run_down(inner: dict[str, set[str]]):
    if found := upward(inner):
        pytest.fail("\n".join(["imports that do not run down:", *found]), pytrace=False)


def test_no_circle_between_modules(inner: dict[str, set[str]]):
    """Also inside a room. The error shows the circle."""
    TopologicalSorter(inner).prepare()


def test_the_package_knows_no_tests(imports: dict[str, set[str]]):
    """Neither the folder, nor its support modules, nor what only tests install."""
    tests = {"tests", "conftest", "pytest", "chex", "beartype", "grimp"}
    tests |= {path.stem for path in TESTS.rglob("*.py")}
    assert not {f"{m} imports {x}" for m, found in imports.items() for x in found & tests}


def test_an_import_that_runs_up_is_found():
    up = {"mend_jax.links.rate": {"mend_jax.editors.base", "mend_jax.factors"}}
    beside = {"mend_jax.editors.ke": {"mend_jax.data.codec", "mend_jax.editors.base"}}
    assert upward(up) == ["mend_jax.links.rate (links) imports mend_jax.editors.base (editors)"]
    assert len(upward(beside)) == 1 and re.match(r".*ke \(editors\) imports .*", *upward(beside))
