"""One part, read batch by batch: its counts, the sums behind the label means, and what is wrong with it.

Shape suffixes: D documents, L labels, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.errors import PermanentError
from corpuscore.parts import OpenPart, open_checked
from corpuscore.records import PART_FIELDS, SCORED, TOKEN_EDGES, Receipt, ScorerInfo, Status
from corpuscore.validation.duplicates import id_hashes

_BATCH_ROWS = 65_536

#: Scores are counted in so many equal bins from 0 to 1.
SCORE_BINS = 20

#: Rejects of a part that are named, as examples of all.
_EXAMPLES = 3


_REJECTED = [Status.EMPTY.value, Status.REJECTED.value]


@dataclass(frozen=True, slots=True)
class SumRule:
    """What the probabilities of one document must add up to.

    Attributes:
        low, high: Bounds, tolerance included.
    """

    low: float
    high: float


@dataclass(slots=True)
class LabelStats:
    """Sums and extremes of each label over scored documents.

    Attributes:
        documents: How many.
        sums_L, squares_L: float64.
        low_L, high_L: float32; infinities where there are no documents.
        scores_LB: int64, documents by score, in equal bins from 0 to 1.
        tokens_B: int64, documents by tokens: up to each of TOKEN_EDGES, and beyond.
    """

    documents: int
    sums_L: npt.NDArray[np.float64]
    squares_L: npt.NDArray[np.float64]
    low_L: npt.NDArray[np.float32]
    high_L: npt.NDArray[np.float32]
    scores_LB: npt.NDArray[np.int64]
    tokens_B: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, labels: int) -> Self:
        """Of no documents."""
        low_L = np.full(labels, np.inf, np.float32)
        scores_LB = np.zeros((labels, SCORE_BINS), np.int64)
        tokens_B = np.zeros(len(TOKEN_EDGES) + 1, np.int64)
        return cls(0, np.zeros(labels), np.zeros(labels), low_L, -low_L, scores_LB, tokens_B)

    def add(self, other: LabelStats) -> None:
        """Take more documents in."""
        self.documents += other.documents
        self.sums_L += other.sums_L
        self.squares_L += other.squares_L
        self.low_L = np.minimum(self.low_L, other.low_L)
        self.high_L = np.maximum(self.high_L, other.high_L)
        self.scores_LB += other.scores_LB
        self.tokens_B += other.tokens_B

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """Mean probabilities, float64 [L]."""
        return self.sums_L / max(self.documents, 1)

    @property
    def standard_errors(self) -> npt.NDArray[np.float64]:
        """Of the means, float64 [L], as if the documents were independent."""
        count = max(self.documents, 1)
        variance_L = np.maximum(self.squares_L / count - self.means**2, 0)
        errors_L: npt.NDArray[np.float64] = np.sqrt(variance_L / count)
        return errors_L


@dataclass(slots=True)
class Facts:
    """What a part holds.

    Attributes:
        receipt: Of the part.
        stats: Of its finite scores.
        problems: (check, what is wrong) where the part must not be loaded.
        kept: Schema of the kept columns; None where the part could not be read.
        hashes: 64 bits of each document id, by batch.
        examples: A few rejects: reason, object and position.
    """

    receipt: Receipt
    stats: LabelStats
    problems: list[tuple[str, str]] = field(default_factory=list)
    kept: pa.Schema | None = None
    hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    rows: int = 0
    scored: int = 0
    rejected: int = 0
    truncated: int = 0
    null_ids: int = 0
    not_finite: int = 0
    out_of_range: int = 0
    wrong_sums: int = 0


def inspect_part(receipt: Receipt, scorer: ScorerInfo, sum_rule: SumRule | None, open_part: OpenPart) -> Facts:
    """Read a part and compare it with its receipt and with what the scorer promises.

    Raises:
        TransientError: The store did not answer; anything else that is wrong is a problem in the facts.
    """
    facts = Facts(receipt, LabelStats.empty(len(scorer.labels)))
    try:
        with open_checked(open_part, receipt.part, receipt.digest) as file:
            if _check_schema(file.schema_arrow, scorer.labels, facts):
                _read(file, scorer.labels, sum_rule, facts)
    except PermanentError as error:
        facts.problems.append(("part", str(error)))
    except (pa.ArrowException, OSError) as error:
        facts.problems.append(("part", f"Part {receipt.part} cannot be read: {error}"))
    return facts


def _check_schema(found: pa.Schema, labels: tuple[str, ...], facts: Facts) -> bool:
    """Whether the part has its own columns, then kept ones, then the labels in the scorer's order."""
    own, kept, scores = _split(found, len(labels))
    expected = [pa.field(label, pa.float32()) for label in labels]
    where = f"Part {facts.receipt.part}"
    if [field.remove_metadata() for field in own] != list(PART_FIELDS):
        facts.problems.append(("schema", f"{where} begins with the columns {_names(own)}, not {_names(PART_FIELDS)}"))
    elif [field.name for field in scores] != list(labels):
        facts.problems.append(("labels", f"{where} has the labels {_names(scores)}, the scorer {', '.join(labels)}"))
    elif [field.type for field in scores] != [field.type for field in expected]:
        facts.problems.append(("schema", f"{where} has scores that are not float32"))
    else:
        facts.kept = pa.schema(kept)
        return True
    return False


def _split(schema: pa.Schema, labels: int) -> tuple[list[pa.Field], list[pa.Field], list[pa.Field]]:
    fields = [field.remove_metadata() for field in schema]
    first = max(len(fields) - labels, len(PART_FIELDS))
    return fields[: len(PART_FIELDS)], fields[len(PART_FIELDS) : first], fields[first:]


def _names(fields: list[pa.Field] | tuple[pa.Field, ...]) -> str:
    return ", ".join(f"{field.name}" for field in fields) or "(none)"


def _read(file: pq.ParquetFile, labels: tuple[str, ...], sum_rule: SumRule | None, facts: Facts) -> None:
    """Fill the facts from the rows, then compare the counts."""
    columns = ["document_id", "position", "status", "reason", "token_count", *labels]
    for rows in file.iter_batches(_BATCH_ROWS, columns=columns):
        facts.rows += rows.num_rows
        facts.null_ids += rows.column("document_id").null_count
        facts.hashes.append(id_hashes(rows.column("document_id")))
        status = rows.column("status")
        facts.truncated += _count(status, [Status.TRUNCATED.value])
        facts.rejected += _count(status, _REJECTED)
        if len(facts.examples) < _EXAMPLES and facts.receipt.rejected:
            _name_rejects(rows, facts)
        _add_scores(rows.filter(pc.is_in(status, pa.array(SCORED))), labels, sum_rule, facts)
    _compare(facts)


def _name_rejects(rows: pa.RecordBatch, facts: Facts) -> None:
    rejects = rows.filter(pc.is_in(rows.column("status"), pa.array(_REJECTED))).select(["reason", "position"])
    for reject in rejects.slice(0, _EXAMPLES - len(facts.examples)).to_pylist():
        facts.examples.append(f"{reject['reason']} at {facts.receipt.uri}#{reject['position']}")


def _count(status: pa.Array, values: list[str]) -> int:
    return int(pc.sum(pc.is_in(status, pa.array(values))).as_py() or 0)


def _add_scores(rows: pa.RecordBatch, labels: tuple[str, ...], sum_rule: SumRule | None, facts: Facts) -> None:
    """Add the scored rows of a batch; a null score counts as NaN."""
    if not rows.num_rows:
        return
    facts.scored += rows.num_rows
    scores_LD = np.stack([rows.column(label).to_numpy(zero_copy_only=False) for label in labels])
    low_L, high_L = scores_LD.min(axis=1), scores_LD.max(axis=1)
    # A NaN or an infinity shows in the extremes, so that sound batches are not searched for them.
    if not (np.isfinite(low_L).all() and np.isfinite(high_L).all()):
        facts.not_finite += int(np.count_nonzero(~np.isfinite(scores_LD)))
        return
    if low_L.min() < 0 or high_L.max() > 1:
        facts.out_of_range += int(np.count_nonzero((scores_LD < 0) | (scores_LD > 1)))
    if sum_rule is not None:
        sums_D = scores_LD.sum(axis=0, dtype=np.float64)
        facts.wrong_sums += int(np.count_nonzero((sums_D < sum_rule.low) | (sums_D > sum_rule.high)))
    sums_L = scores_LD.sum(axis=1, dtype=np.float64)
    squares_L = np.einsum("ld,ld->l", scores_LD, scores_LD, dtype=np.float64)
    scores_LB, tokens_B = _score_bins(scores_LD), _token_bins(rows.column("token_count"))
    facts.stats.add(LabelStats(rows.num_rows, sums_L, squares_L, low_L, high_L, scores_LB, tokens_B))


def _score_bins(scores_LD: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Documents by score, int64 [L, B]; scores that are out of range count in the first and the last bin."""
    # In bytes, a label at a time: a seventh of the time that one count over int64 takes.
    bins_LD = (np.clip(scores_LD, 0, 1) * np.float32(SCORE_BINS)).astype(np.uint8)
    counts_LB = np.stack([np.bincount(bins_D, minlength=SCORE_BINS + 1) for bins_D in bins_LD])
    counts_LB[:, -2] += counts_LB[:, -1]  # a score of 1
    return counts_LB[:, :-1]


def _token_bins(counts: pa.Array) -> npt.NDArray[np.int64]:
    """Documents by tokens, int64 [B]."""
    places = np.searchsorted(TOKEN_EDGES, counts.drop_null().to_numpy(zero_copy_only=False))
    return np.bincount(places, minlength=len(TOKEN_EDGES) + 1)


def _compare(facts: Facts) -> None:
    """Turn counts that are wrong into problems."""
    receipt, part = facts.receipt, facts.receipt.part
    found = {name: getattr(facts, name) for name in ("rows", "scored", "rejected", "truncated")}
    promised = {name: getattr(receipt, name) for name in found}
    if found != promised:
        facts.problems.append(("counts", f"Part {part} holds {found}, its receipt says {promised}"))
    if facts.null_ids:
        facts.problems.append(("ids", f"Part {part} has {facts.null_ids} of {facts.rows} ids null"))
    if facts.not_finite:
        facts.problems.append(("finite", f"Part {part} has {facts.not_finite} scores that are NaN, null or infinite"))
    if facts.out_of_range:
        facts.problems.append(("range", f"Part {part} has {facts.out_of_range} scores outside [0, 1]"))
    if facts.wrong_sums:
        facts.problems.append(
            ("softmax", f"Part {part} has {facts.wrong_sums} of {facts.scored} rows that do not sum to 1")
        )
