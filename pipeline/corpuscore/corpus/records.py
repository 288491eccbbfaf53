"""Bytes -> records at their offsets: lines and paragraphs (CSV records are in csvrecords.py).

A record is (offset, body): the offset of its first byte in the plain (decompressed) object, and its bytes without the
line end; the body is None where it is longer than the limit, and then nobody ever held it whole.
A record belongs to the range that its first byte lies in, so any set of ranges yields every record once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

BOM = b"\xef\xbb\xbf"
ENDLESS = 2**63 - 1

Record = tuple[int, bytes | None]


def lines(blocks: Iterable[bytes], offset: int, stop: int, limit: int) -> Iterator[Record]:
    r"""The lines that start before `stop`, without `\n` or `\r\n`.

    Args:
        blocks: The object from `offset` on, in pieces of any length.
        offset: Where the first block starts; a line starts there.
        stop: Where the range ends.
        limit: Longest body in bytes.
    """
    held = bytearray()  # the line that the last block broke off in
    size = 0
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for piece in ended:
            length = size + len(piece)
            body = piece if not size or length > limit else bytes(held + piece)
            yield offset, None if length > limit else body.removesuffix(b"\r")
            offset += length + 1
            held, size = bytearray(), 0
            if offset >= stop:
                return
        size += len(rest)
        hold(held, rest, size <= limit)
    if size:
        yield offset, None if size > limit else bytes(held).removesuffix(b"\r")


def paragraphs(records: Iterable[Record], stop: int, limit: int) -> Iterator[Record]:
    """Lines -> paragraphs: runs of lines that are not blank, joined with their line ends.

    Args:
        records: Lines from a paragraph's start on, past `stop` as far as the last paragraph reaches.
        stop: Where the range ends.
        limit: Longest body in bytes.
    """
    start, held, size = 0, bytearray(), 0
    for offset, body in records:
        if body is None or body.strip():
            start = start if size else offset
            if start >= stop:
                return
            size += limit + 2 if body is None else len(body) + 1
            hold(held, (body or b"") + b"\n", size <= limit + 1)
        elif size:
            yield start, None if size > limit + 1 else bytes(held[:-1])
            held, size = bytearray(), 0
        if not size and offset >= stop:
            return
    if size:
        yield start, None if size > limit + 1 else bytes(held[:-1])


def without_bom(records: Iterable[Record]) -> Iterator[Record]:
    """The same records, the first of an object without its byte order mark."""
    for offset, body in records:
        yield offset, body.removeprefix(BOM) if body is not None and offset == 0 else body


def hold(held: bytearray, piece: bytes, wanted: bool) -> None:
    """Keep a piece of a record; forget all of it once the record is too long to be wanted."""
    if wanted:
        held += piece
    else:
        held.clear()
