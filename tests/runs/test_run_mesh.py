"""A whole run, from options to results, on several devices and in two processes.

Run as a script it is one process of such a run: `python test_experiment_mesh.py OPTIONS.json`.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_run import Files, options, python_environment, start

from mend_jax.runs.run import run

pytest_plugins = ["finished_run"]

CHANGES: dict[str, Any] = {"batch": 4, "steps": 3, "calibrate": 2, "dev": 2}


def child(tmp_path: Path, files: Files, devices: int, **changes: Any) -> Any:
    """The run in a process of its own, with so many virtual devices."""
    name = "-".join(str(v) for v in changes.values())
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({"files": [str(f) for f in files], "changes": CHANGES | changes}))
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = python_environment(tmp_path) | {"XLA_FLAGS": flags}
    return start(tmp_path, __file__, path, env=environment)


def assert_same_run(out: Path, wanted: Path) -> None:
    """The same scores and, to 1e-2, the same editor: from U = 0, Adam magnifies rounding.

    test_parallel.py holds steps to 1e-5, from parameters that are not 0.
    """
    ours, theirs = (load_file(folder / "editor.safetensors") for folder in (out, wanted))
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        gap = np.max(np.abs(ours[name] - array), initial=0.0)
        assert gap <= 1e-2 * max(np.max(np.abs(array), initial=0.0), 1e-3), name
    metrics = (json.loads((f / "results.json").read_text())["metrics"] for f in (out, wanted))
    first, second = metrics
    assert set(first) == set(second)
    for name in second:
        value = second[name]["value"]
        off = 1e-2 if name.startswith("perplexity") else 1e-4  # those are in the thousands
        assert first[name]["value"] == pytest.approx(value, abs=off), name


@pytest.fixture(scope="module")
def single(tiny_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "out"
    run(options(tiny_files, out, **CHANGES), lambda message: None)
    return out


def test_devices_and_processes_change_no_result(
    tiny_files: Files, single: Path, tmp_path: Path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = {"mesh": "2x1", "address": address, "processes": 2}
    children = [
        child(tmp_path, tiny_files, 4, mesh="2x2", shard_editor=True, out="devices"),
        *(child(tmp_path, tiny_files, 1, **together, process_id=i, out="both") for i in (0, 1)),
    ]
    ends = [process.communicate(timeout=600) for process in children]
    for process, (_, error) in zip(children, ends, strict=True):
        assert process.returncode == 0, error
    assert "training" in ends[1][0] and "training" not in ends[2][0]  # only the first talks
    for name in ("devices", "both"):
        assert_same_run(tmp_path / name, single)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    changes = given["changes"]
    out = Path(sys.argv[1]).parent / changes.pop("out")
    run(options(Files(*map(Path, given["files"])), out, **changes))
