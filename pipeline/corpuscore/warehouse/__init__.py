"""Where scores land: one protocol, one file a warehouse under backends/."""

from corpuscore.warehouse.load import load_parts
from corpuscore.warehouse.opening import open_warehouse, warehouse_kinds
from corpuscore.warehouse.protocol import Counts, LoadBatch, LoadSummary, RunRow, Strongest, Summary, Warehouse

__all__ = [
    "Counts",
    "LoadBatch",
    "LoadSummary",
    "RunRow",
    "Strongest",
    "Summary",
    "Warehouse",
    "load_parts",
    "open_warehouse",
    "warehouse_kinds",
]
