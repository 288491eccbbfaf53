"""What the stages return: JSON-sized, so that they fit into an XCom and onto a terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Summary:
    """Base of all."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PlanSummary(_Summary):
    """What plan found.

    Attributes:
        run: URI of the run's folder.
        run_id, manifest: Their names.
        objects, size_bytes: Of the corpus.
        partitions, pending: Of the manifest, and those still to be scored.
        kept_cuts: Objects that keep the partitions in which they were scored, though others were asked for now.
        rows: Documents, None where the formats don't say before reading.
        chunks: [start, stop] of partition indexes for the mapped tasks; only what is pending.
        model, labels, fingerprint, precision: Of the scorer.
    """

    run: str
    run_id: str
    manifest: str
    objects: int
    size_bytes: int
    partitions: int
    pending: int
    kept_cuts: int
    rows: int | None
    chunks: list[list[int]]
    model: str
    labels: list[str]
    fingerprint: str
    precision: str


@dataclass(frozen=True, slots=True)
class ScoreSummary(_Summary):
    """What score did: partitions, documents and tokens of this call, and the seconds it took."""

    partitions: int
    rows: int
    scored: int
    rejected: int
    tokens: int
    unique_texts: int
    seconds: float
    busy: dict[str, float]


@dataclass(frozen=True, slots=True)
class ValidationSummary(_Summary):
    """What validate found: documents, findings by level, and the findings themselves as JSON.

    Attributes:
        rows, scored, rejected: Documents of the whole run, by its receipts.
        checked: Parts that were read; those that are in the warehouse already, with the same digest, were not.
        errors, warnings: Findings of these levels.
        findings: All of them.
    """

    rows: int
    scored: int
    rejected: int
    checked: int
    errors: int
    warnings: int
    findings: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class LoadSummary(_Summary):
    """What load did: rows and rejects written, older rows replaced; zeros where all of it was there already.

    Attributes:
        objects_outdated, rows_outdated: Objects that a later plan had loaded otherwise, and the documents of this run
            (scored and rejected) that were left out for them.
        objects_departed, rows_departed: Objects in the table that have left the corpus, and their documents.
        rows_removed: Rows and rejects of theirs that were deleted.
        findings: Warnings of the load, as JSON.
    """

    rows_loaded: int
    rejects_loaded: int
    work_ids_loaded: int
    work_ids_skipped: int
    rows_superseded: int
    objects_outdated: int
    rows_outdated: int
    objects_departed: int
    rows_departed: int
    rows_removed: int
    findings: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True, slots=True)
class PruneSummary(_Summary):
    """What prune found, and what it removed.

    Attributes:
        table: Its name.
        objects, rows: Objects that have left the corpus, and their documents in the table, by all models.
        models: Models that have scored any of them.
        examples: A few of the objects.
        removed: Rows and rejects that went; 0 where it only counted.
    """

    table: str
    objects: int
    rows: int
    models: int
    examples: list[str]
    removed: int


@dataclass(frozen=True, slots=True)
class RunStatus(_Summary):
    """How far a run is: planned, scored, validated or loaded, and its counts up to there."""

    run: str
    stage: str
    partitions: int
    pending: int
    started_at: str
    errors: int | None = None
    rows_loaded: int | None = None
    report: str | None = None


@dataclass(frozen=True, slots=True)
class RunLine(_Summary):
    """A run as a list of runs shows it, by its documents alone.

    Attributes:
        run, run_id: Its URI and its name.
        planned_at: When it was planned last, in ISO 8601.
        stage: loaded, failed validation, or not loaded.
        documents, rejected: As validation counted them; None before it.
        model, table, warehouse, corpus: Of its job, without passwords.
    """

    run: str
    run_id: str
    planned_at: str
    stage: str
    documents: int | None
    rejected: int | None
    model: str
    table: str
    warehouse: str
    corpus: list[str]


@dataclass(frozen=True, slots=True)
class RejectedDocument:
    """A document that was not scored.

    Attributes:
        object_uri: Its object.
        position: In it, from 0: a row of Parquet or Arrow, else the byte at which it begins, in the plain object.
        document_id: As a row of the table would have it.
        reason, detail: In a word and in a sentence.
    """

    object_uri: str
    position: int
    document_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RejectsSummary(_Summary):
    """Documents of a run that were not scored.

    Attributes:
        run: URI of the run's folder.
        rejected: How many there are, of the reason that was asked for.
        reasons: All of them, by reason.
        missing: Partitions that have no receipt (yet): what they reject is not known.
        rejects: As many as were asked for.
    """

    run: str
    rejected: int
    reasons: dict[str, int]
    missing: int
    rejects: list[RejectedDocument]
