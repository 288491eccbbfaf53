"""Validate: check what was scored before it is loaded."""

from __future__ import annotations

from corpuscore.errors import ValidationFailed
from corpuscore.runs import Run
from corpuscore.summaries import ValidationSummary
from corpuscore.validation import Validation
from corpuscore.validation import validate as validate_parts
from corpuscore.warehouse import Warehouse, open_warehouse


def validate(run: str, *, warehouse: str | None = None) -> ValidationSummary:
    """Check the scores of a run before they are loaded; the findings are stored with the run.

    What the ledger holds with the same digest was checked before it was loaded, and is not read again.

    Args:
        run: URI of the run's folder.
        warehouse: Its URL with the password, where the job's has none.

    Raises:
        ValidationFailed: There is an error-level finding. What an earlier validation had checked is not loaded any
            more; receipts that are damaged, or whose parts are, are withdrawn, so that the next run scores them again.
    """
    opened = Run.open(run)
    job, manifest = opened.job, opened.manifest
    with open_warehouse(warehouse or job.warehouse, job.table, options=job.target) as target:
        ledger = target.ledger(manifest.scorer.fingerprint)
        previous = _previous_means(target, manifest.scorer.fingerprint)
    receipts = opened.receipts()
    found = validate_parts(
        zip(manifest, manifest.work_ids, strict=True),
        receipts.found,
        manifest.scorer,
        opened.store.open,
        max_reject_fraction=job.max_reject_fraction,
        long_documents=job.long_documents,
        previous_means=previous,
        loaded=ledger,
        unreadable=receipts.damaged,
    )
    summary = _summary(found)
    means = {"label_means": found.label_means, "previous_means": previous or {}}
    bins = {"score_bins": found.score_bins, "token_bins": found.token_bins}
    opened.write("findings", {**summary.to_json(), **means, **bins})
    if found.errors:
        opened.forget_checked()
        opened.withdraw(found.damaged)
        raise _failed(opened.id, found)
    opened.write_checked(found.parts)
    return summary


def _failed(run_id: str, found: Validation) -> ValidationFailed:
    messages = "; ".join(finding.message.rstrip(".") for finding in found.errors)
    step = (
        f"run the same again, which scores the {len(found.damaged):,} partitions whose receipts were withdrawn; in "
        "Airflow, clear the task `plan` and those after it"
    )
    return ValidationFailed(
        f"Run {run_id} has {len(found.errors)} errors: {messages}",
        rule="Nothing of a run is loaded while there are errors",
        next_step=step if found.damaged else "",
    )


def _previous_means(target: Warehouse, fingerprint: str) -> dict[str, float] | None:
    """Label means of the last loaded run of this model."""
    done = (row for row in target.runs(fingerprint) if row.state == "done" and row.label_means)
    latest = next(done, None)
    return dict(latest.label_means) if latest else None


def _summary(found: Validation) -> ValidationSummary:
    levels = [finding.level for finding in found.findings]
    return ValidationSummary(
        rows=found.rows,
        scored=found.scored,
        rejected=found.rejected,
        checked=found.checked,
        errors=levels.count("error"),
        warnings=levels.count("warning"),
        findings=[finding.to_json() for finding in found.findings],
    )
