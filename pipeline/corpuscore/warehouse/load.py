"""Load checked parts: whole objects, several small ones a transaction, and nothing that is there already.

What has left the corpus is removed in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import pyarrow as pa

from corpuscore.errors import ValidationFailed
from corpuscore.parts import OpenPart
from corpuscore.records import CheckedPart
from corpuscore.warehouse.protocol import LoadBatch, LoadSummary, Warehouse

#: Objects share a transaction up to these; one object alone may be larger.
_BATCH_ROWS = 500_000
_BATCH_PARTS = 500


def load_parts(
    warehouse: Warehouse,
    run_id: str,
    model: str,
    labels: Sequence[str],
    kept: pa.Schema,
    parts: Sequence[CheckedPart],
    open_part: OpenPart,
    *,
    planned_at: datetime,
    progress: Callable[[LoadSummary], None] | None = None,
) -> LoadSummary:
    """Load parts that validation has checked; the tables must be prepared.

    An object goes in one transaction, with all its work ids, so that its older ones are superseded at once. The ledger
    is asked once, before: objects that are loaded as they are cost no transaction, or a small one, which notes that a
    later plan has seen them so.

    Args:
        warehouse: An open one.
        run_id: The run that loads.
        model: Fingerprint of the scorer.
        labels: Score columns, in the order of the parts.
        kept: Schema of the kept columns, as in the parts.
        parts: All parts of each object that they name.
        open_part: Opens a part by its URI.
        planned_at: When the run listed the corpus; objects that a later plan has loaded stay as they are.
        progress: Called with the totals so far, first after the ledger was asked, then after each transaction.

    Returns:
        The totals.

    Raises:
        ValidationFailed: A work id twice, or a part that is not what validation checked.
        WarehouseError: The warehouse refuses.
        WarehouseUnavailable: It was unavailable for longer than its patience.
    """
    _check_unique(parts)
    pending = _pending(warehouse, model, parts, planned_at)
    summary = LoadSummary(work_ids_skipped=len(parts) - sum(len(group) for group in pending))
    if progress:
        progress(summary)
    for group in _batches(pending):
        batch = LoadBatch(run_id, model, tuple(labels), kept, tuple(group), planned_at, open_part)
        summary += warehouse.load(batch)
        if progress:
            progress(summary)
    return summary


def remove_objects(warehouse: Warehouse, run_id: str, model: str, uris: Sequence[str], planned_at: datetime) -> int:
    """Remove objects that have left the corpus, each of them whole, many in a transaction; rows and rejects that went.

    Args:
        warehouse: An open one.
        run_id: The run that removes.
        model: Fingerprint of the scorer.
        uris: The objects; what a later plan has seen of them stays.
        planned_at: When the run listed the corpus.

    Raises:
        WarehouseError: The warehouse refuses.
        WarehouseUnavailable: It was unavailable for longer than its patience.
    """
    batches = (uris[at : at + _BATCH_PARTS] for at in range(0, len(uris), _BATCH_PARTS))
    return sum(warehouse.remove(run_id, model, batch, planned_at) for batch in batches)


def _check_unique(parts: Sequence[CheckedPart]) -> None:
    seen: set[str] = set()
    for part in parts:
        if part.work_id in seen:
            raise ValidationFailed(
                f"Work id {part.work_id} ({part.uri}) is in the list twice",
                rule="One part a work id is loaded",
                next_step="validate the run again",
            )
        seen.add(part.work_id)


def _pending(
    warehouse: Warehouse, model: str, parts: Sequence[CheckedPart], planned_at: datetime
) -> list[list[CheckedPart]]:
    """Parts by object, without the objects that are loaded exactly so by a plan of this time or a later one."""
    groups: dict[str, list[CheckedPart]] = {}
    for part in parts:
        groups.setdefault(part.uri, []).append(part)
    loaded = warehouse.objects(model, list(groups))
    return [
        group
        for uri, group in groups.items()
        if uri not in loaded
        or loaded[uri].is_older(planned_at)
        or loaded[uri].digests != {part.work_id: part.digest for part in group}
    ]


def _batches(groups: Sequence[list[CheckedPart]]) -> Iterator[list[CheckedPart]]:
    """Whole objects together, up to the bounds of a transaction."""
    batch: list[CheckedPart] = []
    rows = 0
    for group in groups:
        group_rows = sum(part.scored + part.rejected for part in group)
        if batch and (rows + group_rows > _BATCH_ROWS or len(batch) + len(group) > _BATCH_PARTS):
            yield batch
            batch, rows = [], 0
        batch, rows = [*batch, *group], rows + group_rows
    if batch:
        yield batch
