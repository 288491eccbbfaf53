"""A connection to PostgreSQL on which nothing waits for ever, and nothing without a word.

A call of the driver can only be waited for. So each runs in a thread, and while it lasts the server is asked, on
another connection, what it makes of ours (see watch.py). Where it knows nothing of the call, or answers nobody, the
call is left behind with the connection.

A transaction that was left behind may be committed later. It holds the locks of its objects until then, and whoever
comes next finds in the ledger what it did. The next session ends it where the server still has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import pyarrow as pa

from corpuscore.errors import WarehouseUnavailable
from corpuscore.warehouse.libpq.address import Address
from corpuscore.warehouse.libpq.refusals import connecting_error
from corpuscore.warehouse.libpq.watch import END, Progress, Transaction, Watch
from corpuscore.warehouse.limits import Limits
from corpuscore.warehouse.names import TableName
from corpuscore.warehouse.watching import watched, within

_T = TypeVar("_T")

_CLOSING_SECONDS = 10.0

_BEGIN = "SELECT pg_backend_pid(), extract(epoch FROM now())::text, set_config('lock_timeout', $1, true)"


class Session:
    """A connection that is open.

    Attributes:
        running: The transaction that was begun last; None where it was committed, or none was begun.
        blockers: Who held the lock that its statement waited for, in words; empty where none did.
        statement: What was sent last; an INSERT for rows that were copied.

    Raises:
        WarehouseError: The server refuses the login.
        WarehouseUnavailable: No server answers.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address, self._limits = address, limits
        self.running: Transaction | None = None
        self.blockers = self.statement = ""
        self._progress = Progress()
        self._connection: Any = None
        try:
            self._connection = self._connected()
        except adbc_driver_manager.Error as error:
            # `from None`: the driver's message may hold the password.
            raise connecting_error(error, address) from None

    def _connected(self) -> Any:
        made: list[Any] = []
        most = self._address.connect_seconds + self._limits.silence  # libpq's own limit ends before the login does

        def look(seconds: float) -> None:
            if seconds > most:
                raise WarehouseUnavailable(
                    f"{self._address.shown}: the server took the connection, and did not answer for {seconds:,.0f} s",
                    next_step="check that the server runs: one that was stopped still takes connections; then rerun",
                )

        def connect() -> Any:
            made.append(adbc_driver_postgresql.dbapi.connect(self._address.url))
            return made[0]

        def let_go() -> None:
            for connection in made:
                _close(connection)

        return watched(connect, look, self._limits.look, lambda: let_go)

    def begin(self) -> None:
        """Begin a transaction, whose statements wait for a lock no longer than the limit."""
        [(pid, began, _)] = self.query(_BEGIN, str(int(self._limits.lock * 1000)))
        self.running, self.blockers = Transaction(pid, began), ""

    def execute(self, sql: str, *values: Any) -> int:
        """Run a statement; rows affected."""
        self.statement = sql

        def call(cursor: Any) -> int:
            if values:
                # executemany is ADBC's only way to a row count for a statement with values.
                cursor.executemany(sql, _bound(values))
            else:
                cursor.execute(sql)
            return int(cursor.rowcount)

        return self._with_cursor(call)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        self.statement = sql

        def call(cursor: Any) -> list[tuple[Any, ...]]:
            cursor.execute(sql, _bound(values) if values else None)
            return list(cursor.fetchall())

        return self._with_cursor(call)

    def append(self, table: TableName, rows: pa.RecordBatchReader) -> int:
        """Copy rows into a table; rows copied."""
        self.statement = "INSERT"
        reader = pa.RecordBatchReader.from_batches(rows.schema, self._read(rows))
        return self._with_cursor(
            lambda cursor: int(cursor.adbc_ingest(table.name, reader, mode="append", db_schema_name=table.schema))
        )

    def _read(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The batches, with a note of when it is they, and not the server, that the driver waits for."""
        self._progress.is_reading = True
        for batch in rows:
            self._progress.batches += 1
            self._progress.is_reading = False
            yield batch
            self._progress.is_reading = True
        self._progress.is_reading = False

    def commit(self) -> None:
        """Commit what was begun."""
        self._watched(lambda connection: connection.commit())
        self.running = None

    def end(self, lost: Transaction) -> None:
        """End a transaction of an earlier session, where the server still has it."""
        self.query(END, lost.pid, lost.began)
        self.commit()

    def close(self) -> None:
        """Let go of the connection, within seconds."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(TimeoutError):  # closing rolls back, and a server that was stopped does not answer that
                within(_CLOSING_SECONDS, lambda: _close(connection))

    def _with_cursor(self, call: Callable[[Any], _T]) -> _T:
        def with_cursor(connection: Any) -> _T:
            with connection.cursor() as cursor:
                return call(cursor)

        return self._watched(with_cursor)

    def _watched(self, call: Callable[[Any], _T]) -> _T:
        connection = self._connection
        self._progress.is_reading = False
        watch = Watch(self._address, self._limits, self.running, self._progress)
        try:
            return watched(lambda: call(connection), watch, self._limits.look, self._leave)
        finally:
            self.blockers = watch.blockers

    def _leave(self) -> Callable[[], None]:
        connection, self._connection = self._connection, None
        return lambda: _close(connection)


def _close(connection: Any) -> None:
    with suppress(adbc_driver_manager.Error):  # A dead connection cannot even be rolled back.
        connection.close()


def _bound(values: tuple[Any, ...]) -> pa.RecordBatch:
    """Values of one execution as a row of Arrow; an empty list is one of texts."""
    arrays = [pa.array([value], pa.list_(pa.string())) if value == [] else pa.array([value]) for value in values]
    return pa.RecordBatch.from_arrays(arrays, names=[str(index) for index in range(len(arrays))])
