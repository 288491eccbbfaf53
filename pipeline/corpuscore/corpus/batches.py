"""Documents -> Arrow record batches of DOCUMENT_FIELDS and the kept columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from corpuscore.corpus.parsing import Document
from corpuscore.corpus.sizes import sizes_of
from corpuscore.records import DOCUMENT_FIELDS

BATCH_BYTES = 32 * 2**20  # a batch is closed early when its texts, ids and kept columns reach this size


def batch_schema(kept: pa.Schema) -> pa.Schema:
    """DOCUMENT_FIELDS, then the kept columns."""
    return pa.schema([*DOCUMENT_FIELDS, *kept])


def to_batches(
    documents: Iterable[tuple[int, Document]], uri: str, kept: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of at most batch_rows documents, each given as (position, document)."""
    schema = batch_schema(kept)
    rows: list[tuple[object, ...]] = []
    size = 0
    for position, (document_id, text, reason, detail, values) in documents:
        name = f"{uri}#{position}" if document_id is None else document_id
        rows.append((name, position, text, reason, detail, *(values or [None] * len(kept))))
        size += sum(map(len, filter(None, (name, text, *values))))
        if len(rows) >= batch_rows or size >= BATCH_BYTES:
            yield _batch(rows, schema)
            rows, size = [], 0
    if rows:
        yield _batch(rows, schema)


def _batch(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def resized(batches: Iterable[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most batch_rows rows, and BATCH_BYTES or one row: small ones joined, large cut."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        for piece in _pieces(batch):
            if held and (rows + piece.num_rows > batch_rows or size + piece.nbytes > BATCH_BYTES):
                yield _joined(held)
                held, rows, size = [], 0, 0
            held.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            del piece
        del batch  # which may be large, before the next one is made
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches.pop() if len(batches) == 1 else pa.concat_batches(batches)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in slices of BATCH_BYTES, or one row, each."""
    if batch.nbytes <= BATCH_BYTES:
        yield batch
        return
    until = np.cumsum(sum(sizes_of(column) for column in batch.columns))
    start = 0
    while start < batch.num_rows:
        room = BATCH_BYTES + (until[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(until, room, side="right")))
        yield batch.slice(start, stop - start)
        start = stop
