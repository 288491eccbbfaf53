"""Where scores land: one protocol, one file a warehouse under backends/."""

from corpuscore.warehouse.load import load_parts, remove_objects
from corpuscore.warehouse.opening import kind_of, makes, open_warehouse, warehouse_kinds
from corpuscore.warehouse.protocol import Counts, LoadBatch, LoadSummary, RunRow, Strongest, Summary, Warehouse
from corpuscore.warehouse.versions import LoadedObject, find_outdated

__all__ = [
    "Counts",
    "LoadBatch",
    "LoadSummary",
    "LoadedObject",
    "RunRow",
    "Strongest",
    "Summary",
    "Warehouse",
    "find_outdated",
    "kind_of",
    "load_parts",
    "makes",
    "open_warehouse",
    "remove_objects",
    "warehouse_kinds",
]
