"""Parquet: footers for the plan, row groups as documents."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.corpus.batches import resized
from corpuscore.corpus.fields import Fields
from corpuscore.corpus.pages import Leaf, bounds, chunks, pages, rows_at_once
from corpuscore.corpus.thrift import Malformed, Size
from corpuscore.oddities import Oddities
from corpuscore.options import ReadOptions

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
    # In nanoseconds, which are Arrow's own choice for INT96, dates beyond 1677 to 2262 would be other dates.
    unit = "us"
    return pq.ParquetFile(
        stored, buffer_size=_COLUMN_BUFFER, pre_buffer=False, coerce_int96_timestamp_unit=unit, **options
    )


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


def integer_bounds(opened: OpenedParquet, path: str) -> tuple[int, int] | None:
    """The smallest and the largest integer of a column, as the footer says; None where it does not.

    Args:
        opened: The object.
        path: Of a stored column of 64-bit integers.
    """
    schema = opened.file.schema
    columns = [index for index in range(len(schema)) if schema.column(index).path == path]
    groups = opened.file.metadata.num_row_groups
    found = [bounds(opened.stored.footer, group, column) for group in range(groups) for column in columns]
    lows, highs = zip(*[pair for pair in found if pair], strict=True) if any(found) else ((0,), (0,))
    return None if not columns or None in found else (min(lows), max(highs))


class ParquetDocuments:
    """The documents of some row groups of one object, in bounded memory.

    Args:
        opened: The object.
        uri: Its address.
        groups: Which row groups, in order.
        reading: Which columns; nothing else is read, of a struct neither.
        batch_rows: Documents of a batch at the most.
        oddities: Takes what is odd.

    Raises:
        CorpusError: A column is missing, or the text column holds no text.
    """

    def __init__(
        self, opened: OpenedParquet, uri: str, groups: range, reading: ReadOptions, batch_rows: int, oddities: Oddities
    ) -> None:
        self._stored = opened.stored
        self._groups = groups
        self._batch_rows = batch_rows
        self._oddities = oddities
        self._columns = Fields(uri, opened.file.schema_arrow, reading).paths
        schema = opened.file.schema
        stored = [(index, schema.column(index)) for index in range(len(schema))]
        self._leaves = [(index, column) for index, column in stored if _belongs(column.path, self._columns)]
        self._file = _with_dictionaries(opened, [column for _, column in self._leaves])
        self._fields = Fields(uri, self._file.schema_arrow, reading)
        self._has_dictionaries = "dictionary<" in str(self._fields.kinds)
        self.kept_schema = self._fields.kept_schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return resized(self._read(), self._batch_rows)

    def _read(self) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        position = sum(metadata.row_group(group).num_rows for group in range(self._groups.start))
        for group in self._groups:
            until = position + metadata.row_group(group).num_rows
            for batch in self._decoded(group):
                yield self._fields.documents(batch, position, self._oddities)
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


def _belongs(path: str, columns: list[str]) -> bool:
    """Whether a stored column is one of these columns, or lies in one."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _with_dictionaries(opened: OpenedParquet, columns: list[Any]) -> pq.ParquetFile:
    """The file, read so that a string that is repeated in a nested column stays one."""
    nested = [column for column in columns if column.max_repetition_level]
    strings = [column.path for column in nested if column.physical_type == "BYTE_ARRAY"]
    return _opened(opened.stored, metadata=opened.file.metadata, read_dictionary=strings) if strings else opened.file
