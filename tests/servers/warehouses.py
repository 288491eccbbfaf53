"""An empty warehouse of each kind that there is a backend for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corpuscore.warehouse import Warehouse, open_warehouse, warehouse_kinds


@dataclass(frozen=True)
class Target:
    """Where a test loads to: a table that nobody else uses."""

    url: str
    table: str

    def open(self, **options: Any) -> Warehouse:
        """Open it."""
        return open_warehouse(self.url, self.table, **options)


@pytest.fixture(params=warehouse_kinds())
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """A target of each kind; a new backend needs a way to make one here."""
    urls: dict[str, Callable[[], str]] = {
        "duckdb": lambda: f"duckdb:///{tmp_path}/warehouse.duckdb",
        "parquet": lambda: f"parquet:///{tmp_path}/lake",
        "postgresql": lambda: request.getfixturevalue("postgresql"),
    }
    return Target(urls[request.param](), f"scores_{uuid.uuid4().hex[:12]}")
