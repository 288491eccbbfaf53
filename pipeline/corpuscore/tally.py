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
        rows, rejected: Documents, of which rejects.
        rows_per_second: Since it began.
        eta_seconds: Until the last partition, None before the first is done.
        waiting_seconds: For how long nobody has been there to go on; None while somebody is.
        waiting_for: Who is away, in words.
    """

    done: int
    total: int
    rows: int
    rejected: int
    rows_per_second: float
    eta_seconds: float | None
    waiting_seconds: float | None = None
    waiting_for: str = "no worker"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


ProgressCallback = Callable[[Progress], None]


class Tally:
    """Counts receipts and tells progress.

    Args:
        total: Partitions.
        progress: Called a few times a second at the most, and at the end.

    Attributes:
        receipts: In the order in which they came.
    """

    def __init__(self, total: int, progress: ProgressCallback | None = None) -> None:
        self.receipts: list[Receipt] = []
        self._total = total
        self._progress = progress
        self._rows = self._rejected = 0
        self._started = time.monotonic()
        self._reported = 0.0

    def add(self, receipt: Receipt) -> None:
        """Count a partition that has ended."""
        self.receipts.append(receipt)
        self._rows += receipt.rows
        self._rejected += receipt.rejected
        self.report_now_and_then()

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
        done = len(self.receipts)
        return Progress(
            done=done,
            total=self._total,
            rows=self._rows,
            rejected=self._rejected,
            rows_per_second=self._rows / seconds,
            eta_seconds=seconds / done * (self._total - done) if done else None,
            waiting_seconds=waiting_seconds,
            waiting_for=waiting_for,
        )
