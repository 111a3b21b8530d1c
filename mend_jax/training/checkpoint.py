"""Checkpoints of a training run, through Orbax: written whole or not at all.

A checkpoint holds all that the rest of a run depends on: the train state (editor, statistics,
optimiser, step; the data position and all random numbers are functions of the seed and the step),
the best editor so far with its bookkeeping, and the rows of metrics.jsonl up to there, which is
written anew from them. Two are kept, so that one that was damaged leaves one to go back to.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jaxtyping import Array, Float, Int

from mend_jax.editors.base import EditorState
from mend_jax.training.state import TrainState

WRITTEN = 2
"""GB that are written at once: so much memory a checkpoint takes beside what it writes."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; says which is the last good one."""


class Progress(NamedTuple):
    """A run at a step: where it is, and the best it has had.

    best: None before the first look at the development slice. best_loss: lowest loss there.
    best_step: where it was.
    """

    train: TrainState
    best: EditorState | None
    best_loss: Float[Array, ""]
    best_step: Int[Array, ""]


Row = dict[str, float]
"""Of metrics.jsonl."""


class Kept(NamedTuple):
    """What a checkpoint held."""

    progress: Progress
    rows: list[Row]


class Checkpoints:
    """The checkpoints in a directory. Use as a context manager."""

    def __init__(self, directory: str | Path) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        arrays = ocp.StandardCheckpointHandler(save_concurrent_gb=WRITTEN)
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        registry.add("progress", ocp.args.StandardSave, arrays)
        registry.add("progress", ocp.args.StandardRestore, arrays)
        self._manager = ocp.CheckpointManager(
            Path(directory).resolve(), options=options, handler_registry=registry
        )
        self.directory = Path(directory)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, progress: Progress, rows: Sequence[Row] = ()) -> None:
        """Writes a checkpoint; the ones before stay until it is whole.

        Raises:
          CheckpointError: it could not be written (disk full, say).
        """
        step = int(progress.train.step)
        if step in self.steps():
            return
        try:
            text = json.dumps(list(rows))
            written = {"rows": text, "crc32": zlib.crc32(text.encode())}
            written["best"] = progress.best is not None
            parts = ocp.args.Composite(
                progress=ocp.args.StandardSave(progress), metrics=ocp.args.JsonSave(written)
            )
            self._manager.save(step, args=parts)
            self._manager.wait_until_finished()
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.directory} "
                f"({_first_line(error)}); {self._last_good(step)}"
            ) from error

    def restore(self, like: Progress, say: Callable[[str], None] = lambda message: None) -> Kept:
        """The newest checkpoint that can be read; those that cannot are said and passed over.

        Args:
          like: a fresh run of the same shapes.
          say: gets one message for each checkpoint that was passed over.

        Raises:
          CheckpointError: there is none, or none can be read.
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(
                f"there is no checkpoint in {self.directory} to resume from"
            )
        damaged = []
        for step in reversed(steps):
            try:
                written = self._part(step, metrics=ocp.args.JsonRestore()).metrics
                rows = _rows(written)
                held = like
                if written.get("best", True):  # one that does not say has it
                    held = like._replace(best=like.train.editor)
                shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, held)
                restored = self._part(step, progress=ocp.args.StandardRestore(shapes)).progress
            except Exception as error:
                say(
                    f"the checkpoint of step {step} cannot be read ({_first_line(error)}): "
                    "going back to the one before"
                )
                damaged.append(step)
                continue
            for step in damaged:  # only now: if all fail alike, it is not the files' fault
                self._manager.delete(step)
            leaves = jax.tree.leaves(restored)
            return Kept(jax.tree.unflatten(jax.tree.structure(held), leaves), rows)
        raise CheckpointError(
            f"none of the checkpoints in {self.directory} can be read: {steps}. To begin the run "
            "anew, delete that directory"
        )

    def _part(self, step: int, **part: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**part))

    def _last_good(self, failed: int) -> str:
        good = [step for step in self.steps() if step != failed]
        return f"the last good one is step {good[-1]}" if good else "there is none before it"


def has_checkpoint(directory: str | Path) -> bool:
    """Whether a run that is kept there can go on from anywhere but its start."""
    with Checkpoints(directory) as found:
        return bool(found.steps())


def _rows(written: Any) -> list[Row]:
    """The rows of metrics.jsonl.

    Raises:
      ValueError, KeyError, TypeError: they are not as they were written.
    """
    if zlib.crc32(written["rows"].encode()) != written["crc32"]:
        raise ValueError("the rows of metrics.jsonl were changed")
    rows: list[Row] = json.loads(written["rows"])
    return rows


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
