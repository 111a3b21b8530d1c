"""A child process of test_trunk_stream.py: loads a tail, streams its trunk, and prints what that
took, in bytes of memory.

    python stream_and_tell.py FOLDER BLOCKS WARM_UP_FOLDER BLOCKS

Growth is that of all memory that is no other file's: anonymous, and pages of the weights.
"""

import sys
import threading
from pathlib import Path

import jax
import numpy as np

import mend_jax as mj
from mend_jax.data.trunk_stream import plan_stream, stream_trunk

TEXTS = [np.arange(i, i + 8, dtype=np.int32) for i in range(300)]


def resident() -> int:
    """Bytes of the resident set."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def streamed(folder: str, blocks: str) -> mj.Base:
    """The tail, once the states of all texts below the last block were made."""
    sites = f"layers_{int(blocks) - 1}/mlp/up_proj"
    base = mj.load(folder, parts="tail", sites=sites)
    trunk, _ = mj.split(base.model, sites)
    stream_trunk(base, trunk, plan_stream(base, trunk, TEXTS))
    return base


warm = streamed(*sys.argv[3:])  # threads, allocator, compiler
warm = None
before = peak = resident()
done = threading.Event()


def watch() -> None:
    """Notes the peak every millisecond; what could raise it runs without the GIL."""
    global peak
    while not done.wait(0.001):
        peak = max(peak, resident())


watcher = threading.Thread(target=watch)
watcher.start()
base = streamed(*sys.argv[1:3])
done.set()
watcher.join()
block = sum(x.nbytes for x in jax.tree.leaves(base.params[f"layers_{int(sys.argv[2]) - 1}"]))
print(peak - before, sum(x.nbytes for x in jax.tree.leaves(base.params)), block)
