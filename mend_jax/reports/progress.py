"""A progress bar with rate and time left for the three parts of a run."""

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Shows caching, training and scoring as they go. Use as a context manager."""

    def __init__(self, steps: int, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            disable=not shown,
        )
        self._steps = steps
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Reporter":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def restart(self, steps: int) -> None:
        """For the next editor: bars of its own, and so many training steps."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks, self._steps = {}, steps

    def cached(self, done: int, total: int) -> None:
        """Tokens that have been through the trunk."""
        self._update("caching the frozen layers", done, total, "")

    def calibrated(self, done: int, total: int) -> None:
        """Batches counted into the statistics."""
        self._update("gathering statistics", done, total, "")

    def step(self, number: int, row: dict[str, float]) -> None:
        """A training step, with its metrics when they were logged."""
        note = ""
        if "loss" in row:
            note = f"edit {row['edit_loss']:.3f}  locality {row['locality_loss']:.4f}"
        self._update("training the editor", number, self._steps, note)

    def scored(self, done: int, total: int) -> None:
        """Held-out edits that have been scored."""
        self._update("scoring held-out edits", done, total, "")

    def interviewed(self, done: int, total: int) -> None:
        """Held-out edits that have been asked in the model's own words."""
        self._update("letting the model speak", done, total, "")

    def _update(self, name: str, done: int, total: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, rate="", note="")
        (task,) = (t for t in self._progress.tasks if t.id == self._tasks[name])
        speed = f"{task.speed:.1f}/s" if task.speed else ""
        note = note or task.fields["note"]
        self._progress.update(task.id, completed=done, rate=speed, note=note)
