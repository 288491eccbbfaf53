"""Small objects that stand for huge ones. Each function writes one under a folder, and returns its path."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MIB = 2**20
GIB = 2**30


def gzipped(path: Path, pieces: Iterator[bytes]) -> Path:
    """One member."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
    return path


def gzip_of(name: str, head: bytes, fill: bytes, tail: bytes, size: int) -> Callable[[Path], Path]:
    """A gzip object: head, then fill until so many bytes, then tail."""

    def write(folder: Path) -> Path:
        block = fill * (MIB // len(fill))
        return gzipped(folder / name, (piece for piece in (head, *repeat(block, size // len(block)), tail)))

    return write


def zstd_of(name: str, head: bytes, fill: bytes, tail: bytes, size: int) -> Callable[[Path], Path]:
    """The same as zstd."""

    def write(folder: Path) -> Path:
        block = fill * (MIB // len(fill))
        with pa.CompressedOutputStream(str(folder / name), "zstd") as file:
            for piece in (head, *repeat(block, size // len(block)), tail):
                file.write(piece)
        return folder / name

    return write


def many_members(folder: Path) -> Path:
    """A gzip object of a hundred thousand members, most of them empty, which holds one line in ten of them."""
    member, empty = zlib_member(b'{"text": "a line"}\n'), zlib_member(b"")
    path = folder / "x.jsonl.gz"
    path.write_bytes((empty * 9 + member) * 10_000)
    return path


def zlib_member(body: bytes) -> bytes:
    """A gzip member."""
    squeeze = zlib.compressobj(wbits=31)
    return squeeze.compress(body) + squeeze.flush()


def wide_window(window_log: int) -> Callable[[Path], Path]:
    """A zstd frame whose header asks for a window of 2 to this: one block, of one byte repeated 128 kB."""

    def write(folder: Path) -> Path:
        frame = struct.pack("<IBB", 0xFD2FB528, 0, (window_log - 10) << 3)
        block = (128 * 1024 << 3) | (1 << 1) | 1  # last, run-length
        path = folder / "x.txt.zst"
        path.write_bytes(frame + struct.pack("<I", block)[:3] + b"a")
        return path

    return write


def plain(name: str, body: Callable[[], bytes], size: int = 0) -> Callable[[Path], Path]:
    """An object as it is; a longer size is filled with zeros that take no disk."""

    def write(folder: Path) -> Path:
        path = folder / name
        with path.open("wb") as file:
            file.write(body())
            if size:
                file.truncate(size)
        return path

    return write


def parquet(make: Callable[[], pa.Table], **options: object) -> Callable[[Path], Path]:
    """A Parquet object that pyarrow writes with these options."""

    def write(folder: Path) -> Path:
        pq.write_table(make(), folder / "x.parquet", compression="zstd", **options)
        return folder / "x.parquet"

    return write


def _varint(number: int) -> bytes:
    made = b""
    while number > 127:
        made += bytes([number & 127 | 128])
        number >>= 7
    return made + bytes([number])


def _int(number: int) -> bytes:
    return _varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _list(count: int, element: bytes) -> bytes:
    return bytes([0xFC]) + _varint(count) + element * count


_TEXT = bytes([0x15]) + _int(6) + bytes([0x25]) + _int(1) + bytes([0x18]) + _varint(4) + b"text" + bytes([0x15, 0, 0])
_INNER = bytes([0x35]) + _int(1) + bytes([0x18]) + _varint(1) + b"a" + bytes([0x15]) + _int(1) + b"\0"


def _root(children: int) -> bytes:
    return bytes([0x48]) + _varint(6) + b"schema" + bytes([0x15]) + _int(children) + b"\0"


def footer(schema: bytes, groups: bytes, rows: int = 0) -> bytes:
    """A Parquet object of a footer alone."""
    made = (
        bytes([0x15]) + _int(1) + bytes([0x19]) + schema + bytes([0x16]) + _int(rows) + bytes([0x19]) + groups + b"\0"
    )
    return b"PAR1" + made + len(made).to_bytes(4, "little") + b"PAR1"


def deep_schema() -> bytes:
    """Groups in groups, a hundred thousand deep."""
    elements = _root(1) + _INNER * 100_000 + _TEXT
    return footer(bytes([0xFC]) + _varint(100_002) + elements, bytes([0x0C]))


def chunks_of_nothing(count: int) -> bytes:
    """A row group with so many column chunks, each of three bytes."""
    group = bytes([0x19]) + _list(count, b"\x26\x00\x00") + bytes([0x16, 0, 0x16, 0, 0])
    return footer(bytes([0x2C]) + _root(1) + _TEXT, bytes([0x1C]) + group)


def columns_of_nothing(count: int) -> bytes:
    """A schema with so many columns, each of a few bytes."""
    return footer(bytes([0xFC]) + _varint(count + 1) + _root(count) + _TEXT * count, bytes([0x0C]))


def with_page_size(size: int) -> bytes:
    """A small object whose first page's header says that the page is of another size once it is decompressed."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a" * 100]}), sink, use_dictionary=False, compression="zstd")
    body = sink.getvalue()
    before, after = bytes([0x15, 0, 0x15]) + _int(104 + 6), bytes([0x15, 0, 0x15]) + _int(size)
    assert body[4:].startswith(before), body[4:20].hex()
    longer, at = len(after) - len(before), 4 + len(before)
    assert body[at] == 0x15
    stored = body[at + 1] // 2  # what the longer header takes, the page gives up
    end = at + 2 + body[at + 2 :].index(b"\0") + stored
    return body[:4] + after + bytes([0x15]) + _int(stored - longer) + body[at + 2 : end - longer] + body[end:]


def with_other_levels() -> bytes:
    """An object whose schema has no nulls in its lists, while the statistics of their column count them."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], "kept": [[1, None], None]}), sink)
    optional, required = b"\x25\x02\x18\x07element", b"\x25\x00\x18\x07element"
    body = sink.getvalue()
    assert body.count(optional) == 1
    return body.replace(optional, required)


def with_another_name() -> bytes:
    """An object with a column whose name is no UTF-8."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "name": [1]}), sink, store_schema=False)
    return sink.getvalue().replace(b"\x04name", b"\x04n\x9bme")
