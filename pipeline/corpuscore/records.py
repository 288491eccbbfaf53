"""The records that pass between stages: plain, frozen, JSON-sized (rows travel as Arrow).

Layers above read and write these; nothing here touches storage, Dask, torch or Airflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

import pyarrow as pa

from corpuscore.oddities import Oddity

Activation = Literal["sigmoid", "softmax"]
Format = Literal["parquet", "jsonl", "csv", "text", "arrow", "warc"]
RangeKind = Literal["whole", "row_groups", "bytes"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"]
ScoreType = Literal["float32", "float16"]
#: What becomes of a document beyond the model's window: cut, or scored in windows whose scores are pooled.
LongDocuments = Literal["truncate", "mean", "max"]


class Status(StrEnum):
    """What became of one document. The first two are scored, the last two are rejects."""

    OK = "ok"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    REJECTED = "rejected"


SCORED = (Status.OK.value, Status.TRUNCATED.value)

#: The reason of a document whose scores are NaN or infinite.
NOT_FINITE = "not_finite"

#: The reasons of documents for which an error was raised, and for which memory ended.
FAILED = "failed"
OUT_OF_MEMORY = "out_of_memory"

#: The reasons of documents that end the process that scores them, or hold it for good.
KILLED = "killed"
HUNG = "hung"

#: From so many different texts on, the same scores for all of them mean a broken model rather than a small corpus.
TELLING_TEXTS = 100

#: Documents are counted by their tokens: up to each of these numbers, and beyond.
TOKEN_EDGES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

#: Columns that a reader yields before the kept ones: one row a document, `text` null where `reason` is set.
DOCUMENT_FIELDS = (
    pa.field("document_id", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("text", pa.large_string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)

#: Columns of a part before the kept ones and the labels (float32, null in rejects): one row a document, in order.
PART_FIELDS = (
    pa.field("document_id", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("token_count", pa.int32()),
)

#: Names of our own that no kept column and no label may have: those of a part, and of the tables that it goes into.
OWN_COLUMNS = (*(field.name for field in PART_FIELDS), "object_uri", "run_id", "model", "work_id")

#: The rule that column_problems checks, and what to do about one, for messages.
COLUMN_RULE = "Labels and kept columns are column names of one table, compared without regard to case"
COLUMN_NEXT_STEP = "rename the labels in the checkpoint's config, or rename or leave out kept columns"


def column_problems(kept: Iterable[str], labels: Iterable[str], own: Iterable[str] = OWN_COLUMNS) -> list[str]:
    """Which kept columns and labels cannot stand in one table with each other and with our own columns, in words."""
    taken = {name.casefold(): f"column {name} of the table" for name in own}
    problems = []
    for what, name in (*(("kept column", name) for name in kept), *(("label", name) for name in labels)):
        if not name or "\0" in name:
            problems.append(f"{what} {name!r} is no column name")
        elif name.casefold() in taken:
            problems.append(f"{what} {name!r} clashes with {taken[name.casefold()]}")
        else:
            taken[name.casefold()] = f"{what} {name!r}"
    return problems


def part_schema(kept: pa.Schema, labels: tuple[str, ...]) -> pa.Schema:
    """The Arrow schema of a part: PART_FIELDS, the kept columns, one float32 column a label."""
    scores = [pa.field(label, pa.float32()) for label in labels]
    return pa.schema([*PART_FIELDS, *kept, *scores])


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in its canonical form: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def receipt_key(work_id: str) -> str:
    """Where the receipt of a work id lies in the work location."""
    return f"receipts/{work_id[:2]}/{work_id}.json"


def part_key(work_id: str, attempt: str) -> str:
    """Where one attempt at a work id puts its part in the work location."""
    return f"parts/{work_id[:2]}/{work_id}-{attempt}.parquet"


def is_part_of(part: str, work_id: str) -> bool:
    """Whether this is where an attempt at a work id puts its part."""
    return part.startswith(f"parts/{work_id[:2]}/{work_id}-") and ".." not in part


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What is known of a scorer without loading its weights.

    Attributes:
        labels: Names in column order.
        activation: How logits become probabilities; softmax rows sum to 1.
        fingerprint: 16 hex digits over all that can change a score: weights, config, tokenizer, backend, precision,
            arithmetic.
        backend: Name of the file under scoring/backends that runs it.
        precision: Resolved: fp32, bf16, fp16, int8 or fp8; never auto.
        model: Path or name as the user gave it.
        parameters: Number of weights, 0 where the checkpoint does not say.
        arithmetic: What else decides the last bits of a score, see scoring.scorer.Arithmetic; empty where nothing does.
    """

    labels: tuple[str, ...]
    activation: Activation
    fingerprint: str
    backend: str
    precision: str
    model: str
    parameters: int = 0
    arithmetic: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of to_json."""
        return cls(**{**value, "labels": tuple(value["labels"])})


@dataclass(frozen=True, slots=True)
class Partition:
    """A slice of one object: the unit of work.

    Attributes:
        uri: The object.
        etag: Its version when the plan was made; reading another one is ObjectChanged.
        size_bytes: Size of the whole object.
        format: How to read it.
        kind: What start and stop count: row groups (of Arrow, record batches), or bytes of the plain object; a whole
            object has 0 and 0.
        rows: Documents in the slice where the format knows (Parquet footers), else None.
    """

    uri: str
    etag: str
    size_bytes: int
    format: Format
    kind: RangeKind
    start: int
    stop: int
    rows: int | None = None

    def work_id(self, fingerprint: str, options_digest: str) -> str:
        """32 hex digits: the name of this slice scored by this model under these options, whoever asks."""
        parts = [self.uri, self.etag, self.format, self.kind, self.start, self.stop, fingerprint, options_digest]
        return digest(parts)[:32]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why a document is not scored.

    Attributes:
        reason: In a word, as rejects are counted.
        detail: In a sentence.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What makes a part count. Written once, last, as one small object.

    Attributes:
        work_id: The work that is done.
        uri, etag: The object that was read.
        part: Key of the Parquet file in the work location.
        digest: sha256 of the part's bytes.
        size_bytes: Size of the part.
        rows: Documents read = scored + rejected.
        scored, rejected: Of these.
        truncated: Scored documents of which only a beginning was used.
        reasons: Rejects by reason.
        tokens: Tokens that went through the model.
        unique_texts: Texts that went through the model; the other scored rows are copies.
        seconds: Wall time from first read to part written.
        busy: Seconds that each step needed (read, tokenize, pack, forward, write); they overlap.
        worker: Dask address or process that did it.
        kept: Arrow types of the kept columns, by name, as strings.
        text_hashes: 64 bits, in hex, of each different text where there are fewer than TELLING_TEXTS, so that small
            parts can be told apart; empty where there are more.
        oddities: What was odd about what was read, by kind (see corpuscore.oddities).
        lines: Rows (of Parquet) or lines (of JSON Lines and CSV) of the slice, counted by themselves, not by what was
            made of them; None where the format has no such count.
        other_lines: Those of these that are no document, by what they are: header, blank, comment, inside (of a row).
        ended: When the part was written, in seconds since 1970 by the worker's clock; 0 in receipts of older versions.
    """

    work_id: str
    uri: str
    etag: str
    part: str
    digest: str
    size_bytes: int
    rows: int
    scored: int
    rejected: int
    truncated: int
    reasons: dict[str, int]
    tokens: int
    unique_texts: int
    seconds: float
    busy: dict[str, float]
    worker: str
    kept: dict[str, str] = field(default_factory=dict)
    text_hashes: tuple[str, ...] = ()
    oddities: dict[str, Oddity] = field(default_factory=dict)
    lines: int | None = None
    other_lines: dict[str, int] = field(default_factory=dict)
    ended: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {**asdict(self), "text_hashes": list(self.text_hashes)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of to_json."""
        oddities = {kind: Oddity(**oddity) for kind, oddity in value.get("oddities", {}).items()}
        return cls(**{**value, "text_hashes": tuple(value.get("text_hashes", ())), "oddities": oddities})


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """One line of the list that validation hands to load: exactly what it checked, and no other file.

    Attributes:
        work_id, uri, part, digest, scored, rejected: As in the receipt.
    """

    work_id: str
    uri: str
    part: str
    digest: str
    scored: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a validation check. An error stops the load; a warning is shown; an info is a fact.

    Attributes:
        check: Short stable name, such as `finite`.
        level: error, warning or info.
        message: Value, rule and next step in words.
        values: The numbers behind the message.
    """

    check: str
    level: Literal["error", "warning", "info"]
    message: str
    values: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)
