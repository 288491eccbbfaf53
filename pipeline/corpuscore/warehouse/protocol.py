"""The seam of the warehouse: what load, report and status ask of it.

    CheckedPart (from validation) -> load_parts -> Warehouse.load: one transaction for rows, rejects and ledger

What open_warehouse returns tries a call again while the warehouse is unavailable (retries.py); backends do not. So each
method can be called again, whatever became of the call before.

A new warehouse is one file in backends/, found by opening.py. Backends that speak SQL share corpuscore.warehouse.sql.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import pyarrow as pa

from corpuscore.parts import OpenPart
from corpuscore.records import CheckedPart
from corpuscore.warehouse.versions import LoadedObject


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """Parts for one transaction.

    Attributes:
        run_id: The run that loads.
        model: Fingerprint of the scorer.
        labels: Score columns, in the order of the parts.
        kept: Schema of the kept columns, as in the parts.
        parts: All parts of each object that they name; other work ids of those objects are superseded.
        planned_at: When the run listed the corpus; an object of which a later plan is loaded stays as it is.
        open_part: Opens a part by its URI.
    """

    run_id: str
    model: str
    labels: tuple[str, ...]
    kept: pa.Schema
    parts: tuple[CheckedPart, ...]
    planned_at: datetime
    open_part: OpenPart


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What a transaction did, or several; all zero but `work_ids_skipped` for a no-op.

    Attributes:
        rows_loaded: Rows written to the scores table.
        rejects_loaded: Rows written to the rejects table.
        work_ids_loaded: Work ids whose rows were written.
        work_ids_skipped: Work ids that were there with the same digest.
        rows_superseded: Older rows (scores and rejects) that went in the same transactions.
        outdated: Objects that a later plan has loaded otherwise: nothing of theirs was touched.
    """

    rows_loaded: int = 0
    rejects_loaded: int = 0
    work_ids_loaded: int = 0
    work_ids_skipped: int = 0
    rows_superseded: int = 0
    outdated: tuple[str, ...] = ()

    def __add__(self, other: LoadSummary) -> LoadSummary:
        return LoadSummary(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows that are in the warehouse, counted in the tables, not taken from the ledger."""

    scored: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Strongest:
    """A document with one of the highest probabilities for a label."""

    document_id: str
    probability: float
    work_id: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a report says of the loaded rows, computed in the warehouse.

    Attributes:
        scored: Rows in the scores table.
        rejected: Rows in the rejects table.
        truncated: Of the scored ones.
        tokens: Sum of token_count.
        reasons: Rejects by reason, most frequent first.
        label_means: Mean probability by label, in label order; empty where nothing is scored.
        label_shares: Share of the scored documents whose strongest label it is, in label order.
        strongest: By label, the documents with the highest probability, highest first.
    """

    scored: int
    rejected: int
    truncated: int
    tokens: int
    reasons: dict[str, int]
    label_means: dict[str, float]
    label_shares: dict[str, float]
    strongest: dict[str, tuple[Strongest, ...]]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of the runs table.

    Attributes:
        run_id: Its key.
        model: Fingerprint of the scorer.
        state: running, done or failed.
        started_at, finished_at: With a time zone; finished_at is None while it runs.
        manifest: URI of the manifest.
        rows, scored, rejected: Of the whole run, loaded now or before.
        label_means: For the next run to compare with.
        details: Anything JSON that a reader may want, such as the model's name and the corpus.
    """

    run_id: str
    model: str
    state: Literal["running", "done", "failed"]
    started_at: datetime
    finished_at: datetime | None = None
    manifest: str = ""
    rows: int = 0
    scored: int = 0
    rejected: int = 0
    label_means: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


class Warehouse(Protocol):
    """A place for scores. Every method is one transaction; none shows half of anything to a reader.

    Raises, all of them: WarehouseError for what fails again, WarehouseUnavailable for what may pass later.
    """

    def prepare(self, labels: Sequence[str], kept: pa.Schema) -> None:
        """Create the four tables, and their schema, or check that those which are there have exactly these columns.

        Raises:
            WarehouseError: Naming each column that is missing, extra or of another type; or a label or kept column
                whose name clashes or is too long.
        """
        ...

    def check(self, labels: Sequence[str], kept_names: Sequence[str]) -> None:
        """Whether the scores table, if there is one, can take these columns; before the kept columns' types are known.

        Raises:
            WarehouseError: As prepare does.
        """
        ...

    def load(self, batch: LoadBatch) -> LoadSummary:
        """Load the parts of whole objects in one transaction; the same digests again are a no-op.

        Versions of an object are ordered by when their runs were planned, decided under the lock of the object: what an
        earlier plan saw never replaces what a later one has loaded.

        Raises:
            ValidationFailed: A part's bytes, schema or counts are not those that validation checked.
        """
        ...

    def remove(self, run_id: str, model: str, uris: Sequence[str], planned_at: datetime) -> int:
        """Delete the rows, rejects and ledger entries of objects in one transaction; rows and rejects that went.

        An object that a plan of this time or a later one has seen stays, decided under its lock. Of the others the
        ledger keeps that they are gone, so that what an earlier plan saw of them is not loaded any more.
        """
        ...

    def ledger(self, model: str, uris: Sequence[str] | None = None) -> dict[str, str]:
        """Digest by work id, of all that is loaded for a model, or of these objects only."""
        ...

    def objects(self, model: str, uris: Sequence[str] | None = None) -> dict[str, LoadedObject]:
        """The ledger by object URI; objects that were removed are there too, as gone."""
        ...

    def count(self, work_ids: Sequence[str]) -> Counts:
        """Rows in the tables for these work ids."""
        ...

    def summary(
        self,
        labels: Sequence[str],
        *,
        model: str | None = None,
        work_ids: Sequence[str] | None = None,
        strongest: Sequence[str] | None = None,
        top: int = 1,
    ) -> Summary:
        """Aggregates over the rows of these work ids, or of a model, or of the table.

        Args:
            labels: Score columns.
            model: Fingerprint; None: of all models.
            work_ids: None: all.
            strongest: Labels for which to find documents (each costs a scan of the rows); None: all.
            top: Documents a label.
        """
        ...

    def record_run(self, row: RunRow) -> None:
        """Insert or replace the row of a run."""
        ...

    def runs(self, model: str | None = None) -> list[RunRow]:
        """Runs, the latest first."""
        ...

    def changed_at(self, run_id: str) -> datetime | None:
        """When this run last loaded or removed anything that is in the ledger as it left it; None: nothing."""
        ...

    def close(self) -> None:
        """Let go of the connection; again is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
