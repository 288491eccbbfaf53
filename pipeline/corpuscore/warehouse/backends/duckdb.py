"""DuckDB: one file, one writing process at a time."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa

from corpuscore.addresses import shown
from corpuscore.errors import CorpuscoreError, WarehouseBusy, WarehouseError, WarehouseUnavailable
from corpuscore.options import TableOptions
from corpuscore.warehouse.duckdbfile import make_database
from corpuscore.warehouse.limits import Limits
from corpuscore.warehouse.names import TableName
from corpuscore.warehouse.sql import SqlWarehouse

#: One writer at a time in this process as well: two connections to one file would see each other's work too late.
_WRITERS: dict[Path, threading.Lock] = {}
_WRITERS_GUARD = threading.Lock()

#: Name under which DuckDB reads the Arrow stream of an insert.
_INCOMING = "corpuscore_incoming"

_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.list_(pa.string()): "VARCHAR[]",
}


def connect(url: str, table: str, options: TableOptions) -> DuckDBWarehouse:
    """Open the file of a `duckdb:///FILE` URL, made where it is not there; `duckdb:////abs/file` is absolute.

    Raises:
        WarehouseError: No such folder, no permission, no DuckDB file, or a URL that names no file.
        WarehouseUnavailable: Another process has the file open.
    """
    return DuckDBWarehouse(_path(url), table, options)


def makes(url: str) -> bool:
    """Whether connect would make the file."""
    return not _path(url).exists()


def _path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc or parts.query or parts.fragment or parts.path in ("", "/"):
        raise WarehouseError(
            f"{shown(url)} names no DuckDB file",
            rule="duckdb:///FILE is relative to the working folder, duckdb:////folder/FILE absolute",
        )
    return Path(unquote(parts.path[1:])).absolute()


class DuckDBWarehouse(SqlWarehouse):
    """Scores in a DuckDB file. The file stays locked against other processes until close()."""

    def __init__(self, path: Path, table: str, options: TableOptions) -> None:
        super().__init__(table, options)
        self._path, self._limits = path, Limits.configured()
        self._connection: duckdb.DuckDBPyConnection | None = None
        with _WRITERS_GUARD:
            self._writer = _WRITERS.setdefault(path, threading.Lock())
        self._connect()

    def __repr__(self) -> str:
        return f"DuckDBWarehouse({self._path}, {self.scores})"

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            try:
                make_database(self._path)
                self._connection = duckdb.connect(self._path)
            except (duckdb.Error, OSError) as error:
                raise _opening_error(self._path, error) from error
            if self.scores.schema:
                self._qualify(self._connection)
        return self._connection

    def _qualify(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Name tables with their database: that of `analytics.duckdb` goes by `analytics`, as a schema may."""
        [(database,)] = connection.execute("SELECT current_database()").fetchall()
        for name in ("scores", "rejects", "ledger_table", "runs_table"):
            setattr(self, name, replace(getattr(self, name), database=database))

    def close(self) -> None:
        """See Warehouse."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self, lock: Sequence[str] = ()) -> Iterator[None]:
        """See SqlConnection. The file has one process, so any lock is that of its writing threads."""
        with self._writing() if lock else nullcontext():
            connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield
                connection.execute("COMMIT")
            except BaseException as error:
                with suppress(duckdb.Error):  # The transaction may be gone already.
                    connection.execute("ROLLBACK")
                connection.unregister(_INCOMING)
                if isinstance(error, duckdb.Error):
                    raise translated(error, self._path) from error
                raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self._writer.acquire(timeout=self._limits.lock):
            raise WarehouseBusy(
                f"{self._path}: another thread of this process is writing",
                next_step="wait until it is done, then rerun",
            )
        try:
            yield
        finally:
            self._writer.release()

    def execute(self, sql: str, *values: Any) -> int:
        """See SqlConnection."""
        rows = self._connect().execute(sql, list(values)).fetchall()
        return int(rows[0][0]) if rows else 0

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See SqlConnection."""
        table: pa.Table = self._connect().sql(sql, params=list(values)).to_arrow_table()
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def append(self, table: TableName, rows: pa.RecordBatchReader) -> int:
        """See SqlConnection."""
        connection = self._connect()
        connection.register(_INCOMING, rows)
        inserted = self.execute(f"INSERT INTO {table.sql} BY NAME SELECT * FROM {_INCOMING}")
        connection.unregister(_INCOMING)
        return inserted

    def columns(self, table: TableName) -> dict[str, str]:
        """See SqlConnection."""
        rows = self.query(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
            "AND lower(schema_name) = lower(coalesce($1, current_schema())) AND lower(table_name) = lower($2) "
            "ORDER BY column_index",
            table.schema,
            table.name,
        )
        return dict(rows)

    def comment(self, table: TableName, column: str) -> str:
        """See SqlConnection."""
        rows = self.query(
            "SELECT coalesce(comment, '') FROM duckdb_columns() WHERE database_name = current_database() AND "
            "lower(schema_name) = lower(coalesce($1, current_schema())) AND lower(table_name) = lower($2) "
            "AND column_name = $3",
            table.schema,
            table.name,
            column,
        )
        return str(rows[0][0]) if rows else ""

    def has_schema(self, table: TableName) -> bool:
        """See SqlConnection."""
        sql = "SELECT lower(schema_name) FROM duckdb_schemas() WHERE database_name = current_database()"
        return table.schema is None or (table.schema.lower(),) in self.query(sql)

    def type_name(self, kind: pa.DataType) -> str:
        """See SqlConnection."""
        if pa.types.is_decimal(kind):
            return f"DECIMAL({kind.precision},{kind.scale})"
        return _TYPES[kind]


def _opening_error(path: Path, error: duckdb.Error | OSError) -> CorpuscoreError:
    """Why a file could not be opened, by looking at it; only its lock is told by the words of the message."""
    if path.is_dir():
        return WarehouseError(f"{path} is a folder", rule="A DuckDB warehouse is a file")
    if not path.parent.is_dir():
        return WarehouseError(
            f"{path} cannot be made", rule=f"The folder {path.parent} is not there", next_step=f"mkdir -p {path.parent}"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return WarehouseError(
            f"{path} cannot be written to", next_step="give this user the permission, or name another file"
        )
    if _LOCKED in str(error):
        holder = str(error).partition("held in ")[2].partition(". ")[0]
        return WarehouseBusy(
            f"{path} is open in another process{f': {holder}' if holder else ''}",
            rule="A DuckDB file has one process at a time",
            next_step="wait until it ends or close it, then rerun; for several writers use PostgreSQL",
        )
    if isinstance(error, duckdb.ConnectionException):
        return WarehouseBusy(
            f"{path} is open in this process with other settings",
            rule="Connections of one process to a DuckDB file have the same settings",
            next_step="close the other connection, then rerun",
        )
    if isinstance(error, OSError):
        return WarehouseError(f"{path} cannot be made ({error.strerror})", next_step=_DISK)
    return translated(error, path)


#: Looking at the lock instead would let go of it where another connection of this process has it (POSIX), and would
#: find nothing where its holder has just ended.
_LOCKED = "Could not set lock"

_ASK = "this is a defect of corpuscore or of the table: report it with this message"

#: What to do next, by exception class; the nearest class of an exception counts. Only a conflict passes by itself.
NEXT_STEPS: dict[type[duckdb.Error], str] = {
    duckdb.Error: _ASK,
    duckdb.DatabaseError: _ASK,
    duckdb.DataError: _ASK,
    duckdb.BinderException: _ASK,
    duckdb.CatalogException: "check that the schema is there (CREATE SCHEMA), then rerun",
    duckdb.ConnectionException: "close the other connection of this process to the file",
    duckdb.ConstraintException: _ASK,
    duckdb.ConversionException: _ASK,
    duckdb.DependencyException: "another object depends on the table: drop it first",
    duckdb.FatalException: "reopen the file; restore it from a backup if that fails too",
    duckdb.HTTPException: "check the network",
    duckdb.IOException: "check the disk and the permissions; a file that is no DuckDB database must be moved away",
    duckdb.IntegrityError: _ASK,
    duckdb.InternalError: "reopen the file; restore it from a backup if that fails too",
    duckdb.InternalException: "reopen the file; restore it from a backup if that fails too",
    duckdb.InterruptException: "rerun: nothing of the transaction was kept",
    duckdb.InvalidInputException: _ASK,
    duckdb.InvalidTypeException: _ASK,
    duckdb.NotImplementedException: _ASK,
    duckdb.NotSupportedError: _ASK,
    duckdb.OperationalError: _ASK,
    duckdb.OutOfMemoryException: "free memory, or disk space for DuckDB's temporary files beside the database",
    duckdb.OutOfRangeException: _ASK,
    duckdb.ParserException: _ASK,
    duckdb.PermissionException: "open the file for writing",
    duckdb.ProgrammingError: _ASK,
    duckdb.ResourceInUseException: _ASK,
    duckdb.SequenceException: _ASK,
    duckdb.SerializationException: "use the DuckDB version that wrote the file, or a newer one",
    duckdb.SyntaxException: _ASK,
    duckdb.TransactionException: "rerun: another connection wrote at the same time",
    duckdb.TypeMismatchException: _ASK,
}
_TRANSIENT = (duckdb.TransactionException,)
_DISK = "free space on the disk, and check that the file may be written to; nothing of the transaction was kept"

#: A COMMIT whose file cannot be written is an exception of the class that conflicts have; only DuckDB's words of its
#: file system tell them apart.
_FILE_WORDS = ("Could not write", "Could not sync", "Could not truncate", "Could not open", "No space left")


def translated(error: duckdb.Error, path: Path) -> CorpuscoreError:
    """DuckDB's error as one of ours, by its class."""
    next_step = next(NEXT_STEPS[kind] for kind in type(error).__mro__ if kind in NEXT_STEPS)
    first_line = str(error).partition("\n")[0]
    of_disk = isinstance(error, duckdb.OperationalError) and any(words in first_line for words in _FILE_WORDS)
    if of_disk or isinstance(error, duckdb.IOException):
        free = shutil.disk_usage(path.parent).free // 2**20
        first_line = f"{first_line} ({free} MiB free on its disk)"
    if of_disk:
        return WarehouseError(f"DuckDB file {path}: {first_line}", next_step=_DISK)
    kind = WarehouseUnavailable if isinstance(error, _TRANSIENT) else WarehouseError
    return kind(f"DuckDB file {path}: {first_line}", next_step=next_step)
