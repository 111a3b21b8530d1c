"""The most memory that this process has held."""

import resource
from pathlib import Path

import jax


def reset_peak() -> None:
    """On Linux: the peak of resident memory starts anew. GPUs keep theirs."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass  # the peak since the start is reported instead


def peak_bytes() -> int:
    """Most memory held: of the GPU since the start; on CPU, resident memory since `reset_peak`."""
    stats = jax.local_devices()[0].memory_stats()
    if jax.default_backend() != "cpu" and stats:
        return int(stats["peak_bytes_in_use"])
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
