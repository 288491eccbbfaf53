"""One policy for a warehouse that is down, restarting, locked or cut off: every call is tried again, and that is told.

    open_warehouse -> RetryingWarehouse -> a backend's warehouse

A call is one transaction, so each try begins at the beginning. One whose COMMIT was carried out although its answer was
lost finds in the ledger what it has done.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import pyarrow as pa

from corpuscore.errors import WarehouseUnavailable
from corpuscore.patience import WAREHOUSE
from corpuscore.warehouse.protocol import Counts, LoadBatch, LoadSummary, RunRow, Summary, Warehouse
from corpuscore.warehouse.versions import LoadedObject

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_SECONDS_BETWEEN_WORDS = 30.0


class RetryingWarehouse:
    """A Warehouse that is tried again while it is unavailable; nothing else is.

    Args:
        connect: Opens the backend's warehouse, which reconnects by itself once it is open.
        patience_seconds: How long a call is tried again, from its first failure.

    Raises:
        WarehouseError: It refuses.
        WarehouseUnavailable: It could not be opened in time.
    """

    def __init__(self, connect: Callable[[], Warehouse], patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self.inner = self._try("open", connect)

    def __repr__(self) -> str:
        return repr(self.inner)

    def _try(self, name: str, call: Callable[[], _T]) -> _T:
        outage = _Outage(name, self._patience_seconds)
        while True:
            try:
                return call()
            except WarehouseUnavailable as error:
                time.sleep(outage.pause(error))

    def prepare(self, labels: Sequence[str], kept: pa.Schema) -> None:
        """See Warehouse."""
        self._try("prepare", lambda: self.inner.prepare(labels, kept))

    def check(self, labels: Sequence[str], kept_names: Sequence[str]) -> None:
        """See Warehouse."""
        self._try("check", lambda: self.inner.check(labels, kept_names))

    def load(self, batch: LoadBatch) -> LoadSummary:
        """See Warehouse."""
        return self._try("load", lambda: self.inner.load(batch))

    def remove(self, run_id: str, model: str, uris: Sequence[str], planned_at: datetime) -> int:
        """See Warehouse."""
        return self._try("remove", lambda: self.inner.remove(run_id, model, uris, planned_at))

    def ledger(self, model: str, uris: Sequence[str] | None = None) -> dict[str, str]:
        """See Warehouse."""
        return self._try("ledger", lambda: self.inner.ledger(model, uris))

    def objects(self, model: str, uris: Sequence[str] | None = None) -> dict[str, LoadedObject]:
        """See Warehouse."""
        return self._try("ledger", lambda: self.inner.objects(model, uris))

    def count(self, work_ids: Sequence[str]) -> Counts:
        """See Warehouse."""
        return self._try("count", lambda: self.inner.count(work_ids))

    def summary(
        self,
        labels: Sequence[str],
        *,
        model: str | None = None,
        work_ids: Sequence[str] | None = None,
        strongest: Sequence[str] | None = None,
        top: int = 1,
    ) -> Summary:
        """See Warehouse."""
        return self._try(
            "summary",
            lambda: self.inner.summary(labels, model=model, work_ids=work_ids, strongest=strongest, top=top),
        )

    def record_run(self, row: RunRow) -> None:
        """See Warehouse."""
        self._try("record run", lambda: self.inner.record_run(row))

    def runs(self, model: str | None = None) -> list[RunRow]:
        """See Warehouse."""
        return self._try("runs", lambda: self.inner.runs(model))

    def changed_at(self, run_id: str) -> datetime | None:
        """See Warehouse."""
        return self._try("ledger", lambda: self.inner.changed_at(run_id))

    def close(self) -> None:
        """See Warehouse."""
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Outage:
    """What one call has been through: when it failed first, how often, and when that was last told."""

    def __init__(self, name: str, patience_seconds: float) -> None:
        self._name = name
        self._patience_seconds = patience_seconds
        self._tries = 0
        self._began = self._told = 0.0

    def pause(self, error: WarehouseUnavailable) -> float:
        """Seconds until the next try, after this one failed.

        Raises:
            WarehouseUnavailable: There is none.
        """
        now = time.monotonic()
        self._tries += 1
        self._began = self._began or now
        waited = now - self._began
        pause = _pause_seconds(self._tries)
        if waited + pause > self._patience_seconds:
            raise self._given_up(error, waited) from error
        if self._tries == 1 or now - self._told >= _SECONDS_BETWEEN_WORDS:
            self._told = now
            self._tell(error, waited)
        return pause

    def _tell(self, error: WarehouseUnavailable, waited: float) -> None:
        since, until = (
            time.strftime("%H:%M:%S", time.localtime(time.time() + at)) for at in (-waited, self._left(waited))
        )
        log.warning(
            "warehouse, %s: %s. It is tried again until %s (since %s)",
            self._name,
            error.value.rstrip("."),
            until,
            since,
        )

    def _left(self, waited: float) -> float:
        return self._patience_seconds - waited

    def _given_up(self, error: WarehouseUnavailable, waited: float) -> WarehouseUnavailable:
        rule = (
            f"Tried {self._tries} times in {waited:,.0f} s, of {self._patience_seconds:,.0f} s ({WAREHOUSE.variable})"
        )
        return type(error)(
            error.value, rule=". ".join(filter(None, (error.rule.rstrip("."), rule))), next_step=error.next_step
        )


def _pause_seconds(tries: int) -> float:
    """Twice as long after each try, up to a bound, and never the same for two writers that got in each other's way."""
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(tries, 20))
    return float(longest * random.uniform(0.5, 1.0))
