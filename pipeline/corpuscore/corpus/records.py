"""Bytes -> records at their offsets: lines, CSV records, paragraphs.

A record is (offset, body): the offset of its first byte in the plain (decompressed) object, and its bytes without the
line end; the body is None where it is longer than the limit, and then nobody ever held it whole.
A record belongs to the range that its first byte lies in, so any set of ranges yields every record once.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto

BOM = b"\xef\xbb\xbf"
ENDLESS = 2**63 - 1
#: So many bytes of lines that look like records in no quotes are such records.
TELLING_BYTES = 2**16
_QUOTED_TEXT = re.compile(rb'[^"]*+(?:""[^"]*+)*+')

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
        _hold(held, rest, size <= limit)
    if size:
        yield offset, None if size > limit else bytes(held).removesuffix(b"\r")


class _Quoting(Enum):
    """Where a CSV scanner stands."""

    FIELD_START = auto()
    PLAIN = auto()
    QUOTED = auto()
    QUOTE_IN_QUOTED = auto()  # either the end of the field, or the first of two that mean one


def csv_records(blocks: Iterable[bytes], offset: int, stop: int, limit: int) -> Iterator[Record]:
    r"""The CSV records that start before `stop`: a line end inside quotes is part of a field.

    A quote opens a field only as its first character, as RFC 4180 and Python's csv module have it; elsewhere it is a
    character like others, so that `5" pipe` swallows nothing. Arguments are those of `lines`.

    Source: RFC 4180, section 2.
    """
    held = bytearray()
    size = 0
    quoting = _Quoting.FIELD_START
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for piece in ended:
            if not size and b'"' not in piece:  # nearly always
                yield offset, None if len(piece) > limit else piece.removesuffix(b"\r")
                offset += len(piece) + 1
                if offset >= stop:
                    return
                continue
            quoting = _scan(piece.removeprefix(BOM) if offset == size == 0 else piece, quoting)
            size += len(piece) + 1
            _hold(held, piece, size - 1 <= limit)
            if quoting is _Quoting.QUOTED:
                _hold(held, b"\n", size <= limit)
                continue
            yield offset, None if size - 1 > limit else bytes(held).removesuffix(b"\r")
            offset += size
            held, size, quoting = bytearray(), 0, _Quoting.FIELD_START
            if offset >= stop:
                return
        quoting = _scan(rest.removeprefix(BOM) if offset == size == 0 else rest, quoting)
        size += len(rest)
        _hold(held, rest, size <= limit)
    if size:
        yield offset, None if size > limit else bytes(held).removesuffix(b"\r")


def csv_cut(found: Iterable[Record], width: int) -> int | None:
    """Where a range of CSV may start: the first of some lines with which a record surely starts; None: with none.

    Seen from inside, a line end says nothing of the quotes around it. So the lines are followed both ways, as if the
    line before them had ended a record, and as if it had ended inside quotes. Where both ways have come to the end of a
    record, what was before does not matter, whatever it was. Where nothing is in quotes the ways never meet; there,
    TELLING_BYTES without any quote, in lines of mostly as many fields as the header, are taken for the records that
    they look like (the reader of the range before would notice if they were text in quotes after all).

    From a later line the answer is the same or a later one: ranges that are cut here neither overlap nor leave gaps.

    Args:
        found: The lines of an object from any one on.
        width: Fields of the header.
    """
    states = {_Quoting.FIELD_START, _Quoting.QUOTED}
    plain: deque[tuple[int, bool]] = deque()  # lines without quotes: where each starts, and whether its width is right
    fitting = 0
    for offset, body in found:
        if states == {_Quoting.FIELD_START}:
            return offset
        while plain and offset - plain[0][0] >= TELLING_BYTES:
            if fitting * 4 >= len(plain) * 3:
                return plain[0][0]
            fitting -= plain.popleft()[1]
        if body is None:
            states = {_Quoting.FIELD_START, _Quoting.QUOTED}
        elif b'"' in body:
            after = {_scan(body, state) is _Quoting.QUOTED for state in states}
            states = {_Quoting.QUOTED if inside else _Quoting.FIELD_START for inside in after}
        elif len(states) == 2:
            plain.append((offset, not body or body.count(b",") == width - 1))
            fitting += plain[-1][1]
            continue
        plain.clear()
        fitting = 0
    return None


def _hold(held: bytearray, piece: bytes, wanted: bool) -> None:
    """Keep a piece of a record; forget all of it once the record is too long to be wanted."""
    if wanted:
        held += piece
    else:
        held.clear()


def _end_of(pattern: re.Pattern[bytes], piece: bytes, at: int) -> int:
    match = pattern.match(piece, at)
    return match.end() if match else at


def _scan(piece: bytes, quoting: _Quoting) -> _Quoting:
    """Where the scanner stands after a piece without line ends, which may break off anywhere."""
    at = 0
    while at < len(piece):
        if quoting is _Quoting.QUOTED:
            at = _end_of(_QUOTED_TEXT, piece, at) + 1
            if at > len(piece):
                return quoting
            quoting = _Quoting.QUOTE_IN_QUOTED
        elif quoting is not _Quoting.PLAIN and piece.startswith(b'"', at):
            quoting, at = _Quoting.QUOTED, at + 1
        else:
            at = piece.find(b',"', at) + 2
            if at == 1:
                return _Quoting.FIELD_START if piece.endswith(b",") else _Quoting.PLAIN
            quoting = _Quoting.QUOTED
    return quoting


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
            _hold(held, (body or b"") + b"\n", size <= limit + 1)
        elif size:
            yield start, None if size > limit + 1 else bytes(held[:-1])
            held, size = bytearray(), 0
        if not size and offset >= stop:
            return
    if size:
        yield start, None if size > limit + 1 else bytes(held[:-1])
