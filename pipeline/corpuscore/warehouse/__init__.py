"""Where scores land: one protocol, one file a warehouse under backends/."""

from corpuscore.warehouse.load import load_parts
from corpuscore.warehouse.protocol import (
    Counts,
    LoadBatch,
    LoadSummary,
    RunRow,
    Strongest,
    Summary,
    Warehouse,
    kind_of,
    open_warehouse,
    warehouse_kinds,
)

__all__ = [
    "Counts",
    "LoadBatch",
    "LoadSummary",
    "RunRow",
    "Strongest",
    "Summary",
    "Warehouse",
    "kind_of",
    "load_parts",
    "open_warehouse",
    "warehouse_kinds",
]
