"""A child process of test_streaming.py: loads a base and prints what that took, in bytes.

    python load_and_tell.py FOLDER WARM_UP_FOLDER DTYPE

Growth is that of anonymous memory (RssAnon): mapped pages of the files are the kernel's to drop.
"""

import sys
import threading
from pathlib import Path

import jax

import mend_jax as mj

folder, warm_up, dtype = sys.argv[1:]


def anonymous() -> int:
    """Bytes of memory that belong to this process alone and are no file's pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


warm = mj.load(warm_up, dtype=dtype)  # threads, allocator, compiler
before = peak = anonymous()
done = threading.Event()


def watch() -> None:
    """Notes the peak every millisecond; the copies that could raise it run without the GIL."""
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())


watcher = threading.Thread(target=watch)
watcher.start()
base = mj.load(folder, dtype=dtype)
done.set()
watcher.join()
print(peak - before, sum(x.nbytes for x in jax.tree.leaves(base.params)))
