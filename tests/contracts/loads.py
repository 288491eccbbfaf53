"""What tests of warehouses do and look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corpuscore.records import CheckedPart
from corpuscore.warehouse import LoadSummary, Warehouse, load_parts
from corpuscore.warehouse.retries import RetryingWarehouse
from corpuscore.warehouse.sql import SqlWarehouse
from tests.parts import KEPT, LABELS, PLANNED_AT, opened


def load(warehouse: Warehouse, parts: Sequence[CheckedPart], open_part: Any = opened, **more: Any) -> LoadSummary:
    """Load parts with the usual columns."""
    return load_parts(warehouse, "run", "model", LABELS, KEPT, parts, open_part, **{"planned_at": PLANNED_AT, **more})


def has_locks(warehouse: Warehouse) -> bool:
    """Whether a writer waits for another one's transaction; else it finds at its commit that the other was quicker."""
    assert isinstance(warehouse, RetryingWarehouse)
    return isinstance(warehouse.inner, SqlWarehouse)


def contents(warehouse: Warehouse, label: str = "joy") -> dict[str, float]:
    """Score by document id, of all documents."""
    found = warehouse.summary(LABELS, strongest=[label], top=1_000_000).strongest[label]
    ids = [document.document_id for document in found]
    assert len(ids) == len(set(ids))
    return {document.document_id: document.probability for document in found}
