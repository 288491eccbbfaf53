r"""CSV bytes -> records at their offsets, in whatever dialect; and where an object of CSV may be cut.

A record is that of records.py; its body has the quotes and escapes that it was written with.

Source: RFC 4180, section 2; for escapes, Python's csv module.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from functools import lru_cache

from corpuscore.corpus.dialect import Dialect
from corpuscore.corpus.records import BOM, Record, hold

#: So many bytes of lines that look like records in no quotes are such records.
TELLING_BYTES = 2**16


class _At(Enum):
    """Where a scanner stands."""

    FIELD_START = auto()
    PLAIN = auto()
    QUOTED = auto()
    QUOTE_IN_QUOTED = auto()  # either the end of the field, or the first of two that mean one
    ESCAPE = auto()  # outside of quotes, an escape with nothing behind it: the line end is part of the field
    COMMENT = auto()


_FIELD_START, _PLAIN, _QUOTED, _QUOTE_IN_QUOTED, _ESCAPE, _COMMENT = _At
_GOES_ON = {_QUOTED: _QUOTED, _ESCAPE: _PLAIN}  # where a scanner stands in the next line of a record


class Scanner:
    """Follows the quotes and escapes of a dialect through pieces of a record."""

    def __init__(self, dialect: Dialect) -> None:
        self.delimiter, self.quote, self.escape, self.comment = (
            part.encode() for part in (dialect.delimiter, dialect.quote, dialect.escape, dialect.comment)
        )
        self._opening = self.delimiter + self.quote
        delimiter, quote, escape = (re.escape(part) for part in (self.delimiter, self.quote, self.escape))
        if self.escape:
            self._quoted = _runs(b"[^%b%b]*+" % (quote, escape), b"%b%b|%b." % (quote, quote, escape))
            opening = b"(?!%b)" % quote if quote else b""
            self._plain = _runs(b"[^%b%b]*+" % (delimiter, escape), b"%b.|%b%b" % (escape, delimiter, opening))
        else:
            self._quoted = _runs(b"[^%b]*+" % (quote or rb"\n"), b"%b%b" % (quote, quote))

    def is_plain(self, piece: bytes) -> bool:
        """Whether a line is a record by itself, if no line before it goes on."""
        return (not self.quote or self.quote not in piece) and (not self.escape or self.escape not in piece)

    def is_comment(self, piece: bytes) -> bool:
        """Whether a line is a comment, if a record may start there."""
        return bool(self.comment) and piece.startswith(self.comment)

    def scan(self, piece: bytes, at: _At) -> _At:
        """Where the scanner stands after a piece without line ends, which may break off anywhere but in an escape."""
        if at is _COMMENT:
            return at
        return self._scan_escaped(piece, at) if self.escape else self._scan(piece, at)

    def _scan(self, piece: bytes, at: _At) -> _At:
        quote, opening = self.quote, self._opening
        place = 0 if quote else len(piece)
        while place < len(piece):
            if at is _QUOTED:
                place = _end_of(self._quoted, piece, place) + 1
                if place > len(piece):
                    return at
                at = _QUOTE_IN_QUOTED
            elif at is not _PLAIN and piece.startswith(quote, place):
                at, place = _QUOTED, place + 1
            else:
                place = piece.find(opening, place) + 2
                if place == 1:
                    return _FIELD_START if piece.endswith(self.delimiter) else _PLAIN
                at = _QUOTED
        return at

    def _scan_escaped(self, piece: bytes, at: _At) -> _At:
        place = 0
        while place < len(piece):
            is_behind = at is _QUOTE_IN_QUOTED and not piece.startswith((self.quote, self.delimiter), place)
            if at is _ESCAPE or is_behind:  # right behind a closing quote, an escape is none
                at, place = _PLAIN, place + 1
                continue
            if at is _QUOTED:
                place = _end_of(self._quoted, piece, place) + 1
                if place > len(piece) or piece.startswith(self.escape, place - 1):
                    return at
                at = _QUOTE_IN_QUOTED
            elif at is not _PLAIN and self.quote and piece.startswith(self.quote, place):
                at, place = _QUOTED, place + 1
            else:
                place = _end_of(self._plain, piece, place)
                if place == len(piece):
                    ended = piece.endswith(self.delimiter) and not self.escapes(piece[:-1])
                    return _FIELD_START if ended else _PLAIN
                if piece.startswith(self.escape, place):
                    return _ESCAPE
                at, place = _QUOTED, place + 2
        return at

    def escapes(self, piece: bytes) -> bool:
        """Whether the byte after a piece is escaped by its last one."""
        if not self.escape or not piece.endswith(self.escape):
            return False
        return (len(piece) - len(piece.rstrip(self.escape))) % 2 == 1

    def unfinished(self, piece: bytes) -> bytes:
        r"""The end of a piece that says nothing without what follows it: an escape, and `\r` behind one."""
        if not self.escape:
            return b""
        whole = piece.removesuffix(b"\r")
        return piece[len(whole) - self.escapes(whole) :]


@lru_cache(maxsize=32)
def scanner_of(dialect: Dialect) -> Scanner:
    """The scanner of a dialect, made once."""
    return Scanner(dialect)


def _runs(text: bytes, also: bytes) -> re.Pattern[bytes]:
    """As much as there is of a text and what else may stand in it, without ever trying again."""
    return re.compile(b"%b(?:(?:%b)%b)*+" % (text, also, text), re.DOTALL)


def _end_of(pattern: re.Pattern[bytes], piece: bytes, at: int) -> int:
    match = pattern.match(piece, at)
    return match.end() if match else at


class CsvRecords:
    r"""Iterates over the CSV records that start before `stop`: a line end inside quotes is part of a field.

    A quote opens a field only as its first character, as RFC 4180 and Python's csv module have it; elsewhere it is a
    character like others, so that `5" pipe` swallows nothing. Comments are records, too.
    Arguments are those of `lines`.

    Attributes:
        inside: Line ends inside of the record that was yielded last.
        is_open: Whether the object has ended inside of quotes.
    """

    def __init__(
        self, blocks: Iterable[bytes], offset: int, stop: int, limit: int, dialect: Dialect | None = None
    ) -> None:
        self.inside = 0
        self.is_open = False
        self._scanner = scanner_of(dialect or Dialect())
        self._found = self._records(blocks, offset, stop, limit)

    def __iter__(self) -> Iterator[Record]:
        return self._found

    def __next__(self) -> Record:
        return next(self._found)

    def _records(self, blocks: Iterable[bytes], offset: int, stop: int, limit: int) -> Iterator[Record]:
        scan, carries = self._scanner.scan, bool(self._scanner.escape)
        quote = b"" if carries else self._scanner.quote or b"\n"  # what a line without it needs no look at
        held = bytearray()
        size, at, carried, rest = 0, _FIELD_START, b"", b""
        for block in blocks:
            *ended, rest = block.split(b"\n")
            for piece in ended:
                if size:
                    at, carried = scan((carried + piece).removesuffix(b"\r"), at), b""
                elif quote not in piece:  # nearly always
                    at = _PLAIN
                else:
                    at = self._first(piece.removesuffix(b"\r"), offset)
                if not size and at is not _QUOTED and at is not _ESCAPE:
                    yield offset, None if len(piece) > limit else piece.removesuffix(b"\r")
                    offset += len(piece) + 1
                    if offset >= stop:
                        return
                    continue
                size += len(piece) + 1
                hold(held, piece, size - 1 <= limit)
                if at is _QUOTED or at is _ESCAPE:
                    at = _QUOTED if at is _QUOTED else _PLAIN
                    hold(held, b"\n", size <= limit)
                    self.inside += 1
                    continue
                yield offset, None if size - 1 > limit else bytes(held).removesuffix(b"\r")
                offset += size
                held, size, self.inside = bytearray(), 0, 0
                if offset >= stop:
                    return
            if carries:
                seen = carried + rest
                carried = self._scanner.unfinished(seen)
                seen = seen[: len(seen) - len(carried)]
            else:
                seen = rest
            at = scan(seen, at) if size else self._first(seen, offset)
            size += len(rest)
            hold(held, rest, size <= limit)
        if size:
            self.is_open = at is _QUOTED
            self.inside -= not rest  # nothing starts behind a line end that is the object's last byte
            yield offset, None if size > limit else bytes(held).removesuffix(b"\r")

    def _first(self, piece: bytes, offset: int) -> _At:
        """Scan the first piece of a record, which may be a comment, and which has a mark at an object's start."""
        piece = piece if offset else piece.removeprefix(BOM)
        return self._scanner.scan(piece, _COMMENT if self._scanner.is_comment(piece) else _FIELD_START)


def csv_cut(found: Iterable[Record], width: int, dialect: Dialect | None = None) -> int | None:
    """Where a range of CSV may start: the first of some lines with which a record surely starts; None: with none.

    Seen from inside, a line end says nothing of the quotes around it. So the lines are followed in all ways, as if the
    line before them had ended a record, or had ended inside quotes (or with an escape). Where all ways have come to the
    end of a record, what was before does not matter, whatever it was. Where nothing is in quotes the ways never meet;
    there, TELLING_BYTES without any quote, in lines of mostly as many fields as the header, are taken for the records
    that they look like (the reader of the range before would notice if they were text in quotes after all).

    From a later line the answer is the same or a later one: ranges that are cut here neither overlap nor leave gaps.

    Args:
        found: The lines of an object from any one on.
        width: Fields of the header.
    """
    scanner = scanner_of(dialect or Dialect())
    unknown = {_FIELD_START}
    unknown |= {_QUOTED} if scanner.quote else set()
    unknown |= {_PLAIN} if scanner.escape else set()
    states = unknown
    plain: deque[tuple[int, bool]] = deque()  # lines without quotes: where each starts, and whether its width is right
    fitting = 0
    for offset, body in found:
        if states == {_FIELD_START}:
            return offset
        while plain and offset - plain[0][0] >= TELLING_BYTES:
            if fitting * 4 >= len(plain) * 3:
                return plain[0][0]
            fitting -= plain.popleft()[1]
        if body is None:
            states = unknown
        elif not scanner.is_plain(body) or _PLAIN in states:
            states = {_after(scanner, body, state) for state in states}
        elif len(states) > 1:
            plain.append((offset, not body or body.count(scanner.delimiter) == width - 1))
            fitting += plain[-1][1]
            continue
        plain.clear()
        fitting = 0
    return None


def _after(scanner: Scanner, body: bytes, at: _At) -> _At:
    """Where the next line starts, if this one starts there."""
    if at is _FIELD_START and scanner.is_comment(body):
        return at
    return _GOES_ON.get(scanner.scan(body, at), _FIELD_START)
