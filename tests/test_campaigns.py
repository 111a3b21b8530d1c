"""Two minutes of the campaigns; each prints what it tried."""

import subprocess
import sys
from pathlib import Path


def test_nothing_breaks_the_law_in_two_minutes():
    """In a process of its own, which limits its memory."""
    command = [sys.executable, "-m", "tests.campaigns", "--minutes", "2", "--seed", "0"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    tried = [line for line in done.stdout.splitlines() if line.endswith("against the law")]
    assert {line.split()[0] for line in tried} == {"damage", "fuzz", "kills", "store"}
