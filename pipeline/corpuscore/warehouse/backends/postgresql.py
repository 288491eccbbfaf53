"""PostgreSQL through ADBC: rows travel as Arrow, into binary COPY.

The URL and its environment are libpq's own: PGPASSWORD, a password file, `?sslmode=`, `?host=/socket/folder`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.addresses import is_readable, redacted, shown
from corpuscore.errors import CorpuscoreError, WarehouseError, WarehouseUnavailable
from corpuscore.warehouse.names import TableName
from corpuscore.warehouse.sql import SqlWarehouse
from corpuscore.warehouse.tables import NameRule

_CONNECT_TIMEOUT_SECONDS = 10

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
}


def connect(url: str, table: str) -> PostgreSQLWarehouse:
    """Connect to the database of a libpq URL.

    Raises:
        WarehouseError: An unreadable URL, a refused login, no such database.
        WarehouseUnavailable: No server answers, or it is starting up or full.
    """
    return PostgreSQLWarehouse(Address(url), table)


class Address:
    """Where a database is, with the password kept out of everything that is shown."""

    def __init__(self, url: str) -> None:
        if not is_readable(url):
            raise WarehouseError(
                "The PostgreSQL URL cannot be read (not shown, it may hold a password)",
                rule="postgresql://user@host:port/database, with / ? # @ : % of a password percent-encoded",
                next_step="leave the password out of the URL and set PGPASSWORD",
            )
        parts = urlsplit(shown(url))
        query = parse_qs(parts.query)
        user, at, host = parts.netloc.rpartition("@")
        self.shown = f"postgresql://{user}{at}{host or ''.join(query.get('host', []))}{parts.path}"
        bounded = "connect_timeout" in query or "PGCONNECT_TIMEOUT" in os.environ
        self.url = url if bounded else f"{url}{'&' if '?' in url else '?'}connect_timeout={_CONNECT_TIMEOUT_SECONDS}"

    def redacted(self, text: str) -> str:
        """The text without the password, whichever way it got in."""
        return redacted(text, self.url)

    def __repr__(self) -> str:
        return f"Address({self.shown})"


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

    def __init__(self, address: Address, table: str) -> None:
        super().__init__(table)
        self._address = address
        self._connection: Any = None
        if len(self.rejects.name) > 63:
            raise WarehouseError(f"Table name {self.scores.name} is too long", rule="55 characters at the most")
        self._connect()

    def __repr__(self) -> str:
        return f"PostgreSQLWarehouse({self._address.shown}, {self.scores})"

    def _connect(self) -> Any:
        if self._connection is None:
            try:
                self._connection = adbc_driver_postgresql.dbapi.connect(self._address.url)
            except adbc_driver_manager.Error as error:
                # `from None`: the driver's message may hold the password.
                raise connecting_error(error, self._address) from None
        return self._connection

    def close(self) -> None:
        """See Warehouse."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(adbc_driver_manager.Error):  # A dead connection cannot even be rolled back.
                connection.close()

    @contextmanager
    def transaction(self, lock: Sequence[str] = ()) -> Iterator[None]:
        """See SqlWarehouse. Read committed: each statement after the lock sees what was committed before it."""
        connection = self._connect()
        try:
            if lock:
                self._lock(lock)
            yield
            connection.commit()
        except adbc_driver_manager.Error as error:
            self.close()
            raise translated(error, self._address) from None
        except BaseException:
            self.close()
            raise

    def execute(self, sql: str, *values: Any) -> int:
        """See SqlWarehouse."""
        with self._connect().cursor() as cursor:
            if values:
                # executemany is ADBC's only way to a row count for a statement with values.
                cursor.executemany(sql, _bound(values))
            else:
                cursor.execute(sql)
            return int(cursor.rowcount)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See SqlWarehouse."""
        with self._connect().cursor() as cursor:
            cursor.execute(sql, _bound(values) if values else None)
            return list(cursor.fetchall())

    def append(self, table: TableName, rows: pa.RecordBatchReader) -> int:
        """See SqlWarehouse."""
        reader = pa.RecordBatchReader.from_batches(rows.schema, map(_without_nul, rows))
        with self._connect().cursor() as cursor:
            return int(cursor.adbc_ingest(table.name, reader, mode="append", db_schema_name=table.schema))

    def columns(self, table: TableName) -> dict[str, str]:
        """See SqlWarehouse."""
        rows = self.query(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            table.sql,
        )
        return dict(rows)

    def type_name(self, kind: pa.DataType) -> str:
        """See SqlWarehouse."""
        if pa.types.is_decimal(kind):
            return f"numeric({kind.precision},{kind.scale})"
        return _TYPES[kind]

    def _lock(self, keys: Sequence[str]) -> None:
        """Advisory locks, in one order for all writers so that none waits in a circle."""
        hashes = (hashlib.sha256(key.encode()).digest() for key in keys)
        numbers = sorted({int.from_bytes(hashed[:8], "big", signed=True) for hashed in hashes})
        self.query("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key", numbers)


def _bound(values: tuple[Any, ...]) -> pa.RecordBatch:
    """Values of one execution as a row of Arrow; an empty list is one of texts."""
    arrays = [pa.array([value], pa.list_(pa.string())) if value == [] else pa.array([value]) for value in values]
    return pa.RecordBatch.from_arrays(arrays, names=[str(index) for index in range(len(arrays))])


def _without_nul(rows: pa.RecordBatch) -> pa.RecordBatch:
    """U+FFFD for U+0000, which PostgreSQL's text cannot hold."""
    columns = [
        pc.replace_substring(column, "\0", "\ufffd")
        if pa.types.is_string(column.type) and pc.any(pc.match_substring(column, "\0")).as_py()
        else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


#: SQLSTATE (or its class, two characters) -> may it pass later, and what to do next.
#: Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
SQLSTATES: dict[str, tuple[bool, str]] = {
    "08": (True, "check that the server is up, then rerun"),
    "22": (False, "this is a defect of corpuscore or of the table: report it with this message"),
    "23": (False, "the table has a constraint or a trigger of its own: drop it, or give another --table"),
    "25006": (False, "connect to the primary: this database only reads"),
    "28": (False, "check the user and the password (PGPASSWORD), and the server's pg_hba.conf"),
    "3D000": (False, "check the database's name, or create it"),
    "3F000": (False, "create the schema (CREATE SCHEMA), or correct --table"),
    "40001": (True, "rerun: another transaction wrote at the same time"),
    "40P01": (True, "rerun: two transactions waited for each other"),
    "42501": (False, "grant this user CREATE on the schema and all on the tables"),
    "53100": (False, "the server's disk is full: free space on it"),
    "53200": (True, "the server is short of memory: rerun"),
    "53300": (True, "the server has too many connections: rerun when there are fewer"),
    "55P03": (True, "rerun: another transaction holds the lock"),
    "57014": (False, "raise statement_timeout for this user"),
    "57P01": (True, "the server is being restarted: rerun"),
    "57P02": (True, "the server is being restarted: rerun"),
    "57P03": (True, "the server is starting up: rerun"),
    "57P05": (True, "rerun: the server closed an idle connection"),
    "58": (False, "the server's disk fails: see its log"),
    "XX": (False, "see the server's log"),
}
_UNKNOWN_STATE = (False, "look the SQLSTATE up in PostgreSQL's documentation")


def translated(error: adbc_driver_manager.Error, address: Address) -> CorpuscoreError:
    """An error of a statement as one of ours, by SQLSTATE; without one, the connection was lost."""
    state = error.sqlstate
    if state is None and error.status_code == adbc_driver_manager.AdbcStatusCode.IO:
        transient, next_step = SQLSTATES["08"]
    else:
        transient, next_step = SQLSTATES.get(state or "", SQLSTATES.get((state or "")[:2], _UNKNOWN_STATE))
    kind = WarehouseUnavailable if transient else WarehouseError
    return kind(f"{address.shown}: {address.redacted(_one_line(error))}", next_step=next_step)


#: libpq gives no SQLSTATE for a connection that fails, only words: the server's (which may be in its own language; then
#: the failure counts as permanent) and strerror's. The first phrase that is found decides.
_REFUSALS: tuple[tuple[str, bool, str], ...] = (
    ("authentication failed", *SQLSTATES["28"]),
    ("no password supplied", *SQLSTATES["28"]),
    ("pg_hba.conf", *SQLSTATES["28"]),
    ("not permitted to log in", *SQLSTATES["28"]),
    ("role ", *SQLSTATES["28"]),
    ("database ", *SQLSTATES["3D000"]),
)
_OUTAGES = (
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "timeout expired",
    "No such file or directory",
    "No route to host",
    "Network is unreachable",
    "could not translate host name",
    "closed the connection unexpectedly",
    "starting up",
    "shutting down",
    "recovery mode",
    "too many clients",
    "connection slots",
)


def connecting_error(error: adbc_driver_manager.Error, address: Address) -> CorpuscoreError:
    """Why a connection could not be made, as one of ours."""
    text = _one_line(error)
    message = f"{address.shown}: {address.redacted(text)}"
    if any(phrase in text for phrase in _OUTAGES) and "authentication failed" not in text:
        return WarehouseUnavailable(message, next_step="check host and port, and that the server is up; then rerun")
    for phrase, _, next_step in _REFUSALS:
        if phrase in text:
            return WarehouseError(message, next_step=next_step)
    return WarehouseError(message, next_step="check the URL: postgresql://user@host:port/database")


def _one_line(error: adbc_driver_manager.Error) -> str:
    """The driver's message without its own prefixes and without the statement."""
    text = str(error).partition("\nQuery was:")[0].partition("[libpq] ")
    return " ".join((text[2] or text[0]).split())
