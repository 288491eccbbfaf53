"""The rows of a part: documents joined with their scores, and the documents that are passed over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.records import NOT_FINITE, Skipped, Status
from corpuscore.scoring.scorer import Scores

_EMPTY_REASONS = ("null", "empty", "whitespace")


def without(documents: pa.RecordBatch, skip: Mapping[int, Skipped]) -> pa.RecordBatch:
    """A reader's batch in which some documents are rejects: they have a reason, and no text.

    Args:
        documents: DOCUMENT_FIELDS and kept columns.
        skip: By position; those that are rejects already keep their reason.

    Returns:
        The batch as it is where it has none of them.
    """
    positions = documents.column("position").to_pylist() if skip else []
    valid = documents.column("reason").is_null().to_pylist() if skip else []
    found = {at: skip[position] for at, position in enumerate(positions) if valid[at] and position in skip}
    if not found:
        return documents
    kept = pa.array([at not in found for at in range(documents.num_rows)])
    given = {
        "text": pa.nulls(documents.num_rows, documents.schema.field("text").type),
        "reason": pa.array([found[at].reason if at in found else None for at in range(documents.num_rows)]),
        "detail": pa.array([found[at].detail if at in found else None for at in range(documents.num_rows)]),
    }
    columns = [
        pc.if_else(kept, column, given[name]) if name in given else column
        for name, column in zip(documents.schema.names, documents.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=documents.schema)


def part_rows(documents: pa.RecordBatch, scores: Scores, schema: pa.Schema) -> pa.RecordBatch:
    """Join documents with the scores of those that have a text.

    Args:
        documents: DOCUMENT_FIELDS and kept columns; `text` is null in the reader's rejects.
        scores: One row for each document with a text, in order.
        schema: part_schema of the run.

    Returns:
        One row a document, in corpus order; label columns are null in rejects, which a document becomes, too, where a
        score of it is NaN or infinite.
    """
    index = np.flatnonzero(documents.column("text").is_valid().to_numpy(zero_copy_only=False))
    why = {**_not_finite(scores), **scores.failed}
    failed = np.array(sorted(why), dtype=np.int64)
    good = np.setdiff1d(np.arange(len(index)), failed)
    unscored = np.ones(documents.num_rows, dtype=bool)
    unscored[index[good]] = False

    found = {int(index[at]): why[int(at)] for at in failed}
    reasons = _with(documents.column("reason"), {at: skipped.reason for at, skipped in found.items()})
    columns = {
        **{name: documents.column(name) for name in schema.names if name in documents.schema.names},
        "status": _statuses(reasons, index, scores),
        "reason": reasons,
        "detail": _with(documents.column("detail"), {at: skipped.detail for at, skipped in found.items()}),
        "token_count": _spread(scores.tokens_D, index, unscored, pa.int32()),
    }
    first_label = len(schema.names) - scores.probabilities_DL.shape[1]
    for column, label in enumerate(schema.names[first_label:]):
        columns[label] = _spread(scores.probabilities_DL[:, column], index, unscored, pa.float32())
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _not_finite(scores: Scores) -> dict[int, Skipped]:
    """A reason for each document that has a score that is no number."""
    finite_D = np.isfinite(scores.probabilities_DL).all(axis=1)
    return dict.fromkeys(np.flatnonzero(~finite_D).tolist(), Skipped(NOT_FINITE, "a score is NaN or infinite"))


def _with(column: pa.Array, words: Mapping[int, str]) -> pa.Array:
    """A column of texts with some of them replaced."""
    if not words:
        return column
    return pa.array([words.get(at, text) for at, text in enumerate(column.to_pylist())], pa.string())


def _statuses(reasons: pa.Array, index: np.ndarray, scores: Scores) -> pa.Array:
    truncated = np.zeros(len(reasons), dtype=bool)
    truncated[index] = scores.truncated_D
    scored = pc.if_else(pa.array(truncated), Status.TRUNCATED.value, Status.OK.value)
    rejected = pc.if_else(pc.is_in(reasons, pa.array(_EMPTY_REASONS)), Status.EMPTY.value, Status.REJECTED.value)
    return pc.if_else(reasons.is_null(), scored, rejected)


def _spread(values: np.ndarray, index: np.ndarray, unscored: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Values of the scored documents at their places among all documents; null elsewhere."""
    spread = np.zeros(len(unscored), dtype=values.dtype)
    spread[index] = values
    return pa.array(spread, kind, mask=unscored)
