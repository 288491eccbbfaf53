"""What a worker shows of its work with each heartbeat: rows scored, and for how long a partition has stood still."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from corpuscore.scoring.scorer import Meter

#: Names of the worker's metrics, as `scheduler.identity` has them.
ROWS_SCORED = "rows_scored"
IN_WORK = "in_work"


@dataclass(slots=True)
class _InWork:
    """One partition in work, and when its figures changed last."""

    meter: Meter
    seen: tuple[object, ...] = ()
    changed: float = field(default_factory=time.monotonic)

    def shown(self) -> tuple[float, bool, int]:
        """(seconds since a figure changed, whether it has begun: until then its model is loaded, documents done).

        Rows come out of the engine many at a time, so what has been through the model counts as well.
        """
        figures = (self.meter.tokens, self.meter.unique_texts, dict(self.meter.busy))
        if figures != self.seen:
            self.seen, self.changed = figures, time.monotonic()
        return time.monotonic() - self.changed, bool(self.meter.busy), max(self.meter.rows, self.meter.unique_texts)


class Figures:
    """What one worker shows.

    Attributes:
        rows: Scored so far.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._in_work: dict[str, _InWork] = {}

    def in_work(self) -> dict[str, tuple[float, bool, int]]:
        """For each task: seconds without progress, whether reading has begun, and documents that are done."""
        return {task: work.shown() for task, work in list(self._in_work.items())}

    @contextmanager
    def working(self, task: str) -> Iterator[Meter]:
        """Show a task while the block runs; the meter that it fills says that it goes on."""
        work = self._in_work[task] = _InWork(Meter())
        try:
            yield work.meter
        finally:
            if self._in_work.get(task) is work:
                del self._in_work[task]


_figures: WeakKeyDictionary[Worker, Figures] = WeakKeyDictionary()
_making = threading.Lock()


def figures_of(worker: Worker) -> Figures:
    """The figures of a worker of this process; they outlast the plugin that shows them."""
    with _making:
        return _figures.setdefault(worker, Figures())


class WorkShown(WorkerPlugin):
    """Gives a worker the metrics `rows_scored`, a number, and `in_work`, by task; a restarted worker has it again."""

    name = "corpuscore"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Show the figures with each heartbeat."""
        figures = figures_of(worker)
        worker.metrics[ROWS_SCORED] = lambda _: figures.rows
        worker.metrics[IN_WORK] = lambda _: figures.in_work()
