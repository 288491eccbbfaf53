"""Documents -> Arrow record batches of DOCUMENT_FIELDS and the kept columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from corpuscore.corpus.parsing import Document
from corpuscore.records import DOCUMENT_FIELDS

BATCH_BYTES = 32 * 2**20  # a batch is closed early when its texts reach this size


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
        size += len(text) if text else 0
        if len(rows) >= batch_rows or size >= BATCH_BYTES:
            yield _batch(rows, schema)
            rows, size = [], 0
    if rows:
        yield _batch(rows, schema)


def _batch(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
