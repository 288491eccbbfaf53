"""What a run has left in its warehouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from tests.faults.servers import Servers

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Table:
    """A scores table and those beside it.

    Attributes:
        url: Of the warehouse, as a run is told it.
        name: Of the table.
        query: SQL to rows.
    """

    url: str
    name: str
    query: Callable[[str], Rows]

    def scores(self) -> Rows:
        """Document, scores, status, tokens: of every row."""
        labels = "joy, fear, anger"
        return self.query(f"select document_id, {labels}, status, token_count from {self.name}")

    def rejects(self) -> Rows:
        """Document, status, reason: of every reject."""
        return self.query(f"select document_id, status, reason from {self.name}_rejects")

    def ledger(self) -> tuple[int, int]:
        """Rows and rejects that the ledger knows of."""
        sums = f"select coalesce(sum(scored), 0), coalesce(sum(rejected), 0) from {self.name}_ledger"
        ((scored, rejected),) = self.query(sums)
        return int(scored), int(rejected)

    def runs(self) -> set[str]:
        """Runs that are written down."""
        return {str(run_id) for (run_id,) in self.query(f"select run_id from {self.name}_runs")}


def duckdb_table(path: Path) -> Table:
    """A table in a file of its own."""

    def query(sql: str) -> Rows:
        with duckdb.connect(path, read_only=True) as connection:
            return connection.execute(sql).fetchall()

    return Table(f"duckdb:///{path}", "scores", query)


def postgresql_table(servers: Servers, name: str) -> Table:
    """A table of the lane's server, which is asked directly."""

    return Table(servers.database.proxy.url, name, servers.database.query)
