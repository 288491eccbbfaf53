"""What a run's scoring has brought so far, across lost schedulers: receipts, counts, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from corpuscore.records import Receipt

#: Progress is told this often at the most, however many partitions end meanwhile.
_REPORT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far scoring is.

    Attributes:
        done, total: Partitions.
        rows, rejected: Documents, of which rejects; also those that are done of partitions in work.
        rows_per_second: Since it began.
        eta_seconds: Until the last document; None before anything tells how long the rest may take.
        waiting_seconds: For how long nobody has been there to go on; None while somebody is.
        waiting_for: Who is away, in words.
        rows_total: Documents of all partitions; None where their number is known only when they were read.
        phase: What goes on while no document is done, in words.
    """

    done: int
    total: int
    rows: int
    rejected: int
    rows_per_second: float
    eta_seconds: float | None
    waiting_seconds: float | None = None
    waiting_for: str = "no worker"
    rows_total: int | None = None
    phase: str = ""

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1: of the documents where their number is known, else of the partitions."""
        return min(self.rows / self.rows_total, 1.0) if self.rows_total else self.done / max(self.total, 1)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


ProgressCallback = Callable[[Progress], None]


def starting(total: int) -> Progress:
    """How far scoring is before its workers are there."""
    return Progress(0, total, 0, 0, 0.0, None, phase="starting workers")


class Tally:
    """Counts receipts and tells progress.

    Args:
        total: Partitions.
        progress: Called a few times a second at the most, and at the end.
        rows: Documents of all of them, where that is known.

    Attributes:
        receipts: In the order in which they came.
    """

    def __init__(self, total: int, progress: ProgressCallback | None = None, rows: int | None = None) -> None:
        self.receipts: list[Receipt] = []
        self._total = total
        self._rows_total = rows
        self._in_work = 0
        self._phase = ""
        self._progress = progress
        self._rows = self._rejected = 0
        self._started = time.monotonic()
        self._reported = 0.0

    def add(self, receipt: Receipt) -> None:
        """Count a partition that has ended."""
        self.receipts.append(receipt)
        self._rows += receipt.rows
        self._rejected += receipt.rejected
        self._in_work = max(self._in_work - receipt.rows, 0)
        self.report_now_and_then()

    def in_work(self, rows: int, phase: str) -> None:
        """Take what is known of partitions in work: their documents that are done, and what goes on before any is."""
        self._in_work, self._phase = rows, phase

    def report_now_and_then(self, waiting_seconds: float | None = None, waiting_for: str = "no worker") -> None:
        """Tell how far it is, if it is time to."""
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self.report(waiting_seconds, waiting_for)

    def report(self, waiting_seconds: float | None = None, waiting_for: str = "no worker") -> None:
        """Tell how far it is."""
        self._reported = time.monotonic()
        if self._progress:
            self._progress(self.progress(waiting_seconds, waiting_for))

    def progress(self, waiting_seconds: float | None = None, waiting_for: str = "no worker") -> Progress:
        """How far it is now."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        done, rows = len(self.receipts), self._rows + self._in_work
        if self._rows_total is not None:
            rows = min(rows, self._rows_total)
        return Progress(
            done=done,
            total=self._total,
            rows=rows,
            rejected=self._rejected,
            rows_per_second=rows / seconds,
            eta_seconds=self._seconds_to_go(done, rows, seconds),
            waiting_seconds=waiting_seconds,
            waiting_for=waiting_for,
            rows_total=self._rows_total,
            phase="" if rows or done else self._phase,
        )

    def _seconds_to_go(self, done: int, rows: int, seconds: float) -> float | None:
        if not rows or (self._rows_total is None and not done):
            return None
        expected = self._rows_total or self._rows / done * self._total  # as many in the others as in those that ended
        return seconds / rows * max(expected - rows, 0.0)
