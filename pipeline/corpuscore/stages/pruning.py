"""Prune: remove the rows of objects that have left a corpus, by command, without scoring anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from corpuscore.addresses import shown
from corpuscore.corpus import confirm_gone, find_departed, list_versions
from corpuscore.errors import CorpusError
from corpuscore.records import digest
from corpuscore.storage import Store, canonical_uri
from corpuscore.summaries import PruneSummary
from corpuscore.warehouse import LoadedObject, RunRow, Warehouse, open_warehouse, remove_objects


def prune(corpus: Sequence[str], work: str, warehouse: str, table: str, *, dry_run: bool = False) -> PruneSummary:
    """Remove from a table the rows, by whatever model, of objects that a corpus no longer has.

    As `--departed remove` does after a load: the ledger keeps that they are gone, so that an older plan does not bring
    them back. What a later plan has seen stays, and so do other corpora in the table.

    Args:
        corpus: URIs of objects, prefixes or glob patterns.
        work: The work location of the runs, whose clock all plans share.
        warehouse: Its URL.
        table: NAME or SCHEMA.NAME.
        dry_run: Only count.

    Raises:
        CorpusError: Nothing of the corpus is there, which is more often a spelling, or a disk that is not mounted.
        StorageError, StorageUnavailable: A store refuses, or does not answer.
        WarehouseError, WarehouseUnavailable: The warehouse refuses, or is down.
    """
    planned_at = Store(work).check_writable()  # before the listing, as a plan's time is
    listed = list_versions(corpus)
    if not listed:
        raise CorpusError(
            f"{', '.join(corpus)}: no objects there",
            rule="All rows of a corpus do not go because nothing of it is found",
            next_step="check the spelling, and that it is mounted; or name a wider corpus, of which something is there",
        )
    canonical = [canonical_uri(uri) for uri in corpus]
    with open_warehouse(warehouse, table) as target:
        left: dict[str, dict[str, LoadedObject]] = {}
        for model in sorted({row.model for row in target.runs()}):
            known = target.objects(model)
            older = [uri for uri, item in known.items() if item.is_older(planned_at) and not item.gone]
            there = confirm_gone(find_departed(older, canonical, listed), canonical)
            left[model] = {uri: known[uri] for uri in there}
        run_id = f"prune-{digest([canonical, shown(warehouse), table, planned_at.isoformat()])[:12]}"
        removed = 0 if dry_run else sum(_remove(target, run_id, model, left[model], planned_at) for model in left)
    uris = sorted({uri for objects in left.values() for uri in objects})
    return PruneSummary(
        table=table,
        objects=len(uris),
        rows=sum(item.documents for objects in left.values() for item in objects.values()),
        models=sum(1 for objects in left.values() if objects),
        examples=uris[:3],
        removed=removed,
    )


def _remove(target: Warehouse, run_id: str, model: str, objects: dict[str, LoadedObject], planned_at: datetime) -> int:
    """Remove objects, and leave a row among the runs that says so; rows and rejects that went."""
    if not objects:
        return 0
    removed = remove_objects(target, run_id, model, sorted(objects), planned_at)
    details = {"pruned": {"objects": len(objects), "rows": removed, "examples": sorted(objects)[:3]}}
    target.record_run(RunRow(f"{run_id}-{model}", model, "done", planned_at, planned_at, details=details))
    return removed
