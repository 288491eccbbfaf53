"""A change of the tables, as the ledger sees it. Pure: Arrow in, Arrow out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.warehouse.tables import LEDGER
from corpuscore.warehouse.versions import LoadedObject, by_object


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction does.

    Attributes:
        deleted: Work ids whose rows, rejects and ledger entries go.
        cleared: Ids of further ledger entries that go: notes that an object is gone.
        confirmed: Ids of entries that a later plan has seen as they are.
        planned_at: That plan's time.
        entries: New rows of the ledger.
        files: By work id of these, what holds its rows; the backend knows what it is.
    """

    planned_at: datetime
    deleted: frozenset[str] = frozenset()
    cleared: frozenset[str] = frozenset()
    confirmed: frozenset[str] = frozenset()
    entries: pa.Table = field(default_factory=LEDGER.empty_table)
    files: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.deleted or self.cleared or self.confirmed or self.entries.num_rows)


def confirmed(ledger: pa.Table, change: Change) -> pa.Table:
    """The entries that a change confirms, with the time of its plan."""
    found = ledger.filter(is_one_of(ledger["work_id"], change.confirmed))
    planned_at = LEDGER.field("planned_at")
    times = pa.repeat(pa.scalar(change.planned_at, planned_at.type), found.num_rows)
    return found.set_column(found.schema.get_field_index("planned_at"), planned_at, times)


def unchanged(ledger: pa.Table, change: Change) -> pa.Table:
    """The entries that a change leaves as they are."""
    return ledger.filter(pc.invert(is_one_of(ledger["work_id"], change.deleted | change.cleared | change.confirmed)))


def known_objects(ledger: pa.Table, model: str, uris: Sequence[str] | None) -> dict[str, LoadedObject]:
    """The ledger by object, of a model and of these objects."""
    chosen = pc.equal(ledger["model"], model)
    if uris is not None:
        chosen = pc.and_(chosen, is_one_of(ledger["object_uri"], uris))
    found = ledger.filter(chosen)
    documents = pc.add(found["scored"], found["rejected"])
    columns = (found["object_uri"], found["work_id"], found["digest"], documents, found["planned_at"])
    return by_object(zip(*(column.to_pylist() for column in columns), strict=True))


def is_one_of(column: pa.ChunkedArray, values: Iterable[str]) -> pa.ChunkedArray:
    """Which texts of a column are among some."""
    return pc.is_in(column, pa.array(list(values), pa.string()))
