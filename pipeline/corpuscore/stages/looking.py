"""Look: which runs a work location has, how far one is, and what it rejected. Nothing is changed, nothing is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.addresses import shown
from corpuscore.errors import JobError, MissingDocument
from corpuscore.parts import open_checked
from corpuscore.records import Receipt, Status
from corpuscore.rundocuments import document_of, facts_of
from corpuscore.runs import Run
from corpuscore.storage import Store, read_documents
from corpuscore.summaries import RejectedDocument, RejectsSummary, RunLine, RunStatus

_BATCH_ROWS = 65_536
_REJECTED = pa.array([Status.EMPTY.value, Status.REJECTED.value])


def runs(work: str) -> list[RunLine]:
    """The runs of a work location, the one that was planned last first.

    Args:
        work: URI of the work location.

    Raises:
        StorageError, StorageUnavailable: It cannot be read.
    """
    store = Store(work)
    ids = [key.split("/")[1] for key in store.find("runs/") if key.endswith("/run.json")]
    facts, _ = read_documents(store, {f"runs/{name}/run.json": partial(facts_of, name) for name in ids})
    others = {f"runs/{name}/{kind}.json": partial(document_of, kind) for name in ids for kind in ("findings", "load")}
    documents, _ = read_documents(store, others)
    lines = [_line(store, name, facts[key], documents) for name in ids if (key := f"runs/{name}/run.json") in facts]
    return sorted(lines, key=lambda line: line.planned_at, reverse=True)


def _line(store: Store, name: str, facts: Mapping[str, Any], documents: Mapping[str, dict[str, Any]]) -> RunLine:
    findings, loaded = (documents.get(f"runs/{name}/{kind}.json") for kind in ("findings", "load"))
    is_loaded = loaded is not None and loaded["started_at"] == facts["started_at"]
    job = facts["job"]
    return RunLine(
        run=store.uri_of(f"runs/{name}"),
        run_id=name,
        planned_at=facts.get("planned_at") or facts["started_at"],
        stage="loaded" if is_loaded else "failed validation" if findings and findings["errors"] else "not loaded",
        documents=(findings or {}).get("rows"),
        rejected=(findings or {}).get("rejected"),
        model=str(job.get("model", "")),
        table=str(job.get("table", "")),
        warehouse=shown(str(job.get("warehouse", ""))),
        corpus=list(facts.get("corpus", ())),
    )


def find_run(name: str | None, work: str | None) -> str:
    """The URI of the run that somebody means.

    Args:
        name: Its URI; or the beginning of its id; or None for the one that was planned last.
        work: The work location in which an id, or the last one, is looked up.

    Raises:
        JobError: There is none, or more than one, or nobody said where to look.
    """
    if name and "/" in name:
        try:
            return Run.open(name).uri
        except MissingDocument as error:
            raise JobError(error.value, rule=error.rule, next_step=error.next_step) from error
    if not work:
        raise JobError(
            f"Which run is {name!r}" if name else "No run was named",
            rule="A run is WORK/runs/RUN_ID; or the beginning of its id, looked up in a work location",
            next_step="add --work WORK, or set CORPUSCORE_WORK",
        )
    found = [line for line in runs(work) if line.run_id.startswith(name or "")]
    if not found:
        what = f"There is no run {name!r} at {shown(work)}" if name else f"There are no runs at {shown(work)}"
        raise JobError(what, next_step=f"corpuscore runs --work {shown(work)} lists those that there are")
    if name and len(found) > 1:
        ids = ", ".join(line.run_id for line in found[:5])
        raise JobError(f"{name!r} begins {len(found)} runs: {ids}", next_step="give more of the id")
    return found[0].run


def rejects(run: str, *, reason: str | None = None, limit: int | None = 20) -> RejectsSummary:
    """Documents of a run that were not scored, object by object in the order of the corpus; read from its parts.

    Args:
        run: URI of the run's folder.
        reason: Only those of this reason.
        limit: How many are listed; None: all.

    Raises:
        MissingDocument: There is no run.
        JobError: None of its rejects has this reason.
        ValidationFailed: A part is damaged.
    """
    opened = Run.open(run)
    found = opened.receipts().found
    receipts = [found[work_id] for work_id in opened.manifest.work_ids if work_id in found]
    reasons: Counter[str] = Counter()
    for receipt in receipts:
        reasons.update(receipt.reasons)
    if reason and reason not in reasons:
        raise JobError(
            f"No document of run {opened.id} was rejected as {reason!r}",
            rule=f"Its reasons are {', '.join(sorted(reasons)) or 'none: nothing was rejected'}",
            next_step="name one of these, or leave --reason out",
        )
    return RejectsSummary(
        run=opened.uri,
        rejected=reasons[reason] if reason else reasons.total(),
        reasons=dict(reasons.most_common()),
        missing=len(opened.manifest) - len(receipts),
        rejects=list(islice(rejects_in(opened, receipts, reason), limit)),
    )


def rejects_in(opened: Run, receipts: Iterable[Receipt], reason: str | None = None) -> Iterator[RejectedDocument]:
    """The rejects of some parts, which are read as far as they are asked for.

    Args:
        opened: The run.
        receipts: Of the parts.
        reason: Only those of this reason.

    Raises:
        ValidationFailed: A part is damaged.
        StorageError, StorageUnavailable: A part is gone, or the store does not answer.
    """
    for receipt in receipts:
        if receipt.reasons.get(reason) if reason else receipt.rejected:
            yield from (found for found in _rejects_of(opened, receipt) if reason in (None, found.reason))


def _rejects_of(opened: Run, receipt: Receipt) -> Iterator[RejectedDocument]:
    columns = ["document_id", "position", "reason", "detail", "status"]
    with open_checked(opened.store.open, receipt.part, receipt.digest) as file:
        for rows in file.iter_batches(_BATCH_ROWS, columns=columns):
            for row in rows.filter(pc.is_in(rows.column("status"), _REJECTED)).to_pylist():
                yield RejectedDocument(
                    object_uri=receipt.uri,
                    position=row["position"],
                    document_id=row["document_id"],
                    reason=row["reason"] or "",
                    detail=row["detail"] or "",
                )


def status(run: str) -> RunStatus:
    """How far a run is.

    Raises:
        MissingDocument: There is no run at this URI.
    """
    opened = Run.open(run)
    pending = len(opened.pending())
    findings = opened.read("findings")
    loaded = opened.read("load") if opened.is_loaded else None
    return RunStatus(
        run=opened.uri,
        stage=_stage(pending, findings, loaded),
        partitions=len(opened.manifest),
        pending=pending,
        started_at=opened.facts["started_at"],
        errors=findings["errors"] if findings else None,
        rows_loaded=loaded["rows_loaded"] if loaded else None,
        report=opened.store.uri_of(pages[-1]) if (pages := opened.pages()) else None,
    )


def _stage(pending: int, findings: Mapping[str, Any] | None, loaded: Mapping[str, Any] | None) -> str:
    if pending:
        return "planned"
    if loaded:
        return "loaded"
    if findings is None:
        return "scored"
    return "failed validation" if findings["errors"] else "validated"
