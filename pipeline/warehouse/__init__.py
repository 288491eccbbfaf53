"""Where scores land: one protocol, one file a warehouse under backends/."""

from pipeline.warehouse.load import LoadSummary, load_parts
from pipeline.warehouse.protocol import (
    Counts,
    LoadBatch,
    LoadResult,
    RunRow,
    Strongest,
    Summary,
    Warehouse,
    open_warehouse,
    warehouse_kinds,
)

__all__ = [
    "Counts",
    "LoadBatch",
    "LoadResult",
    "LoadSummary",
    "RunRow",
    "Strongest",
    "Summary",
    "Warehouse",
    "load_parts",
    "open_warehouse",
    "warehouse_kinds",
]
