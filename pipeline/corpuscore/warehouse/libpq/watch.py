"""What the server makes of a call that lasts, asked on another connection.

| the server says | it is |
|---|---|
| the transaction runs | told now and then |
| the transaction waits for a lock | the server's lock_timeout to end; whose lock it is goes into the message |
| the transaction waits for its client, or has ended | lost, if it says so twice: request or answer never arrived |
| nothing, on any connection | unavailable, after a while |
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import adbc_driver_manager
import adbc_driver_postgresql.dbapi

from corpuscore.errors import WarehouseUnavailable
from corpuscore.warehouse.libpq.address import Address
from corpuscore.warehouse.libpq.refusals import has_answered
from corpuscore.warehouse.limits import Limits
from corpuscore.warehouse.watching import within

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_WORDS = 60.0
_LONGEST_CALL_SECONDS = 12 * 3600.0
_SHORTEST_LOOK_SECONDS = 5.0

# A transaction is known by its backend and its start: nothing else has both, whoever pools the connections between.
_OURS = "FROM pg_stat_activity AS ours WHERE pid = $1 AND extract(epoch FROM xact_start)::text = $2"
_STATE = f"""
    SELECT state, (
        SELECT string_agg(
            concat(
                'session ', pid, ' (', coalesce(nullif(application_name, ''), 'unnamed'), ' of ', usename,
                ', ' || state, to_char(xact_start, '", since" HH24:MI:SS TZ'), ')'
            ), ', ')
        FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(ours.pid))
    ) {_OURS}
"""
#: Ends the transaction of a backend ($1) that began at a time ($2).
END = f"SELECT pg_terminate_backend(pid) {_OURS}"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as the server knows it: its backend, and when it began."""

    pid: int
    began: str


@dataclass(slots=True)
class Progress:
    """How far rows are that are being copied: batches that were read, and whether one is being read now."""

    batches: int = 0
    is_reading: bool = False


class Watch:
    """Looks at one call, again and again.

    Args:
        address, limits: Of the session.
        transaction: The one that the call is in; None: not begun yet.
        progress: Of the rows that the call sends.

    Attributes:
        blockers: Who held the lock that the call waited for when it was looked at last, in words.
    """

    def __init__(self, address: Address, limits: Limits, transaction: Transaction | None, progress: Progress) -> None:
        self.blockers = ""
        self._progress, self._batches = progress, progress.batches
        self._address, self._limits, self._transaction = address, limits, transaction
        self._answered, self._told = time.monotonic(), 0.0
        self._looks_lost = 0

    def __call__(self, seconds: float) -> None:
        """Look at the call.

        Raises:
            WarehouseUnavailable: It is not to be waited for any longer.
        """
        state = self._ask()
        now = time.monotonic()
        if state is not None:
            self._answered = now
        elif now - self._answered > self._limits.silence:
            raise self._given_up(f"the server has answered nothing for {now - self._answered:,.0f} s, on no connection")
        if seconds > _LONGEST_CALL_SECONDS or (self._transaction is None and seconds > self._limits.silence):
            raise self._given_up(f"no answer for {seconds:,.0f} s")
        self._looks_lost = self._looks_lost + 1 if state in ("ended", "idle") and not self._has_moved() else 0
        if self._looks_lost > 1:
            raise self._given_up("the connection was lost on the way: the server waits, and so did this end")
        if seconds - self._told >= _SECONDS_BETWEEN_WORDS:
            self._told = seconds
            self._tell(state, seconds)

    def _has_moved(self) -> bool:
        """Whether rows are on their way: read by us, or sent, be it to a server that has refused those before."""
        before, self._batches = self._batches, self._progress.batches
        return self._progress.is_reading or self._batches != before

    def _tell(self, state: str | None, seconds: float) -> None:
        what = {None: "answers nothing", "": "answers, and says nothing of it"}.get(state, f"says that it is {state}")
        log.warning("warehouse: %s: a statement lasts for %.0f s; the server %s", self._address.shown, seconds, what)

    def _given_up(self, value: str) -> WarehouseUnavailable:
        return WarehouseUnavailable(
            f"{self._address.shown}: {value}",
            next_step="check the server and the network to it: one that was stopped keeps its connections; then rerun",
        )

    def _ask(self) -> str | None:
        """The state of the transaction; empty where the server tells nothing of it, None where it does not answer."""
        try:
            return within(max(_SHORTEST_LOOK_SECONDS, self._limits.look), self._state)
        except TimeoutError:
            return None
        except adbc_driver_manager.Error as error:
            return "" if has_answered(error, self._address) else None

    def _state(self) -> str:
        transaction = self._transaction
        with adbc_driver_postgresql.dbapi.connect(self._address.url) as connection, connection.cursor() as cursor:
            if transaction is None:
                return ""
            cursor.execute(_STATE, (transaction.pid, transaction.began))
            found = cursor.fetchone()
            if found is None:
                return "ended"
            self.blockers = found[1] or ""
            return "idle" if str(found[0]).startswith("idle") else str(found[0])
