"""An empty warehouse of each kind that there is a backend for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.warehouse import Warehouse, open_warehouse, warehouse_kinds
from corpuscore.warehouse.iceberg.catalog import open_catalog


@dataclass(frozen=True)
class Target:
    """Where a test loads to: a table that nobody else uses."""

    url: str
    table: str

    def open(self, **options: Any) -> Warehouse:
        """Open it."""
        return open_warehouse(self.url, self.table, **options)


def read_table(target: Target) -> pa.Table:
    """The scores table, as others than us read it."""
    return _READERS[target.url.partition(":")[0].partition("+")[0]](target)


def read_scores(target: Target) -> list[dict[str, Any]]:
    """All rows of the scores table, as others than us read it."""
    return list(read_table(target).to_pylist())


def _read_duckdb(target: Target) -> pa.Table:
    with duckdb.connect(target.url.removeprefix("duckdb:///")) as connection:
        return connection.sql(f"SELECT * FROM {target.table}").to_arrow_table()


def _read_postgresql(target: Target) -> pa.Table:
    with adbc_driver_postgresql.dbapi.connect(target.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {target.table}")
        return cursor.fetch_arrow_table()


def _read_parquet(target: Target) -> pa.Table:
    """As docs/warehouses.md says."""
    folder = Path(target.url.removeprefix("parquet:///")) / target.table
    ledger = pq.read_table(folder / json.loads((folder / "current.json").read_text())["ledger"])
    files = [folder / name for name in ledger["scores_file"].drop_null().to_pylist()]
    tables = [pq.ParquetFile(file).read() for file in files]
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _read_iceberg(target: Target) -> pa.Table:
    with open_catalog(target.url) as catalog:
        table = catalog.load_table(target.table if "." in target.table else f"default.{target.table}")
        return table.scan().to_arrow()


_READERS = {
    "duckdb": _read_duckdb,
    "iceberg": _read_iceberg,
    "parquet": _read_parquet,
    "postgresql": _read_postgresql,
}


@pytest.fixture(params=warehouse_kinds())
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """A target of each kind; a new backend needs a way to make one here."""
    return _made(request, tmp_path)


@pytest.fixture(params=[kind for kind in warehouse_kinds() if kind != "iceberg"])
def quick_target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """One for tests of many loads; Iceberg decides as Parquet folders do, and takes much longer for a commit."""
    return _made(request, tmp_path)


@pytest.fixture(params=["duckdb", "postgresql"])
def sql_target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """A target of each kind that speaks SQL, for what stages do with any."""
    return _made(request, tmp_path)


def _made(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    urls: dict[str, Callable[[], str]] = {
        "duckdb": lambda: f"duckdb:///{tmp_path}/warehouse.duckdb",
        "iceberg": lambda: f"iceberg+sqlite:///{tmp_path}/catalog.db?warehouse=file://{tmp_path}/lake",
        "parquet": lambda: f"parquet:///{tmp_path}/lake",
        "postgresql": lambda: request.getfixturevalue("postgresql"),
    }
    return Target(urls[request.param](), f"scores_{uuid.uuid4().hex[:12]}")
