"""Parquet: footers for the plan, row groups as documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.corpus.batches import BATCH_BYTES, batch_schema
from corpuscore.corpus.formats import check_columns, chosen_columns
from corpuscore.errors import CorpusError
from corpuscore.job import ReadOptions

_WHOLE_BYTES = 4 * 2**20  # a smaller object is read in one go
_COLUMN_BUFFER = 8 * 2**20  # bytes of one read of a larger object's column


def open_parquet(file: Any, size_bytes: int) -> pq.ParquetFile:
    """The footer of an object; its columns are read later, in ranges."""
    if size_bytes <= _WHOLE_BYTES:
        return pq.ParquetFile(pa.BufferReader(file.read()))
    return pq.ParquetFile(file, buffer_size=_COLUMN_BUFFER, pre_buffer=False)


def check_schema(uri: str, schema: pa.Schema, reading: ReadOptions) -> None:
    """Raise where a column is missing, or the text column holds no text.

    Raises:
        CorpusError: Naming the column and what there is.
    """
    check_columns(uri, reading, schema.names)
    kind = _plain_type(schema.field(reading.text_column).type)
    if not (_is_text(kind) or pa.types.is_null(kind)):
        raise CorpusError(
            f"{uri}: the text column {reading.text_column!r} has the type {kind}",
            rule="a text column holds strings, or UTF-8 as binary",
            next_step="set text_column to a column of strings",
        )


class ParquetDocuments:
    """The documents of some row groups of one file.

    Args:
        file: The opened Parquet file; its schema was checked.
        uri: For ids of documents without id columns.
        groups: Which row groups, in order.
    """

    def __init__(self, file: pq.ParquetFile, uri: str, groups: range, reading: ReadOptions, batch_rows: int) -> None:
        self._file = file
        self._uri = uri
        self._groups = groups
        self._reading = reading
        self._batch_rows = batch_rows
        schema = file.schema_arrow
        self.kept_schema = pa.schema([(name, _kept_type(schema.field(name).type)) for name in reading.keep_columns])

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        position = sum(metadata.row_group(group).num_rows for group in range(self._groups.start))
        columns = chosen_columns(self._reading)
        for group in self._groups:
            rows = self._rows_at_once(group)
            for batch in self._file.iter_batches(rows, row_groups=[group], columns=columns):
                yield self._documents(batch, position)
                position += batch.num_rows

    def _rows_at_once(self, group: int) -> int:
        """Rows of a batch that stay under BATCH_BYTES at the row group's mean, whatever their number."""
        found = self._file.metadata.row_group(group)
        mean = max(1, int(found.total_byte_size) // max(1, int(found.num_rows)))
        return max(1, min(self._batch_rows, BATCH_BYTES // mean))

    def _documents(self, batch: pa.RecordBatch, position: int) -> pa.RecordBatch:
        positions = pa.array(np.arange(position, position + batch.num_rows, dtype=np.int64))
        text, reasons, details = _judged(_as_string(batch.column(self._reading.text_column)), self._reading)
        ids, reasons, details = self._ids(batch, positions, reasons, details)
        kept = []
        for name, kind in zip(self.kept_schema.names, self.kept_schema.types, strict=True):
            values, reasons, details = self._kept(batch.column(name), name, kind, reasons, details)
            kept.append(values)
        text = pc.if_else(pc.is_null(reasons), text, None) if reasons.null_count < len(reasons) else text
        return pa.RecordBatch.from_arrays(
            [ids, positions, text, reasons, details, *kept], schema=batch_schema(self.kept_schema)
        )

    def _ids(self, batch: pa.RecordBatch, positions: pa.Array, reasons: pa.Array, details: pa.Array) -> Any:
        made = pc.binary_join_element_wise(self._uri, pc.cast(positions, pa.string()), "#")
        if not self._reading.id_columns:
            return made, reasons, details
        parts = []
        for name in self._reading.id_columns:
            part = _as_string(batch.column(name))
            part, reasons, details = _valid(part, f"the id column {name!r}", reasons, details)
            missing = pc.and_(pc.is_null(part), pc.is_null(reasons))
            reasons, details = _mark(missing, "null_id", f"the id column {name!r} is null", reasons, details)
            parts.append(part)
        joined = pc.binary_join_element_wise(*parts, pa.scalar("/", parts[0].type)) if len(parts) > 1 else parts[0]
        return pc.coalesce(joined.cast(pa.string()), made), reasons, details

    def _kept(self, values: pa.Array, name: str, kind: pa.DataType, reasons: pa.Array, details: pa.Array) -> Any:
        plain = _plain(values)
        if pa.types.is_nested(plain.type):
            return pa.array([_json(value) for value in plain.to_pylist()], kind), reasons, details
        if not pa.types.is_string(kind):
            return plain.cast(kind), reasons, details
        text, reasons, details = _valid(_as_string(plain), f"the column {name!r}", reasons, details)
        return text.cast(kind), reasons, details


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Without dictionary encoding and extensions."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    return _plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _plain(values: pa.Array) -> pa.Array:
    while values.type != _plain_type(values.type):
        values = values.storage if isinstance(values, pa.ExtensionArray) else values.dictionary_decode()
    return values


def _is_text(kind: pa.DataType) -> bool:
    checks = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    )  # fmt: skip
    return any(check(kind) for check in checks)


def _kept_type(kind: pa.DataType) -> pa.DataType:
    """The type that a kept column has in a part: simple types as they are; what databases lack, as its nearest."""
    kind = _plain_type(kind)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    simple = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_binary(kind)
    return kind if simple and not pa.types.is_duration(kind) else pa.string()


def _as_string(values: pa.Array) -> pa.Array:
    """As large_string, bytes unchecked."""
    plain = _plain(values)
    if pa.types.is_nested(plain.type):
        return pa.array([_json(value) for value in plain.to_pylist()], pa.large_string())
    if pa.types.is_binary_view(plain.type) or pa.types.is_fixed_size_binary(plain.type):
        plain = plain.cast(pa.large_binary())
    options = pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True)
    return pc.cast(plain, options=options)


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _judged(text: pa.Array, reading: ReadOptions) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Text (large_string), and reasons and details of the rows that cannot be scored."""
    nothing = pa.nulls(len(text), pa.string())
    reasons, details = nothing, nothing
    size, limit = pc.binary_length(text), reading.max_document_bytes
    reasons, details = _mark(pc.is_null(text), "null", f"{reading.text_column!r} is null", reasons, details)
    reasons, details = _mark(pc.equal(size, 0), "empty", "the text is empty", reasons, details)
    large = pc.greater(size, limit)
    reasons, details = _mark(
        large, "too_large", f"the text is longer than the limit of {limit} bytes", reasons, details
    )
    text, reasons, details = _valid(text, repr(reading.text_column), reasons, details)
    return text, *_mark(_is_space(text), "whitespace", "the text is white space", reasons, details)


def _mark(where: pa.Array, reason: str, detail: str, reasons: pa.Array, details: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Give the marked rows a reason, unless they have one."""
    if not pc.any(where).as_py():
        return reasons, details
    first = pc.and_(pc.is_null(reasons), pc.fill_null(where, False))
    return pc.if_else(first, reason, reasons), pc.if_else(first, detail, details)


def _valid(text: pa.Array, column: str, reasons: pa.Array, details: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Null the strings that are not UTF-8 (Arrow does not check what it reads from Parquet), and mark their rows."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = text.view(pa.large_binary()).to_pylist()
        bad = pa.array([value is not None and not _is_utf8(value) for value in raw])
        reasons, details = _mark(bad, "invalid_utf8", f"{column} is not UTF-8", reasons, details)
        clean = [None if spoilt else value for value, spoilt in zip(raw, bad.to_pylist(), strict=True)]
        text = pa.array(clean, pa.large_binary()).cast(pa.large_string())
    return text, reasons, details


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_space(text: pa.Array) -> pa.Array:
    return pc.utf8_is_space(text)
