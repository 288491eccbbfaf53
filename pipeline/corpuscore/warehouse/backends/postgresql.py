"""PostgreSQL through ADBC: rows travel as Arrow, into binary COPY.

The URL and its environment are libpq's own: PGPASSWORD, a password file, `?sslmode=`, `?host=/socket/folder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.errors import WarehouseError
from corpuscore.options import TableOptions
from corpuscore.warehouse.libpq.address import Address
from corpuscore.warehouse.libpq.grants import check_grants, check_owner
from corpuscore.warehouse.libpq.refusals import translated
from corpuscore.warehouse.libpq.session import Session
from corpuscore.warehouse.libpq.watch import Transaction
from corpuscore.warehouse.limits import Limits
from corpuscore.warehouse.names import TableName
from corpuscore.warehouse.sql import SqlWarehouse
from corpuscore.warehouse.tables import NameRule

_TYPES = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.date32(): "date",
    pa.time64("us"): "time without time zone",
    pa.timestamp("us"): "timestamp without time zone",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
    pa.list_(pa.string()): "text[]",
}


def connect(url: str, table: str, options: TableOptions) -> PostgreSQLWarehouse:
    """Connect to the database of a libpq URL.

    Raises:
        WarehouseError: An unreadable URL, a refused login, no such database.
        WarehouseUnavailable: No server answers, or it is starting up or full.
    """
    return PostgreSQLWarehouse(Address(url), table, options)


class PostgreSQLWarehouse(SqlWarehouse):
    """Scores in a PostgreSQL database. A transaction that fails takes its connection along; the next one reconnects."""

    names: ClassVar[NameRule] = NameRule(max_bytes=63, max_columns=1600)
    # The index on work_id finds superseded rows. All rows of a work id are equal in it, so it stays small (it is
    # deduplicated) and a load writes to few of its pages.
    # Source: https://www.postgresql.org/docs/current/btree.html#BTREE-DEDUPLICATION
    # A URI can be longer than a B-tree's entry (2704 bytes); a hash index holds any.
    indexes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "scores": ("CREATE INDEX ON {table} (work_id)",),
        "rejects": ("CREATE INDEX ON {table} (work_id)",),
        "ledger": ("ALTER TABLE {table} ADD PRIMARY KEY (work_id)", "CREATE INDEX ON {table} USING hash (object_uri)"),
        "runs": ("ALTER TABLE {table} ADD PRIMARY KEY (run_id)",),
    }

    def __init__(self, address: Address, table: str, options: TableOptions) -> None:
        super().__init__(table, options)
        self._address, self._limits = address, Limits.configured()
        self._open: Session | None = None
        self._lost: Transaction | None = None
        if len(self.rejects.name) > 63:
            raise WarehouseError(f"Table name {self.scores.name} is too long", rule="55 characters at the most")
        self._session()

    def __repr__(self) -> str:
        return f"PostgreSQLWarehouse({self._address.shown}, {self.scores})"

    def _session(self) -> Session:
        if self._open is None:
            session = Session(self._address, self._limits)
            self._end_lost(session)
            self._open = session
        return self._open

    def _end_lost(self, session: Session) -> None:
        """End the transaction of the session before, whose end nobody has seen: it may still hold its locks."""
        try:
            if self._lost:
                session.end(self._lost)
        except adbc_driver_manager.Error as error:
            session.close()
            raise translated(error, self._address) from None
        except BaseException:
            session.close()
            raise
        self._lost = None

    def close(self) -> None:
        """See Warehouse."""
        session, self._open = self._open, None
        if session is not None:
            self._lost = session.running
            session.close()

    @contextmanager
    def transaction(self, lock: Sequence[str] = ()) -> Iterator[None]:
        """See SqlConnection. Read committed: each statement after the lock sees what was committed before it."""
        session = self._session()
        try:
            session.begin()
            if lock:
                self._lock(lock)
            yield
            session.commit()
        except adbc_driver_manager.Error as error:
            self.close()
            raise translated(error, self._address, session.blockers, session.statement) from None
        except BaseException:
            self.close()
            raise

    def check(self, labels: Sequence[str], kept_names: Sequence[str]) -> None:
        """See Warehouse. What the user may not do is told too."""
        super().check(labels, kept_names)
        tables = {
            "scores": self.scores,
            "rejects": self.rejects,
            "ledger": self.ledger_table,
            "runs": self.runs_table,
        }
        with self.transaction():
            check_grants(self.query, tables)
            found = self.columns(self.scores)
            if found and (added := [name for name in kept_names if name not in found]):
                check_owner(self.query, [self.scores, self.rejects], added)

    def execute(self, sql: str, *values: Any) -> int:
        """See SqlConnection."""
        return self._session().execute(sql, *values)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See SqlConnection."""
        return self._session().query(sql, *values)

    def append(self, table: TableName, rows: pa.RecordBatchReader) -> int:
        """See SqlConnection."""
        return self._session().append(table, pa.RecordBatchReader.from_batches(rows.schema, map(_without_nul, rows)))

    def columns(self, table: TableName) -> dict[str, str]:
        """See SqlConnection."""
        rows = self.query(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            table.sql,
        )
        return dict(rows)

    def comment(self, table: TableName, column: str) -> str:
        """See SqlConnection."""
        sql = (
            "SELECT coalesce(col_description(attrelid, attnum), '') FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attname = $2"
        )
        rows = self.query(sql, table.sql, column)
        return str(rows[0][0]) if rows else ""

    def has_schema(self, table: TableName) -> bool:
        """See SqlConnection."""
        sql = "SELECT to_regnamespace($1) IS NOT NULL"
        return table.schema is None or bool(self.query(sql, table.schema_sql)[0][0])

    def type_name(self, kind: pa.DataType) -> str:
        """See SqlConnection."""
        if pa.types.is_decimal(kind):
            return f"numeric({kind.precision},{kind.scale})"
        return _TYPES[kind]

    def _lock(self, keys: Sequence[str]) -> None:
        """Advisory locks, in one order for all writers so that none waits in a circle."""
        hashes = (hashlib.sha256(key.encode()).digest() for key in keys)
        numbers = sorted({int.from_bytes(hashed[:8], "big", signed=True) for hashed in hashes})
        self.query("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key", numbers)


def _without_nul(rows: pa.RecordBatch) -> pa.RecordBatch:
    """U+FFFD for U+0000, which PostgreSQL's text cannot hold."""
    columns = [
        pc.replace_substring(column, "\0", "\ufffd")
        if pa.types.is_string(column.type) and pc.any(pc.match_substring(column, "\0")).as_py()
        else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)
