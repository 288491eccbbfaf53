"""Report: sum a run up for the people who wait for it, and tidy up after it."""

from __future__ import annotations

import heapq
import logging
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from corpuscore import __version__
from corpuscore.corpus import DocumentReader
from corpuscore.errors import CorpusError, MissingDocument, StorageError, ValidationFailed
from corpuscore.job import Job
from corpuscore.receipts import Receipts
from corpuscore.records import Finding, Receipt
from corpuscore.report import ObjectLine, RejectLine, Report, Strongest, page_of
from corpuscore.report.queries import queries
from corpuscore.runs import Run
from corpuscore.stages.looking import rejects_in
from corpuscore.warehouse import Summary, kind_of, open_warehouse
from corpuscore.words import flag_of

log = logging.getLogger(__name__)

_LABELS_WITH_A_PARAGRAPH = 8

#: Steps of the timeline; objects and rejects that are listed.
_STEPS = 60
_OBJECTS = 20
_REJECTS = 20


def report(run: str, *, warehouse: str | None = None) -> Report:
    """Sum a loaded run up, from its files and the warehouse; sweeps old parts that no receipt names.

    Args:
        run: URI of the run's folder.
        warehouse: Its URL with the password, where the job's has none.

    Raises:
        MissingDocument: The run has not been loaded.
    """
    opened = Run.open(run)
    loaded = opened.read("load")
    if loaded is None:
        raise MissingDocument(f"Run {opened.uri} has not been loaded", next_step=f"corpuscore load --run {opened.uri}")
    job, scorer, receipts = opened.job, opened.manifest.scorer, opened.receipts()
    with open_warehouse(warehouse or job.warehouse, job.table, options=job.target) as target:
        labels = job.target.stored(scorer.labels)
        found = target.summary(labels, work_ids=opened.manifest.work_ids, strongest=_labels_to_show(opened, labels))
    made = _report(opened, receipts, loaded, found)
    opened.write(opened.report_name, made.to_json())
    opened.store.write(f"runs/{opened.id}/{opened.report_name}.html", page_of(made).encode())
    opened.sweep(receipts.found)
    return made


def _report(opened: Run, read: Receipts, loaded: dict[str, Any], found: Summary) -> Report:
    job, scorer = opened.job, opened.manifest.scorer
    receipts = read.found
    rounds = opened.read_scores()
    findings = opened.read("findings") or {}
    scored_now = sum(item["partitions"] for item in rounds)
    fresh = heapq.nlargest(scored_now, receipts.values(), key=lambda receipt: receipt.ended)
    return Report(
        run=opened.uri,
        run_id=opened.id,
        page=f"{opened.uri}/{opened.report_name}.html",
        corpus=list(job.corpus),
        model=job.model,
        precision=scorer.precision,
        fingerprint=scorer.fingerprint,
        warehouse=job.warehouse,
        table=job.table,
        partitions=len(opened.manifest),
        scored_partitions=scored_now,
        rows=sum(receipt.rows for receipt in receipts.values()),
        scored=sum(receipt.scored for receipt in receipts.values()),
        rejected=sum(receipt.rejected for receipt in receipts.values()),
        truncated=sum(receipt.truncated for receipt in receipts.values()),
        reasons=found.reasons,
        rows_loaded=loaded["rows_loaded"],
        rejects_loaded=loaded["rejects_loaded"],
        superseded=loaded["rows_superseded"],
        rows_in_table=loaded["rows_in_table"],
        rejects_in_table=loaded["rejects_in_table"],
        tokens=sum(item["tokens"] for item in rounds),
        unique_texts=sum(item["unique_texts"] for item in rounds),
        seconds=_wall_seconds(rounds),
        busy=_added(item["busy"] for item in rounds),
        label_means=found.label_means,
        label_shares=found.label_shares,
        strongest=_strongest(opened, found),
        findings=[
            *findings.get("findings", []),
            *loaded.get("findings", []),
            *(finding.to_json() for finding in _uncounted(opened, read)),
        ],
        outdated=loaded.get("rows_outdated", 0),
        removed=loaded.get("rows_removed", 0),
        started=opened.facts["started_at"],
        ended=datetime.now(UTC).isoformat(),
        asked_by=str(opened.facts.get("asked_by", "")),
        options=_options(job),
        versions=_versions(),
        backend=scorer.backend,
        arithmetic=scorer.arithmetic,
        workers=len({receipt.worker for receipt in fresh}),
        worker_seconds=sum(receipt.seconds for receipt in fresh),
        timeline=_timeline(fresh),
        previous_means=findings.get("previous_means", {}),
        score_bins=findings.get("score_bins", {}),
        token_bins=findings.get("token_bins", []),
        objects=_objects(receipts.values()),
        objects_total=len({receipt.uri for receipt in receipts.values()}),
        rejects=_rejects(opened, receipts.values()),
        queries=queries(kind_of(job.warehouse), job.table, _by_share(found), opened.id),
    )


def _options(job: Job) -> dict[str, Any]:
    """What was asked for beyond where from, with what and where to; by the names of the options."""
    told = ("corpus", "model", "work", "warehouse", "table")
    fields = ((name, field) for name, field in Job.model_fields.items() if name not in told)
    values = job.without_secrets().model_dump(mode="json")
    return {flag_of(name): values[name] for name, field in fields if getattr(job, name) != field.default}


def _versions() -> dict[str, str]:
    """Of this process; a model's libraries need not be where the report is made."""
    found = {"corpuscore": __version__, "python": platform.python_version()}
    for name in ("dask", "pyarrow", "torch", "transformers"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _timeline(receipts: Sequence[Receipt]) -> list[float]:
    """Documents a second in equal steps of the time of scoring, as if those of a partition came evenly."""
    spans = [(receipt.ended - receipt.seconds, receipt.ended, receipt.rows) for receipt in receipts if receipt.ended]
    if not spans:
        return []
    began, ended = min(span[0] for span in spans), max(span[1] for span in spans)
    step = max((ended - began) / _STEPS, 1e-3)
    steps = [0.0] * _STEPS
    for first, last, rows in spans:
        low, high = (first - began) / step, max((last - began) / step, (first - began) / step + 1e-9)
        for at in range(int(low), min(math.ceil(high), _STEPS)):
            steps[at] += rows * (min(high, at + 1) - max(low, at)) / (high - low) / step
    return [round(value, 3) for value in steps]


def _objects(receipts: Iterable[Receipt]) -> list[ObjectLine]:
    """The objects with the most documents."""
    totals: dict[str, ObjectLine] = {}
    for receipt in receipts:
        known = totals.get(receipt.uri, ObjectLine(receipt.uri, 0, 0, 0, 0))
        totals[receipt.uri] = ObjectLine(
            receipt.uri,
            known.rows + receipt.rows,
            known.scored + receipt.scored,
            known.rejected + receipt.rejected,
            known.tokens + receipt.tokens,
        )
    return heapq.nsmallest(_OBJECTS, totals.values(), key=lambda item: (-item.rows, item.uri))


def _rejects(opened: Run, receipts: Iterable[Receipt]) -> list[RejectLine]:
    """Some rejects; none where a part of theirs has gone since it was loaded."""
    try:
        found = list(islice(rejects_in(opened, receipts), _REJECTS))
    except (ValidationFailed, StorageError) as error:
        log.warning("Rejects are not listed: %s", error)
        return []
    return [RejectLine(f"{item.object_uri}#{item.position}", item.reason, item.detail) for item in found]


def _by_share(found: Summary) -> list[str]:
    return sorted(found.label_shares, key=lambda label: (-found.label_shares[label], label))


def _uncounted(opened: Run, read: Receipts) -> list[Finding]:
    """The warning for receipts that are gone or damaged since they were checked."""
    missing = [work_id for work_id in opened.manifest.work_ids if work_id not in read.found]
    if not missing:
        return []
    message = (
        f"{len(missing):,} receipts are missing or damaged, such as that of {missing[0]}, and are not counted here. "
        "Rule: receipts stay as long as their run. Next: run the same again, which scores their partitions anew."
    )
    return [Finding("receipts", "warning", message, {"receipts": len(missing), "examples": missing[:3]})]


def _labels_to_show(opened: Run, labels: Sequence[str]) -> list[str]:
    """Labels for which a paragraph is shown: those with the highest means, each costs a pass over the rows."""
    means = (opened.read("findings") or {}).get("label_means") or {}
    return sorted(labels, key=lambda label: -means.get(label, 0.0))[:_LABELS_WITH_A_PARAGRAPH]


def _wall_seconds(rounds: Sequence[Mapping[str, Any]]) -> float:
    """From the first start to the last end: calls of score overlap."""
    if not rounds:
        return 0.0
    return float(max(item["ended"] for item in rounds) - min(item["began"] for item in rounds))


def _added(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for item in counts:
        for name, value in item.items():
            total[name] = total.get(name, 0) + value
    return total


def _strongest(opened: Run, found: Summary) -> list[Strongest]:
    """The strongest document of each label shown, with its text looked up in the corpus."""
    firsts = {label: documents[0] for label, documents in found.strongest.items() if documents}
    wanted: dict[str, set[str]] = {}
    for item in firsts.values():
        wanted.setdefault(item.work_id, set()).add(item.document_id)
    places = {work_id: at for at, work_id in enumerate(opened.manifest.work_ids)}
    texts = {work_id: _texts_of(opened, places[work_id], ids) for work_id, ids in wanted.items()}
    shown = [
        Strongest(label, item.probability, item.document_id, texts[item.work_id].get(item.document_id, ""))
        for label, item in firsts.items()
    ]
    return sorted(shown, key=lambda item: -item.probability)


def _texts_of(opened: Run, partition: int, document_ids: set[str]) -> dict[str, str]:
    """Texts of some documents of a partition by id, without those that are gone because the corpus has moved on."""
    texts: dict[str, str] = {}
    try:
        with DocumentReader(opened.manifest.partition(partition), opened.job.reading) as reader:
            for documents in reader:
                for document_id in document_ids - texts.keys():
                    at = pc.index(documents.column("document_id"), document_id).as_py()
                    if at >= 0:
                        texts[document_id] = str(documents.column("text")[at].as_py() or "")
                if len(texts) == len(document_ids):
                    break
    except CorpusError:
        pass
    return texts
