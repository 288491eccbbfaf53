"""The documents of a CSV object, or of a range of one: its dialect, its header, its rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from corpuscore.corpus.counting import ReadCounts, note_missing
from corpuscore.corpus.csvfields import splitter
from corpuscore.corpus.csvrecords import CsvRecords, csv_cut
from corpuscore.corpus.dialect import Dialect, said_dialect
from corpuscore.corpus.encodings import record_encoding
from corpuscore.corpus.formats import check_columns
from corpuscore.corpus.opening import TAIL_BLOCK, PlannedObject
from corpuscore.corpus.parsing import Document, Parser, csv_parser, recoded
from corpuscore.corpus.records import ENDLESS, Record, lines, without_bom
from corpuscore.errors import CorpusError
from corpuscore.naming import folder_values
from corpuscore.options import AUTO, ReadOptions

#: Of an object, to see whether its quotes are escaped.
BEGINNING_BYTES = TAIL_BLOCK
_MOST_COLUMNS = 100_000
_MANY_LINES = 1000


class Head(NamedTuple):
    """What a CSV object begins with.

    Attributes:
        dialect: How it is written.
        is_recognised: Whether its beginning says so, and not the options.
        names: Of its columns.
        records: Those behind the header.
    """

    dialect: Dialect
    is_recognised: bool
    names: list[str]
    records: CsvRecords


def read_head(
    planned: PlannedObject, blocks: Iterable[bytes], reading: ReadOptions, limit: int, counts: ReadCounts
) -> Head | None:
    """The dialect and the header of an object; None where there is nothing but blank lines and comments.

    Args:
        planned: The object.
        blocks: Its bytes from the start, more of them than the header.
        reading: What is said of it.
        limit: Longest record in bytes.
        counts: Where the lines up to the header are noted.

    Raises:
        CorpusError: The header is no text, or endless, or has too many columns.
    """
    beginning, blocks = _beginning(iter(blocks))
    said = said_dialect(planned.uri, reading)
    dialect = _recognised(beginning, said, reading)
    records = CsvRecords(blocks, 0, ENDLESS, limit, dialect)
    if reading.csv_header:
        return Head(dialect, dialect != said, list(reading.csv_header), records)
    names = _header(planned, records, dialect, reading.encoding, counts)
    return None if names is None else Head(dialect, dialect != said, names, records)


def _beginning(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all blocks."""
    taken: list[bytes] = []
    while sum(map(len, taken)) < BEGINNING_BYTES and (block := next(blocks, b"")):
        taken.append(block)
    return b"".join(taken)[:BEGINNING_BYTES], itertools.chain(taken, blocks)


def _recognised(beginning: bytes, said: Dialect, reading: ReadOptions) -> Dialect:
    """The dialect, with backslashes that escape quotes where the first rows make more sense so."""
    unsaid = reading.csv_escape == AUTO and said.quote and "\\" not in (said.delimiter, said.quote, said.comment)
    if not unsaid or f"\\{said.quote}".encode() not in beginning:
        return said
    plain, escaped = (_faults(beginning, dialect, reading) for dialect in (said, said.escaped))
    return said.escaped if escaped * 4 < plain else said


def _faults(beginning: bytes, dialect: Dialect, reading: ReadOptions) -> int:
    """How many of an object's first rows are no rows of this dialect: other widths, or text behind quotes."""
    records = CsvRecords([beginning], 0, ENDLESS, len(beginning), dialect)
    found = [body for _, body in without_bom(records) if body and not _is_comment(body, dialect)]
    if len(beginning) == BEGINNING_BYTES:
        found = found[:-1]  # which may be cut off
    rows = [splitter(dialect)(body.decode(record_encoding(reading.encoding), "replace"), -1) for body in found]
    width = len(reading.csv_header or (rows[0][0] if rows else ()))
    return sum(is_odd or len(fields) != width for fields, is_odd in rows) + records.is_open


def _header(
    planned: PlannedObject, records: CsvRecords, dialect: Dialect, encoding: str, counts: ReadCounts
) -> list[str] | None:
    for _, body in without_bom(records):
        if records.inside:
            counts.note_line("inside", records.inside)
        if body is None:
            raise planned.corrupt("the header line is longer than any document may be")
        if _is_comment(body, dialect):
            counts.note_line("comment")
        elif _is_blank(body, dialect):
            counts.note_line("blank")
        else:
            counts.note_line("header")
            return _names(planned, body, dialect, encoding)
    return None


def _names(planned: PlannedObject, body: bytes, dialect: Dialect, encoding: str) -> list[str]:
    stored = record_encoding(encoding)
    try:
        names, _ = splitter(dialect)(body.decode(stored), _MOST_COLUMNS)
    except UnicodeDecodeError as error:
        raise planned.corrupt(f"the header line is not {stored.upper()} ({error.reason})") from None
    if len(names) > _MOST_COLUMNS:
        raise planned.corrupt(f"the header line has more than {_MOST_COLUMNS} columns")
    return names


def _is_comment(body: bytes, dialect: Dialect) -> bool:
    return bool(dialect.comment) and body.startswith(dialect.comment.encode())


def _is_blank(body: bytes, dialect: Dialect) -> bool:
    return not body or (body.isspace() and dialect.delimiter.encode() not in body)


class CsvDocuments:
    """The documents of a CSV object, or of a range of it.

    Args:
        planned: The object.
        file: The same, opened.
        size: Its bytes.
        span: Start and stop of the range; None for all of the object.
        reading: What is said of it.
        counts: Where lines and oddities are noted.
        limit: Longest record in bytes.
    """

    def __init__(
        self,
        planned: PlannedObject,
        file: Any,
        size: int,
        span: tuple[int, int] | None,
        reading: ReadOptions,
        counts: ReadCounts,
        limit: int,
    ) -> None:
        self._object, self._file, self._size, self._span = planned, file, size, span
        self._reading, self._counts, self._limit = reading, counts, limit

    def __iter__(self) -> Iterator[tuple[int, Document]]:
        """(position, document) in order."""
        if self._span is None:
            blocks = self._counts.counted(self._object.blocks(self._file), 0, 0, ENDLESS)
            head = read_head(self._object, blocks, self._reading, self._limit, self._counts)
        else:
            blocks = self._object.range(self._file, 0, TAIL_BLOCK)
            head = read_head(self._object, blocks, self._reading, self._limit, ReadCounts())
        if head is None:
            return
        check_columns(self._object.uri, self._reading, head.names, head.names.__contains__)
        if head.is_recognised and (self._span is None or not self._span[0]):
            self._note("csv_escape", self._object.uri)
        if self._span is None:
            yield from self._parsed(head, self._unmarked(head.records), head.records)
        else:
            yield from self._of_range(head, *self._span)

    def _note(self, kind: str, example: str) -> None:
        self._counts.oddities.note(kind, example)

    def _of_range(self, head: Head, start: int, stop: int) -> Iterator[tuple[int, Document]]:
        """The documents from where this range's start was cut to where its stop was, as the next range cuts its start.

        Raises:
            CorpusError: No record starts where the next range begins: text in quotes was taken for records there.
        """
        width = len(head.names)
        start, stop = (self._cut(edge, width, head.dialect) for edge in (start, stop))
        if start == stop:
            self._counts.lines = 0
            return
        before = max(0, start - 1)
        blocks = self._counts.counted(self._object.range(self._file, before, stop), before, start, stop)
        if start:
            next_blocks = iter(blocks)
            blocks = itertools.chain([next(next_blocks, b"")[1:]], next_blocks)
        records = CsvRecords(blocks, start, stop + 1, self._limit, head.dialect)
        if not start and not self._reading.csv_header:
            _header(self._object, records, head.dialect, self._reading.encoding, self._counts)
        yield from self._parsed(head, self._up_to(records, stop), records)

    def _up_to(self, records: CsvRecords, stop: int) -> Iterator[Record]:
        for offset, body in self._unmarked(records):
            if offset >= stop:
                break
            yield offset, body
        else:
            offset = self._size
        if offset != stop:
            raise CorpusError(
                f"{self._object.uri}: a quote that opens before byte {stop} closes behind it, or never",
                rule="a field in quotes that is longer than a partition ends in one",
                next_step="mend the quotes, or plan with more rows a partition, so that the object is not cut there",
            )

    def _unmarked(self, records: CsvRecords) -> Iterable[Record]:
        """Records, of which the first may have a byte order mark where it is no header."""
        return without_bom(records) if self._reading.csv_header else records

    def _cut(self, edge: int, width: int, dialect: Dialect) -> int:
        """The start of a record that stands for a planned edge, the same for the ranges on both sides of it."""
        if edge in (0, self._size):
            return edge
        # From the byte before: where that is a line end, a line starts at the edge.
        found = lines(self._object.range(self._file, edge - 1, edge), edge - 1, ENDLESS, self._limit)
        next(found, None)
        cut = csv_cut(found, width, dialect)
        return self._size if cut is None else cut

    def _parsed(self, head: Head, found: Iterable[Record], records: CsvRecords) -> Iterator[tuple[int, Document]]:
        odd: list[str] = []  # about the record at hand
        parse = recoded(self._parser(head, odd), self._reading.encoding)
        delimiter, offset = head.dialect.delimiter.encode(), 0
        rows = self._without_comments(found, head.dialect.comment.encode()) if head.dialect.comment else found
        for offset, body in rows:
            if records.inside:
                self._note_inside(records.inside, offset)
            if body and (not body.isspace() or delimiter in body):
                document = parse(body)
            elif body is None:
                document = Document(None, None, "too_large", "the record is longer than any document may be")
            elif len(head.names) > 1:
                self._counts.note_line("blank")
                continue
            else:
                document = parse(body)
            if odd or document[1] is None:
                self._note_odd(odd, document, offset)
            yield offset, document
        if records.is_open:
            self._note("csv_unclosed", f"{self._object.uri}, in the row at byte {offset}")

    def _without_comments(self, found: Iterable[Record], comment: bytes) -> Iterator[Record]:
        for offset, body in found:
            if body is not None and body.startswith(comment):
                self._counts.note_line("comment")
            else:
                yield offset, body

    def _note_inside(self, inside: int, offset: int) -> None:
        self._counts.note_line("inside", inside)
        if inside >= _MANY_LINES:
            self._note("csv_long_row", f"{self._object.uri}, byte {offset}: {inside + 1:,} lines")

    def _note_odd(self, odd: list[str], document: Document, offset: int) -> None:
        where = f"{self._object.uri}, byte {offset}"
        for kind in odd:
            self._note(kind, where)
        odd.clear()
        if document.reason == "csv_columns":
            self._note("csv_columns", f"{where}: {document.detail}")

    def _parser(self, head: Head, odd: list[str]) -> Parser:
        """Parses records, and says in `odd` what is odd about their quotes."""
        dialect = head.dialect
        split, quote, delimiter = splitter(dialect), dialect.quote, dialect.delimiter
        marks = "" if dialect.escape else quote or "\n"  # what a record without it needs no look at
        unsaid = quote and not dialect.escape and self._reading.csv_escape == AUTO
        escaped = f"\\{quote}"

        def noting(record: str, most: int) -> list[str]:
            if marks not in record:  # nearly always
                return record.split(delimiter, most)
            fields, is_odd = split(record, most)
            if is_odd:
                odd.append("csv_after_quote")
            if unsaid and escaped in record and record.count(escaped) > record.count(escaped + quote):
                odd.append("csv_backslash")
            return fields

        uri = self._object.uri
        missing = partial(note_missing, self._counts, uri)
        return csv_parser(self._reading, head.names, noting, folder_values(uri), missing)
