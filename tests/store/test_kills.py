"""What was acknowledged is there, whole and once, however its writers end; see `store_writers`."""

from pathlib import Path

from tiny_run import ROOT, start


def test_what_was_acknowledged_survives_kills(tmp_path: Path):
    script = ROOT / "tests/support/store_writers.py"
    child = start(tmp_path, script, tmp_path, 3, 0)
    out, error = child.communicate()
    assert child.returncode == 0, out + error
    counts = [int(line.split()[2]) for line in out.splitlines()]
    assert len(counts) == 3 and all(counts), out
