"""Load: bring exactly what validation checked into the warehouse, and count it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.errors import JobError, WarehouseError
from corpuscore.records import CheckedPart
from corpuscore.runs import Run
from corpuscore.summaries import LoadSummary
from corpuscore.warehouse import Counts, RunRow, Warehouse, load_parts, open_warehouse


def load(run: str, *, warehouse: str | None = None) -> LoadSummary:
    """Load exactly what validation checked, then count it in the warehouse.

    Args:
        run: URI of the run's folder.
        warehouse: Its URL with the password, where the job's has none.

    Raises:
        JobError: The run has not been validated.
        ValidationFailed: A part is not the one that was checked.
        WarehouseError, WarehouseUnavailable: The warehouse refuses, is down, or does not hold what was loaded.
    """
    started = datetime.now(UTC)
    opened = Run.open(run)
    job, scorer = opened.job, opened.manifest.scorer
    parts = _checked(opened)
    with open_warehouse(warehouse or job.warehouse, job.table) as target:
        kept = _kept_schema(opened, parts)
        target.prepare(scorer.labels, kept)
        done = load_parts(target, opened.id, scorer.fingerprint, scorer.labels, kept, parts, opened.store.open)
        in_table = _reconcile(target, parts, job.table)
        if done.work_ids_loaded:
            target.record_run(_run_row(opened, parts, started))
    summary = LoadSummary(**asdict(done), seconds=(datetime.now(UTC) - started).total_seconds())
    opened.write(
        "load",
        {
            **summary.to_json(),
            "rows_in_table": in_table.scored,
            "rejects_in_table": in_table.rejected,
            "started_at": opened.facts["started_at"],
        },
    )
    return summary


def _checked(opened: Run) -> list[CheckedPart]:
    checked = opened.read("checked")
    if checked is None:
        raise JobError(
            f"Run {opened.uri} has not been validated",
            rule="Only what validation checked is loaded",
            next_step=f"corpuscore validate --run {opened.uri}",
        )
    return [CheckedPart(**part) for part in checked]


def _kept_schema(opened: Run, parts: Sequence[CheckedPart]) -> pa.Schema:
    """Arrow schema of the kept columns; validation saw to it that it is the same in all parts."""
    names = opened.job.keep_columns
    if not names or not parts:
        return pa.schema([])
    with opened.store.open(parts[0].part) as file:
        schema = pq.read_schema(file)
    return pa.schema([schema.field(name) for name in names])


def _reconcile(target: Warehouse, parts: Sequence[CheckedPart], table: str) -> Counts:
    """Rows in the warehouse, which must be the rows that were checked."""
    found = target.count([part.work_id for part in parts])
    expected = Counts(sum(part.scored for part in parts), sum(part.rejected for part in parts))
    if found != expected:
        raise WarehouseError(
            f"The table {table} holds {found.scored:,} rows and {found.rejected:,} rejects of this run, "
            f"checked were {expected.scored:,} and {expected.rejected:,}",
            rule="Rows planned = rows scored + rows rejected = rows in the warehouse",
            next_step="find out who else writes to this table; loading again replaces the rows of changed work only",
        )
    return found


def _run_row(opened: Run, parts: Sequence[CheckedPart], started: datetime) -> RunRow:
    findings = opened.read("findings") or {}
    scored, rejected = sum(part.scored for part in parts), sum(part.rejected for part in parts)
    return RunRow(
        run_id=opened.id,
        model=opened.manifest.scorer.fingerprint,
        state="done",
        started_at=started,
        finished_at=datetime.now(UTC),
        manifest=opened.manifest.id,
        rows=scored + rejected,
        scored=scored,
        rejected=rejected,
        label_means=findings.get("label_means", {}),
        details={"model": opened.job.model, "corpus": list(opened.job.corpus), "run": opened.uri},
    )
