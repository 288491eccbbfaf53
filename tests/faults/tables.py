"""What a run has left in its warehouse."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.warehouse.iceberg.catalog import open_catalog

if TYPE_CHECKING:
    from tests.faults.places import Place
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


def parquet_table(lake: Place) -> Table:
    """A table in Parquet files, read as docs/warehouses.md says."""
    folder = lake.uri.removeprefix("s3://")
    url = f"parquet+s3://{folder}" if lake.uri.startswith("s3://") else f"parquet:///{folder}"

    def read(key: str) -> pa.Table:
        return pq.ParquetFile(io.BytesIO(lake.get(f"scores/{key}"))).read()

    def query(sql: str) -> Rows:
        now = json.loads(lake.get("scores/current.json"))
        ledger = read(now["ledger"])
        tables = {"_ledger": ledger, "_runs": read(now["runs"])}
        for name, column in (("", "scores_file"), ("_rejects", "rejects_file")):
            tables[name] = pa.concat_tables(map(read, ledger[column].drop_null().to_pylist()))
        return _over(tables, sql)

    return Table(url, "scores", query)


def iceberg_table(folder: Path) -> Table:
    """A table in a catalog of its own."""
    url = f"iceberg+sqlite:///{folder}/catalog.db?warehouse=file://{folder}/lake"

    def query(sql: str) -> Rows:
        with open_catalog(url) as catalog:
            roles = ("", "_rejects", "_ledger", "_runs")
            tables = {role: catalog.load_table(f"default.scores{role}").scan().to_arrow() for role in roles}
        return _over(tables, sql)

    return Table(url, "scores", query)


def _over(tables: Mapping[str, pa.Table], sql: str) -> Rows:
    with duckdb.connect() as connection:
        for role, table in tables.items():
            connection.register(f"scores{role}", table)
        return connection.execute(sql).fetchall()
