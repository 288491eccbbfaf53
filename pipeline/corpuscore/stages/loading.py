"""Load: bring exactly what validation checked into the warehouse, and count it there.

Objects that are in the table but have left the corpus are kept, removed or an error, as the job says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from corpuscore.corpus import confirm_gone, find_departed, list_versions
from corpuscore.errors import DamagedDocument, MissingDocument, ValidationFailed, WarehouseError
from corpuscore.records import CheckedPart, Finding
from corpuscore.runs import Run
from corpuscore.stages.moved import find_moved
from corpuscore.summaries import LoadSummary
from corpuscore.warehouse import Counts, RunRow, Warehouse, find_outdated, load_parts, open_warehouse, remove_objects


def load(run: str, *, warehouse: str | None = None) -> LoadSummary:
    """Load exactly what validation checked, count it in the warehouse, then see to objects that have left the corpus.

    Args:
        run: URI of the run's folder.
        warehouse: Its URL with the password, where the job's has none.

    Raises:
        MissingDocument: The run has not been validated.
        ValidationFailed: A part is not the one that was checked; or objects have left the corpus, where the job says
            that this is an error.
        WarehouseError, WarehouseUnavailable: The warehouse refuses, is down, or does not hold what was loaded.
    """
    started = datetime.now(UTC)
    opened = Run.open(run)
    job, scorer = opened.job, opened.manifest.scorer
    parts = _checked(opened)
    with open_warehouse(warehouse or job.warehouse, job.table, options=job.target) as target:
        departed, gone = _departed(target, opened)
        if departed and job.departed == "fail":
            raise _departed_error(opened, departed)
        kept = opened.manifest.kept
        target.prepare(scorer.labels, kept)
        done = load_parts(
            target,
            opened.id,
            scorer.fingerprint,
            scorer.labels,
            kept,
            parts,
            opened.store.open,
            planned_at=opened.planned_at,
        )
        outdated, in_table = _reconcile(target, opened, parts, set(done.outdated))
        leaving = sorted([*departed, *gone]) if job.departed == "remove" else []
        removed = remove_objects(target, opened.id, scorer.fingerprint, leaving, opened.planned_at)
        loaded = [part for part in parts if part.uri not in outdated]
        _record(target, opened, loaded, started)
    left_out = [part for part in parts if part.uri in outdated]
    summary = LoadSummary(
        rows_loaded=done.rows_loaded,
        rejects_loaded=done.rejects_loaded,
        work_ids_loaded=done.work_ids_loaded,
        work_ids_skipped=done.work_ids_skipped,
        rows_superseded=done.rows_superseded,
        objects_outdated=len(outdated),
        rows_outdated=sum(part.scored + part.rejected for part in left_out),
        objects_departed=len(departed),
        rows_departed=sum(departed.values()),
        rows_removed=removed,
        findings=[
            finding.to_json()
            for finding in (*_outdated(left_out), *_departed_warning(opened, departed), *find_moved(opened, loaded))
        ],
        seconds=(datetime.now(UTC) - started).total_seconds(),
    )
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
    found = f"Run {opened.uri} has not been validated, or not without errors"
    try:
        checked = opened.read_checked()
    except DamagedDocument as error:
        checked, found = None, error.value
    if checked is None:
        raise MissingDocument(
            found,
            rule="Only what validation checked is loaded",
            next_step=f"corpuscore validate --run {opened.uri}",
        )
    return checked


def _reconcile(
    target: Warehouse, opened: Run, parts: Sequence[CheckedPart], outdated: set[str]
) -> tuple[set[str], Counts]:
    """Objects that a later plan has loaded, also since, and the rows of the others: those that were checked."""
    while True:
        current = [part for part in parts if part.uri not in outdated]
        found = target.count([part.work_id for part in current])
        expected = Counts(sum(part.scored for part in current), sum(part.rejected for part in current))
        if found == expected:
            return outdated, found
        known = target.objects(opened.manifest.scorer.fingerprint, sorted({part.uri for part in current}))
        since = find_outdated(current, known, opened.planned_at)
        if not since:
            raise WarehouseError(
                f"The table {opened.job.table} holds {found.scored:,} rows and {found.rejected:,} rejects of this run, "
                f"checked were {expected.scored:,} and {expected.rejected:,}",
                rule="Rows planned = rows scored + rows rejected = rows in the warehouse + rows that are outdated",
                next_step="find out who else writes to this table, then plan again; rows of changed work are replaced",
            )
        outdated = outdated | since


def _outdated(parts: Sequence[CheckedPart]) -> list[Finding]:
    """The warning for objects that a later plan had loaded otherwise."""
    if not parts:
        return []
    uris = sorted({part.uri for part in parts})
    rows = sum(part.scored + part.rejected for part in parts)
    message = (
        f"{rows:,} documents of {len(uris):,} objects were not loaded, such as {uris[0]}. Rule: what an earlier plan "
        "saw does not replace what a later one has loaded. Next: nothing, or plan again to load the corpus as it is."
    )
    return [Finding("outdated", "warning", message, {"objects": len(uris), "rows": rows, "examples": uris[:3]})]


def _departed(target: Warehouse, opened: Run) -> tuple[dict[str, int], list[str]]:
    """Documents of each object in the table that this run's corpus would have, and no longer has; and those that are
    gone from the table too, since an earlier plan did not have them.

    Never objects of other corpora in the same table, of other models, or what this plan or a later one has seen.
    """
    known = target.objects(opened.manifest.scorer.fingerprint)
    older = [uri for uri, item in known.items() if item.is_older(opened.planned_at)]
    selection = opened.job.selection
    left = find_departed(older, opened.corpus, opened.manifest.uris, selection)
    if left and selection.since:  # which left out what is there
        present = list_versions(opened.corpus, replace(selection, since=None))
        left = [uri for uri in left if uri not in present]
    there = [uri for uri in left if not known[uri].gone]
    if opened.job.departed != "keep":  # rows are at stake
        there = confirm_gone(there, opened.corpus, selection)
    return {uri: known[uri].documents for uri in there}, [uri for uri in left if known[uri].gone]


def _departed_error(opened: Run, departed: Mapping[str, int]) -> ValidationFailed:
    return ValidationFailed(
        f"The table {opened.job.table} holds {_counted(departed)} that are no longer in the corpus",
        rule="With --departed fail nothing is loaded then",
        next_step="put the objects back; or plan again with --departed remove, or keep",
    )


def _departed_warning(opened: Run, departed: Mapping[str, int]) -> list[Finding]:
    if not departed:
        return []
    if opened.job.departed == "remove":
        message = f"{_counted(departed)} that are no longer in the corpus were removed from the table."
    else:
        message = (
            f"The table holds {_counted(departed)} that are no longer in the corpus. Rule: with --departed keep they "
            "stay, and are there twice if they were renamed or merged. Next: plan again with --departed remove, if so."
        )
    values = {"objects": len(departed), "rows": sum(departed.values()), "examples": sorted(departed)[:3]}
    return [Finding("departed", "warning", message, values)]


def _counted(departed: Mapping[str, int]) -> str:
    return f"{sum(departed.values()):,} documents of {len(departed):,} objects (such as {min(departed)})"


def _record(target: Warehouse, opened: Run, parts: Sequence[CheckedPart], started: datetime) -> None:
    """Write the run's row, unless it is there and tells of all that the run has changed.

    The ledger says what was changed, whichever call did it: one that was killed before it came to the row, or whose
    COMMIT was carried out although its answer was lost.
    """
    changed = target.changed_at(opened.id)
    recorded = next((row for row in target.runs(opened.manifest.scorer.fingerprint) if row.run_id == opened.id), None)
    if changed and (recorded is None or recorded.finished_at is None or recorded.finished_at < changed):
        target.record_run(_run_row(opened, parts, started, max(changed, datetime.now(UTC))))


def _run_row(opened: Run, parts: Sequence[CheckedPart], started: datetime, finished: datetime) -> RunRow:
    findings = opened.read("findings") or {}
    scored, rejected = sum(part.scored for part in parts), sum(part.rejected for part in parts)
    return RunRow(
        run_id=opened.id,
        model=opened.manifest.scorer.fingerprint,
        state="done",
        started_at=started,
        finished_at=finished,
        manifest=opened.manifest.id,
        rows=scored + rejected,
        scored=scored,
        rejected=rejected,
        label_means=findings.get("label_means", {}),
        details={"model": opened.job.model, "corpus": list(opened.job.corpus), "run": opened.uri},
    )
