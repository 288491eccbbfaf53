"""Plan: list the corpus, cut it into partitions, freeze them, and see what is still to be scored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corpuscore.cluster import connected, run_one
from corpuscore.corpus import KeptColumns, check_apart, list_objects, split
from corpuscore.cuts import Cuts
from corpuscore.errors import JobError, WarehouseBusy
from corpuscore.job import Job
from corpuscore.manifest import Manifest
from corpuscore.patience import LOADING
from corpuscore.records import COLUMN_NEXT_STEP, COLUMN_RULE, ScorerInfo, column_problems
from corpuscore.runs import Run
from corpuscore.scoring import describe_scorer
from corpuscore.scoring.remote.address import is_service, service_address
from corpuscore.storage import Store
from corpuscore.summaries import PlanSummary
from corpuscore.warehouse import kind_of, makes, open_warehouse

log = logging.getLogger(__name__)

#: Mapped Airflow tasks of one run at the most; its scheduler slows down with more, and a chunk may hold any number.
_CHUNKS = 200
_SMALLEST_CHUNK = 16

#: Before anything is spent, a wrong address should be told soon; later stages wait longer for a warehouse.
_PATIENCE_SECONDS = 20.0


def plan(job: Job) -> PlanSummary:
    """List the corpus, cut it into partitions, freeze them; nothing is read but names, sizes and footers.

    What was scored in another cut keeps that cut, see corpuscore.cuts.

    Raises:
        JobError: An unknown kind of warehouse, a work location in the corpus, or options that don't go with the corpus
            or the model.
        CorpusError: No objects, unknown format, missing columns, kept columns whose types do not go together.
        ModelError: The model is not one.
        StorageError: The work location cannot be written to.
    """
    kind_of(job.warehouse)
    check_apart(job.corpus, job.work)
    store = Store(job.work)
    planned_at = store.check_writable()  # before the listing: what a later plan lists is as new as this, or newer
    frozen = freeze(job, store)
    manifest, scorer = frozen.manifest, frozen.manifest.scorer
    manifest.save(store)
    frozen.cuts.mark(manifest)
    run = Run.create(job, manifest, store, planned_at)
    pending = run.pending()
    return PlanSummary(
        run=run.uri,
        run_id=run.id,
        manifest=manifest.id,
        objects=frozen.objects,
        size_bytes=frozen.size_bytes,
        partitions=len(manifest),
        pending=len(pending),
        kept_cuts=frozen.cuts.kept,
        rows=manifest.rows,
        chunks=chunks(pending),
        model=scorer.model,
        labels=list(scorer.labels),
        fingerprint=scorer.fingerprint,
        precision=scorer.precision,
    )


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a plan would write down.

    Attributes:
        manifest: The partitions.
        cuts: How their objects were cut before, and that some of them keep it.
        objects, size_bytes: Of the corpus.
    """

    manifest: Manifest
    cuts: Cuts
    objects: int
    size_bytes: int


def freeze(job: Job, store: Store) -> Frozen:
    """List the corpus and cut it into partitions; nothing is written.

    Args:
        job: The job.
        store: Its work location, where earlier cuts are looked up.

    Raises:
        PermanentError, TransientError: Those of plan.
    """
    scorer = describe(job)
    _check_columns(job, scorer)
    objects = list_objects(job.corpus, job.format, job.selection)
    check_apart(job.corpus, job.work, (item.uri for item in objects))
    cuts = Cuts(store, scorer.fingerprint, job.options_digest, job.partition_rows)
    cuts.look()
    kept = KeptColumns(job.reading)
    manifest = Manifest.freeze(
        scorer=scorer,
        reading=job.reading,
        max_tokens=job.max_tokens,
        long_documents=job.long_documents,
        options_digest=job.options_digest,
        partitions=cuts.chosen(split(objects, job.partition_rows, job.reading, kept)),
        kept=lambda: kept.schema,
    )
    return Frozen(manifest, cuts, len(objects), sum(item.size_bytes for item in objects))


def check_warehouse(job: Job, *, dry: bool = False) -> None:
    """Find out before anything is spent whether the table can take the scores.

    Another run may be loading, which is no reason not to score meanwhile: the load will wait longer for it.

    Args:
        job: The job.
        dry: Make nothing: a database that opening would make is not opened.

    Raises:
        WarehouseError: It refuses the login, or the table has other columns.
        WarehouseUnavailable: It does not answer.
    """
    if dry and makes(job.warehouse):
        return
    labels = describe(job).labels
    try:
        with open_warehouse(job.warehouse, job.table, options=job.target, patience_seconds=_PATIENCE_SECONDS) as target:
            target.check(labels, job.reading.kept_names)
    except WarehouseBusy as error:
        log.warning("The table is not checked before scoring, since another writer has it: %s", error)


def describe(job: Job) -> ScorerInfo:
    """Labels and fingerprint of the job's model, asked where it will run.

    Raises:
        ModelError: It is not one.
        ClusterUnavailable: The cluster does not answer in time, or lost the workers that it asked.
        ClusterError: The cluster cannot be used.
    """
    options = job.scoring
    arguments: dict[str, Any] = {
        "backend": options.backend,
        "device": options.device,
        "precision": options.precision,
        "max_tokens": options.max_tokens,
        "allow_pickle": options.allow_pickle,
        "long_documents": options.long_documents,
    }
    if is_service(options.model):
        service_address(options.model)  # before it goes anywhere
    if job.cluster == "local":
        return describe_scorer(options.model, **arguments)
    info: ScorerInfo = asyncio.run(_described(job.cluster, options.model, arguments))
    return info


async def _described(cluster: str, model: str, arguments: dict[str, Any]) -> Any:
    async with connected(cluster) as client:
        what = f"Describing the model {model!r}"
        return await run_one(client, describe_scorer, model, what=what, limit=LOADING.seconds(), **arguments)


def _check_columns(job: Job, scorer: ScorerInfo) -> None:
    if problems := column_problems(job.reading.kept_names, scorer.labels):
        raise JobError("; ".join(problems), rule=COLUMN_RULE, next_step=COLUMN_NEXT_STEP)
    if unknown := [label for label in job.labels if label not in scorer.labels]:
        raise JobError(
            f"The model {scorer.model!r} has no label {', '.join(map(repr, unknown))}",
            rule=f"Its labels are {', '.join(scorer.labels[:30])}{' …' if len(scorer.labels) > 30 else ''}",
            next_step="correct --label, or leave it out to keep all",
        )


def chunks(pending: Sequence[int]) -> list[list[int]]:
    """Ranges of partition indexes that cover what is pending, a few hundred at the most."""
    size = max(_SMALLEST_CHUNK, -(-len(pending) // _CHUNKS))
    return [[pending[at], pending[min(at + size, len(pending)) - 1] + 1] for at in range(0, len(pending), size)]
