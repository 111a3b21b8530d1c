"""Asked to stop: on SIGTERM or SIGINT a training run ends at its next step, with a checkpoint.

Schedulers, preempted machines and Ctrl-C ask like this. Whatever else a command does ends at once.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from mend_jax.parallel import replicated

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 2.0
"""Seconds after which a second signal means: at once. Launchers pass one on twice, but sooner."""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop. Like Ctrl-C it is no `Exception`, which might be passed over.

    number: the signal's; a command ends with the exit code 128 + number.
    """

    def __init__(self, number: int, when: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{when and ' '}{when}")
        self.number = number


def at_once(number: int) -> None:
    """What a signal does outside of training.

    Raises:
      Stopped: always.
    """
    raise Stopped(number)


@contextlib.contextmanager
def on_signals(action: Callable[[int], None]) -> Iterator[None]:
    """Calls `action(number)` on SIGTERM and SIGINT, instead of what was done before.

    A signal that was ignored stays so, and only the main thread can choose: elsewhere, nothing.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, lambda number, frame: action(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Inside, a signal is only noted: `asked()` gives its number, or 0, once a step.

    Of several processes, all are told the same at the same step, whichever of them got the signal;
    so all have to ask at every step.
    """
    noted: list[tuple[int, float]] = []

    def note(number: int) -> None:
        if noted and time.monotonic() - noted[0][1] > AGAIN:
            at_once(number)
        noted.append((number, time.monotonic()))

    def own() -> int:
        return noted[0][0] if noted else 0

    with on_signals(note):
        yield own if jax.process_count() == 1 else _of_all(own)


def _of_all(own: Callable[[], int]) -> Callable[[], int]:
    """The greatest answer of all processes at the step before: it is there without waiting."""
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    over = NamedSharding(mesh, PartitionSpec("devices"))
    greatest = jax.jit(jnp.max, out_shardings=replicated(mesh))
    asked: list[Int[Array, ""]] = []

    def ask() -> int:
        here = np.full(jax.local_device_count(), own(), np.int32)
        asked.append(greatest(jax.make_array_from_process_local_data(over, here)))
        return int(asked.pop(0)) if len(asked) > 1 else 0

    return ask
