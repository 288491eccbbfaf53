"""Parquet's pages, looked at before Arrow decodes them, so that an object's size bounds neither memory nor time.

A few bytes can stand for a huge page, or for a huge value that each row repeats. So a row group's page headers are read
first: a page that no memory should hold is an error, and the number of rows that are decoded at once follows from what
the pages say, not from a mean.

Source: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpuscore.corpus.thrift import Malformed, find_list, read_struct

PAGE_BYTES = 128 * 2**20  # a page is decompressed whole; Arrow holds a value that fills it some six times
PAGE_VALUES = 8 * 2**20  # some encodings make numbers of all values of a page at once
WINDOW_BYTES = 32 * 2**20  # what rows that are decoded at once may take besides
NESTED_BYTES = 512 * 2**20  # of a row group's nested column: one row may hold all of it
_MOST_PAGES = 200_000  # of a column chunk
_HEADER_BYTES = 2**20
_FEW_BYTES = 2**16  # a dictionary that is not worth looking into
_FEW_VALUES = 10**6
_INDEX_BYTES = 4

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # PageType
_TYPE, _SIZE, _STORED = 1, 2, 3  # fields of PageHeader
_OWN = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # its field with the header of that type of page
_VALUES = 1  # field of these
_ENCODINGS = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_BY_DICTIONARY, _FRONT_CODED = (2, 8), 7  # Encoding: PLAIN_DICTIONARY and RLE_DICTIONARY, DELTA_BYTE_ARRAY
_PLAIN, _CODECS = 0, {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd"}  # CompressionCodec

_GROUPS, _COLUMNS, _METADATA = 4, 1, 3  # fields of FileMetaData, RowGroup and ColumnChunk
_CODEC, _NUMBER, _LENGTH, _START, _DICTIONARY_START = 4, 5, 7, 9, 11  # fields of ColumnMetaData
_STATISTICS, _INTEGER_BYTES = 12, 8
_NULLS, _BOUNDS = 3, ((6, 2), (5, 1))  # fields of Statistics; min and max have an old field, too

Read = Callable[[int, int], bytes]


class Chunk(NamedTuple):
    """A column of a row group, as the footer says.

    Attributes:
        start, stop: Where its pages lie.
        values: Their number, nulls included.
        codec: One of CompressionCodec.
    """

    start: int
    stop: int
    values: int
    codec: int


def chunks(footer: bytes, group: int, columns: Iterable[int]) -> list[Chunk]:
    """Some columns of a row group; read here, since a footer that lies ends the process in pyarrow's own classes.

    Raises:
        Malformed: The footer does not have them.
    """
    try:
        starts = find_list(footer, _row_groups(footer)[group], _COLUMNS)
        return [_chunk(read_struct(footer, starts[column])[0]) for column in columns]
    except IndexError:
        raise Malformed("the footer ends early, or has other columns than its schema") from None


@lru_cache(maxsize=4)
def _row_groups(footer: bytes) -> list[int]:
    """Where they begin; many partitions of an object are read one after the other."""
    return find_list(footer, 0, _GROUPS)


def _chunk(column: dict[int, Any]) -> Chunk:
    said = column.get(_METADATA)
    if not isinstance(said, dict):
        raise Malformed("a column of a row group is not described")
    codec, values, length, start = (_number(said, field) for field in (_CODEC, _NUMBER, _LENGTH, _START))
    dictionary = said.get(_DICTIONARY_START, 0)
    first = dictionary if isinstance(dictionary, int) and 0 < dictionary < start else start
    return Chunk(first, first + length, values, codec)


def bounds(footer: bytes, group: int, column: int) -> tuple[int, int] | None:
    """The smallest and the largest of a row group's 64-bit integers; None where the footer does not say.

    Raises:
        Malformed: The footer does not have the column.
    """
    try:
        starts = find_list(footer, _row_groups(footer)[group], _COLUMNS)
        said = read_struct(footer, starts[column])[0].get(_METADATA)
    except IndexError:
        raise Malformed("the footer ends early, or has other columns than its schema") from None
    found = said.get(_STATISTICS) if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(found, dict):
        return None
    if found.get(_NULLS) == said.get(_NUMBER):
        return 0, 0
    pair = [int.from_bytes(raw, "little", signed=True) for raw in _raw_bounds(found) if len(raw) == _INTEGER_BYTES]
    return (pair[0], pair[1]) if len(pair) == len(_BOUNDS) else None


def _raw_bounds(statistics: dict[int, Any]) -> Iterator[bytes]:
    for new, old in _BOUNDS:
        raw = statistics.get(new, statistics.get(old))
        if isinstance(raw, bytes):
            yield raw


class Page(NamedTuple):
    """A page by its header.

    Attributes:
        kind: One of PageType.
        at: Where its stored bytes start.
        stored: Their number.
        size: Bytes once they are decompressed.
        values: Values in it, nulls included.
        encoding: How they are stored.
    """

    kind: int
    at: int
    stored: int
    size: int
    values: int
    encoding: int


def pages(read: Read, chunk: Chunk) -> Iterator[Page]:
    """The pages of a column of a row group, as Arrow will find them.

    Args:
        read: (offset, size) to at most so many bytes.
        chunk: Where they lie.

    Raises:
        Malformed: A header is none, or announces more than may be.
    """
    at = chunk.start
    seen = count = 0
    while at < chunk.stop and seen < chunk.values:
        page, at = _page(read, at, chunk.stop)
        if page.kind in (_DATA, _DATA_V2):
            seen += page.values
        count += 1
        if count > _MOST_PAGES:
            raise Malformed(f"a column of a row group has more than {_MOST_PAGES} pages")
        yield page


def _page(read: Read, at: int, end: int) -> tuple[Page, int]:
    header, at = _header(read, at, end)
    kind, size, stored = (_number(header, field) for field in (_TYPE, _SIZE, _STORED))
    own = header.get(_OWN.get(kind, 0), {})
    known = isinstance(own, dict) and own
    values, encoding = (_number(own, _VALUES), _number(own, _ENCODINGS[kind])) if known else (0, 0)
    if not 0 <= stored <= end - at or size < 0 or values < 0:
        raise Malformed("a page ends outside of its column")
    if size > PAGE_BYTES:
        raise Malformed(
            f"a page of {size} bytes; the limit is {PAGE_BYTES}, which fewer rows a page keep (pyarrow writes "
            "write_batch_size of them, whatever their length)"
        )
    if values > PAGE_VALUES:
        raise Malformed(f"a page of {values} values; the limit is {PAGE_VALUES}")
    return Page(kind, at, stored, size, values, encoding), at + stored


def _number(header: dict[int, Any], field: int) -> int:
    value = header.get(field)
    if not isinstance(value, int):
        raise Malformed(f"field {field} of a header is no number")
    return value


def _header(read: Read, at: int, end: int) -> tuple[dict[int, Any], int]:
    for most in (2**12, _HEADER_BYTES):
        with suppress(IndexError):
            header, length = read_struct(read(at, min(most, end - at)), 0)
            return header, at + length
    raise Malformed(f"a page's header ends early, or has more than {_HEADER_BYTES} bytes")


@dataclass(slots=True)
class Leaf:
    """A stored column: what its pages in one row group say of the memory that its rows take.

    Attributes:
        nested: Whether a row may have many values; strings are read as a dictionary then.
        width: Bytes of a value of fixed size, 0 for strings.
        widest: Bytes of the longest value that few bytes may stand for.
        starts, stops: Rows of each page of plain strings (values, where it is nested).
        sizes: Bytes of each of these pages.
        values: Values in all pages.
        stored: Bytes of all pages.
    """

    nested: bool
    width: int
    widest: int = 0
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    values: int = 0
    stored: int = 0

    def note(self, found: Iterable[Page], read: Read, codec: int) -> None:
        """Take in the pages of a column chunk.

        Raises:
            Malformed: A header is none, or announces more than may be.
        """
        longest = 0
        for page in found:
            if page.kind == _DICTIONARY:
                longest = 0 if self.nested else max(longest, _longest(page, read, codec))
                continue
            stop = self.values + page.values
            if self.width:
                pass
            elif page.encoding in _BY_DICTIONARY:
                self.widest = max(self.widest, _INDEX_BYTES if self.nested else longest)
            elif page.encoding == _FRONT_CODED:
                self.widest = max(self.widest, page.size)
            else:
                self.starts.append(self.values)
                self.stops.append(stop)
                self.sizes.append(page.size)
            self.values, self.stored = stop, self.stored + page.size
        if self.nested and self.everything > NESTED_BYTES:
            raise Malformed(f"a row may have {self.everything} bytes in a nested column; the limit is {NESTED_BYTES}")

    @property
    def everything(self) -> int:
        """Bytes of all values together, at the most."""
        return self.stored + self.values * (self.widest + self.width + 8)

    def window(self, rows: int, of: int) -> int:
        """Bytes that so many rows in a row take, at the most, of so many in all."""
        if self.nested:
            return self.everything * rows // max(1, of)
        return rows * (self.widest + self.width + 8) + self._plain(rows)

    def _plain(self, rows: int) -> int:
        """Bytes of the pages that so many rows in a row may touch: most when they begin with the last row of one."""
        if not self.sizes:
            return 0
        starts, stops, sizes = (_numbers(of) for of in (self.starts, self.stops, self.sizes))
        last = np.searchsorted(starts, stops - 1 + rows, side="left")
        until = np.concatenate([[0], np.cumsum(sizes)])
        return int((until[last] - until[:-1]).max())


def rows_at_once(leaves: list[Leaf], of: int, most: int) -> int:
    """Rows to decode at once: as many as fit WINDOW_BYTES beyond what a single row takes.

    Args:
        leaves: The stored columns that are read.
        of: Rows of the row group.
        most: Never more than these.
    """

    def taken(rows: int) -> int:
        return sum(leaf.window(rows, of) for leaf in leaves)

    while most > 1 and taken(most) - taken(1) > WINDOW_BYTES:
        most //= 2
    return most


def _numbers(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _longest(page: Page, read: Read, codec: int) -> int:
    """The longest string of a dictionary; all of it, where looking is not worth while or not possible."""
    if page.size <= _FEW_BYTES or page.values > _FEW_VALUES:
        return page.size
    body = read(page.at, page.stored)
    try:
        if codec in _CODECS:
            body = pa.decompress(body, page.size, _CODECS[codec], asbytes=True)
        elif codec != _PLAIN:
            return page.size
    except (pa.ArrowException, OSError):
        return page.size  # Arrow will say so when it reads the page
    at = longest = 0
    while at + 4 <= len(body):
        length = int.from_bytes(body[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return min(longest, page.size)
