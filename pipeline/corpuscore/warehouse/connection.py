"""What a backend that speaks SQL adds: a connection, its types, a bulk insert from Arrow, and its driver's errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Self

import pyarrow as pa

from corpuscore.errors import WarehouseError
from corpuscore.options import TableOptions
from corpuscore.warehouse.names import TableName
from corpuscore.warehouse.tables import NameRule


class SqlConnection(ABC):
    """An SQL connection to the four tables. Not for several threads at once; open one each."""

    names: ClassVar[NameRule] = NameRule()
    #: Statements that index a new `{table}`, by its role: scores, rejects, ledger or runs.
    indexes: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, table: str, options: TableOptions) -> None:
        if options.score_type != "float32":
            raise WarehouseError(
                f"--score-type {options.score_type}: this warehouse has no such type",
                rule="float16 is for Parquet folders (parquet:///FOLDER)",
                next_step="leave --score-type out",
            )
        self.options = options
        self.scores = TableName.parse(table)
        self.rejects = self.scores.beside("rejects")
        self.ledger_table = self.scores.beside("ledger")
        self.runs_table = self.scores.beside("runs")

    @abstractmethod
    def transaction(self, lock: Sequence[str] = ()) -> AbstractContextManager[None]:
        """Commit on leaving, roll back on an error; connects where there is no connection; translates errors.

        Args:
            lock: Keys; other writers with one of them wait until the end. What was committed before is seen.
        """

    @abstractmethod
    def execute(self, sql: str, *values: Any) -> int:
        """Run a statement with values for $1, $2, ...; rows affected."""

    @abstractmethod
    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query with values for $1, $2, ..."""

    @abstractmethod
    def append(self, table: TableName, rows: pa.RecordBatchReader) -> int:
        """Bulk insert by column name; rows inserted."""

    @abstractmethod
    def columns(self, table: TableName) -> dict[str, str]:
        """SQL type by column name, empty where there is no such table."""

    @abstractmethod
    def comment(self, table: TableName, column: str) -> str:
        """The comment on a column; empty where there is none."""

    @abstractmethod
    def has_schema(self, table: TableName) -> bool:
        """Whether the schema of a table is there; so it is where none is named."""

    @abstractmethod
    def type_name(self, kind: pa.DataType) -> str:
        """The SQL type of a stored Arrow type, spelled as `columns` does."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; again is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
