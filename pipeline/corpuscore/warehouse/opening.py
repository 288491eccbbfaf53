"""The way to open a warehouse: its URL's scheme names a file in backends/.

Such a file has `connect(url, table, options) -> Warehouse`; the contract tests find a new one by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from corpuscore.addresses import shown
from corpuscore.errors import JobError, WarehouseError
from corpuscore.options import TableOptions
from corpuscore.warehouse import backends
from corpuscore.warehouse.limits import Limits
from corpuscore.warehouse.protocol import Warehouse
from corpuscore.warehouse.retries import RetryingWarehouse
from corpuscore.warehouse.tables import PLAIN

#: Kinds whose scheme says where they lie, too: parquet+s3, iceberg+sqlite.
_PLACED = ("iceberg", "parquet")


def warehouse_kinds() -> tuple[str, ...]:
    """The URL schemes that there is a backend for: the names of the files in backends/."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(backends.__path__)))


def kind_of(url: str) -> str:
    """The kind of warehouse that a URL names by its scheme.

    Raises:
        JobError: There is no backend of that name.
    """
    scheme, separator, _ = url.partition("://")
    kind, plus, _ = scheme.partition("+")
    if not separator or kind not in warehouse_kinds() or (plus and kind not in _PLACED):
        raise JobError(
            f"The warehouse {shown(url)!r} is of no known kind",
            rule=f"Known kinds are {', '.join(warehouse_kinds())}",
            next_step="give a URL such as duckdb:///scores.duckdb, postgresql://user@host/database or parquet:///folder",
        )
    return kind


def open_warehouse(
    url: str, table: str = "scores", *, options: TableOptions = PLAIN, patience_seconds: float | None = None
) -> Warehouse:
    """Open a warehouse; use it as a context manager.

    Args:
        url: `duckdb:///FILE`, `postgresql://user@host:port/database` and so on; the scheme names the backend.
        table: Table of the scores, NAME or SCHEMA.NAME; `<table>_rejects`, `_ledger` and `_runs` stand beside it.
        options: Which columns it has beside the usual ones.
        patience_seconds: How long to keep trying while it is unavailable (down, restarting, or locked by another
            writer), in this call and in each one after it; None: as the configuration says.

    Raises:
        JobError: Unknown scheme.
        WarehouseError: Missing driver, or a warehouse that refuses for good.
        WarehouseUnavailable: Still unavailable after patience_seconds.
    """
    backend = _import_backend(kind_of(url))
    patience = Limits.configured().patience if patience_seconds is None else patience_seconds
    return RetryingWarehouse(lambda: backend.connect(url, table, options), patience)


def makes(url: str) -> bool:
    """Whether opening a warehouse would make it: a DuckDB file that is not there, a catalog in a file of its own.

    Raises:
        JobError: Unknown scheme.
        WarehouseError: Missing driver, or a URL that names nothing.
    """
    backend = _import_backend(kind_of(url))
    return bool(backend.makes(url)) if hasattr(backend, "makes") else False


def _import_backend(scheme: str) -> Any:
    try:
        return importlib.import_module(f"{backends.__name__}.{scheme}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("corpuscore"):
            raise
        raise WarehouseError(
            f"The driver of a {scheme} warehouse is missing (no module {error.name})",
            next_step=f"pip install 'corpuscore[{scheme}]'",
        ) from error
