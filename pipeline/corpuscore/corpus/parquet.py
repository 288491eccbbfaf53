"""Parquet: footers for the plan, row groups as documents."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.corpus.batches import batch_schema, resized
from corpuscore.corpus.columns import (
    Judged,
    is_text,
    judged_string,
    judged_text,
    kept_column,
    kept_type,
    mark,
    plain_type,
)
from corpuscore.corpus.formats import check_columns, chosen_columns
from corpuscore.corpus.pages import Leaf, chunks, pages, rows_at_once
from corpuscore.corpus.thrift import Malformed, Size
from corpuscore.errors import CorpusError
from corpuscore.job import ReadOptions

FOOTER_BYTES = 16 * 2**20
_UNCOUNTED_BYTES = 2**20  # a smaller footer makes at most some 250 MB, whatever is in it
_MOST_STRUCTS = 1_000_000
_MOST_LARGE_STRUCTS = 250_000  # column chunks and row groups: about 1 kB each
_MOST_ROWS = 100_000_000  # of a row group, which is never cut
_WHOLE_BYTES = 4 * 2**20  # a smaller object is read in one go
_COLUMN_BUFFER = 8 * 2**20  # bytes of one read of a larger object's column
_HELD_BYTES = 32 * 2**20  # columns of a row group that are read once; larger ones twice, headers first
_HEADERS_BLOCK = 2**20  # bytes of one read that seeks headers
_TAIL = 8  # the length of the footer, and PAR1
_DECIMAL_BYTES = 16
#: Bytes that a value takes in Arrow, by its physical type; others have a length of their own.
_WIDTHS = {"BOOLEAN": 8, "INT32": 8, "INT64": 8, "INT96": 12, "FLOAT": 8, "DOUBLE": 8, "BYTE_ARRAY": 0}


class RangeFile(io.RawIOBase):
    """A file that answers from memory for the ranges it was told to hold."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._at = 0
        self._held: list[tuple[int, bytes]] = []
        self.size = file.seek(0, io.SEEK_END)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file does."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """As a file does."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As a file does."""
        body = self.range(self._at, self.size - self._at if size < 0 else size)
        self._at += len(body)
        return body

    def range(self, start: int, size: int) -> bytes:
        """So many bytes from an offset on, fewer at the end."""
        for at, held in self._held:
            if at <= start and start + size <= at + len(held):
                return held[start - at : start - at + size]
        self._file.seek(start)
        body: bytes = self._file.read(max(0, size))
        return body

    def near(self, start: int, size: int) -> bytes:
        """The same for small ranges that lie close behind each other: fewer, larger reads."""
        if not any(at <= start and start + size <= at + len(held) for at, held in self._held):
            self.hold([(start, max(size, _HEADERS_BLOCK))])
        return self.range(start, size)

    @cached_property
    def footer(self) -> bytes:
        """The Parquet footer, without what frames it; whether it is one, whoever reads it finds out."""
        size = int.from_bytes(self.range(max(0, self.size - _TAIL), 4), "little")
        if size > FOOTER_BYTES:
            raise Malformed(f"its footer has {size} bytes; the limit is {FOOTER_BYTES}")
        return self.range(max(0, self.size - _TAIL - size), size)

    def hold(self, ranges: list[tuple[int, int]]) -> None:
        """Hold these ranges (offset, size), and forget those before."""
        self._held = []
        self._held = [(start, self.range(start, size)) for start, size in ranges]


class OpenedParquet(NamedTuple):
    """An object whose footer was read.

    Attributes:
        stored: Its bytes.
        file: The same as Arrow sees it.
    """

    stored: RangeFile
    file: pq.ParquetFile


def open_parquet(file: Any, size_bytes: int) -> OpenedParquet:
    """The footer of an object; its columns are read later, in ranges.

    Raises:
        Malformed: The footer would take more memory than may be, or is none.
        pa.ArrowException: Arrow cannot read it.
    """
    stored = RangeFile(io.BytesIO(file.read()) if size_bytes <= _WHOLE_BYTES else file)
    _check_footer(stored)
    opened = _opened(stored)
    _check_rows(opened.metadata)
    return OpenedParquet(stored, opened)


def _opened(stored: RangeFile, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(stored, buffer_size=_COLUMN_BUFFER, pre_buffer=False, **options)


def _check_footer(file: RangeFile) -> None:
    """Look at the footer before Arrow makes something of each of its bytes; whether it is one at all, Arrow says."""
    if len(file.footer) <= _UNCOUNTED_BYTES:
        return
    try:
        found = Size.of(file.footer)
    except IndexError:
        raise Malformed("its footer ends early") from None
    if found.structs > _MOST_STRUCTS or found.large > _MOST_LARGE_STRUCTS:
        raise Malformed(
            f"its footer lists {found.large} columns and row groups in {found.structs} structures; "
            f"the limits are {_MOST_LARGE_STRUCTS} and {_MOST_STRUCTS}"
        )


def _check_rows(metadata: Any) -> None:
    """Positions are counted by what the footer says of row groups, so it must not contradict itself."""
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise Malformed(f"its footer counts {metadata.num_rows} rows, and {sum(rows)} in row groups")
    if max(rows, default=0) > _MOST_ROWS:
        raise Malformed(f"a row group of {max(rows)} rows; the limit is {_MOST_ROWS}")


def check_schema(uri: str, schema: pa.Schema, reading: ReadOptions) -> None:
    """Raise where a column is missing, or the text column holds no text.

    Raises:
        CorpusError: Naming the column and what there is.
    """
    check_columns(uri, reading, schema.names)
    kind = plain_type(schema.field(reading.text_column).type)
    if not (is_text(kind) or pa.types.is_null(kind)):
        raise CorpusError(
            f"{uri}: the text column {reading.text_column!r} has the type {str(kind)[:200]}",
            rule="a text column holds strings, or UTF-8 as binary",
            next_step="set text_column to a column of strings",
        )


class ParquetDocuments:
    """The documents of some row groups of one object, in bounded memory.

    Args:
        opened: The object; its schema was checked.
        uri: For ids of documents without id columns.
        groups: Which row groups, in order.
    """

    def __init__(self, opened: OpenedParquet, uri: str, groups: range, reading: ReadOptions, batch_rows: int) -> None:
        self._stored = opened.stored
        self._uri = uri
        self._groups = groups
        self._reading = reading
        self._batch_rows = batch_rows
        self._columns = chosen_columns(reading)
        schema = opened.file.schema
        stored = [(index, schema.column(index)) for index in range(len(schema))]
        self._leaves = [(index, column) for index, column in stored if _belongs(column.path, self._columns)]
        self._file = _with_dictionaries(opened, [column for _, column in self._leaves])
        arrow = self._file.schema_arrow
        self._has_dictionaries = "dictionary<" in str([arrow.field(name).type for name in self._columns])
        self.kept_schema = pa.schema([(name, kept_type(arrow.field(name).type)) for name in reading.keep_columns])

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return resized(self._read(), self._batch_rows)

    def _read(self) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        position = sum(metadata.row_group(group).num_rows for group in range(self._groups.start))
        for group in self._groups:
            until = position + metadata.row_group(group).num_rows
            for batch in self._decoded(group):
                yield self._documents(batch, position)
                position += batch.num_rows
                del batch  # which may be large, before the next one is decoded
            if position != until:
                raise Malformed(f"row group {group} has {position - until:+} rows beside those that the footer counts")

    def _decoded(self, group: int) -> Iterator[pa.RecordBatch]:
        """A row group's rows; what was decoded a few rows at once is joined, since each batch costs its time."""
        rows = self._rows_at_once(group)
        found = self._file.iter_batches(rows, row_groups=[group], columns=self._columns)
        return found if self._has_dictionaries else resized(found, self._batch_rows)

    def _rows_at_once(self, group: int) -> int:
        """Look at the headers of a row group's pages: how many rows to decode at once."""
        found = chunks(self._stored.footer, group, [index for index, _ in self._leaves])
        if any(not 0 <= chunk.start <= chunk.stop <= self._stored.size for chunk in found):
            raise Malformed("a column lies outside of the object")
        held = sum(chunk.stop - chunk.start for chunk in found) <= _HELD_BYTES
        self._stored.hold([(chunk.start, chunk.stop - chunk.start) for chunk in found] if held else [])
        read = self._stored.range if held else self._stored.near
        rows, leaves = self._file.metadata.row_group(group).num_rows, []
        for chunk, (_, column) in zip(found, self._leaves, strict=True):
            width = _WIDTHS.get(column.physical_type, max(column.length, _DECIMAL_BYTES))
            leaf = Leaf(nested=column.max_repetition_level > 0, width=width)
            leaf.note(pages(read, chunk), read, chunk.codec)
            if not leaf.nested and {chunk.values, leaf.values} != {rows}:  # Arrow leaves out what is too many
                raise Malformed(
                    f"a column of row group {group} has {chunk.values} values by the footer and {leaf.values} in its "
                    f"pages, and the row group {rows} rows"
                )
            leaves.append(leaf)
        return rows_at_once(leaves, rows, max(1, min(self._batch_rows, rows)))

    def _documents(self, batch: pa.RecordBatch, position: int) -> pa.RecordBatch:
        reading = self._reading
        positions = pa.array(np.arange(position, position + batch.num_rows, dtype=np.int64))
        nothing = pa.nulls(batch.num_rows, pa.string())
        text, reasons, details = judged_text(batch.column(reading.text_column), reading, nothing)
        ids, reasons, details = self._ids(batch, positions, reasons, details)
        kept = []
        for name, kind in zip(self.kept_schema.names, self.kept_schema.types, strict=True):
            limit = reading.max_document_bytes
            values, reasons, details = kept_column(
                batch.column(name), f"the column {name!r}", kind, limit, reasons, details
            )
            kept.append(values)
        text = pc.if_else(pc.is_null(reasons), text, None) if reasons.null_count < len(reasons) else text
        return pa.RecordBatch.from_arrays(
            [ids, positions, text, reasons, details, *kept], schema=batch_schema(self.kept_schema)
        )

    def _ids(self, batch: pa.RecordBatch, positions: pa.Array, reasons: pa.Array, details: pa.Array) -> Judged:
        made = pc.binary_join_element_wise(self._uri, pc.cast(positions, pa.string()), "#")
        if not self._reading.id_columns:
            return made, reasons, details
        parts = []
        for name in self._reading.id_columns:
            limit = self._reading.max_document_bytes
            part, reasons, details = judged_string(
                batch.column(name), f"the id column {name!r}", limit, reasons, details
            )
            reasons, details = mark(pc.is_null(part), "null_id", f"the id column {name!r} is null", reasons, details)
            parts.append(part)
        joined = pc.binary_join_element_wise(*parts, pa.scalar("/", parts[0].type)) if len(parts) > 1 else parts[0]
        return pc.coalesce(joined.cast(pa.string()), made), reasons, details


def _belongs(path: str, columns: list[str]) -> bool:
    """Whether a stored column is one of these columns, or lies in one."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _with_dictionaries(opened: OpenedParquet, columns: list[Any]) -> pq.ParquetFile:
    """The file, read so that a string that is repeated in a nested column stays one."""
    nested = [column for column in columns if column.max_repetition_level]
    strings = [column.path for column in nested if column.physical_type == "BYTE_ARRAY"]
    return _opened(opened.stored, metadata=opened.file.metadata, read_dictionary=strings) if strings else opened.file
