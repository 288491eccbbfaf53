"""DocumentReader: a partition's documents as Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from corpuscore.corpus.arrowfiles import ArrowDocuments, open_arrow
from corpuscore.corpus.batches import to_batches
from corpuscore.corpus.counting import ReadCounts, note_missing
from corpuscore.corpus.csvdocuments import CsvDocuments
from corpuscore.corpus.formats import check_reading
from corpuscore.corpus.opening import PlannedObject
from corpuscore.corpus.parquet import ParquetDocuments, open_parquet
from corpuscore.corpus.parsing import Document, Parser, json_parser, recoded, text_parser
from corpuscore.corpus.records import BOM, ENDLESS, Record, lines, paragraphs, without_bom
from corpuscore.corpus.warcs import warc_documents
from corpuscore.naming import folder_values
from corpuscore.options import ReadOptions
from corpuscore.records import Partition

_LOOK_BACK = 4096  # bytes of one read backwards from the start of a range


class DocumentReader:
    """Reads a partition; a context manager whose iteration yields Arrow record batches, streaming.

    A batch has DOCUMENT_FIELDS (corpuscore.records) and the kept columns; a row whose `reason` is set is a reject, and
    its text is null. Positions, and the ids made from them, don't depend on how the object was cut: row numbers in
    Parquet, else byte offsets in the plain object.

    Args:
        partition: What to read.
        reading: Which columns.
        batch_rows: Documents of a batch at the most; batches of long texts have fewer.

    Attributes:
        counts: Lines and oddities, complete once all batches were read.

    Raises (when entered or iterated):
        ObjectChanged: The object is not the planned one any more.
        CorpusError: The object as a whole cannot be read.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """

    def __init__(self, partition: Partition, reading: ReadOptions, batch_rows: int = 1024) -> None:
        self._partition = partition
        self._reading = reading
        self._batch_rows = batch_rows
        self.counts = ReadCounts()
        self._object = PlannedObject(
            partition.uri,
            partition.etag,
            reading.anonymous,
            encoding=reading.encoding,
            oddities=self.counts.oddities,
        )
        self._opened = ExitStack()
        self._file: Any = None
        self._batches: Iterable[pa.RecordBatch] = ()
        self._kept_schema = pa.schema([])

    @property
    def kept_schema(self) -> pa.Schema:
        """Names and Arrow types of the kept columns; known once entered."""
        return self._kept_schema

    def __enter__(self) -> Self:
        check_reading(self._reading, self._partition.format, self._partition.uri)
        self._file = self._opened.enter_context(self._object.open())
        try:
            with self._object.translated():
                self._prepare()
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with self._object.translated():
            yield from self._batches
            self._object.verify(self._file)

    def _prepare(self) -> None:
        partition, reading = self._partition, self._reading
        if partition.format == "parquet":
            opened = open_parquet(self._file, partition.size_bytes)
            whole = partition.kind == "whole"
            groups = range(opened.file.num_row_groups) if whole else range(partition.start, partition.stop)
            documents = ParquetDocuments(opened, partition.uri, groups, reading, self._batch_rows, self.counts.oddities)
            self._batches, self._kept_schema = documents, documents.kept_schema
        elif partition.format == "arrow":
            batches = None if partition.kind == "whole" else range(partition.start, partition.stop)
            arrow = open_arrow(self._file)
            rows = ArrowDocuments(arrow, partition.uri, batches, reading, self._batch_rows, self.counts.oddities)
            self._batches, self._kept_schema = rows, rows.kept_schema
        else:
            self._kept_schema = pa.schema([(name, pa.string()) for name in reading.kept_names])
            if partition.format == "warc":
                found = warc_documents(partition.uri, self._file, reading)
            else:
                found = LineDocuments(self._object, self._file, partition, reading, self.counts).documents()
            self._batches = to_batches(found, partition.uri, self._kept_schema, self._batch_rows)


class LineDocuments:
    """The documents of a range of JSON Lines, CSV or plain text, each with its position."""

    def __init__(
        self, planned: PlannedObject, file: Any, partition: Partition, reading: ReadOptions, counts: ReadCounts
    ) -> None:
        self._object = planned
        self._file = file
        self._reading = reading
        self._folders = folder_values(partition.uri)
        self._counts = counts
        self._format = partition.format
        self._size = partition.size_bytes
        self._is_range = partition.kind == "bytes"
        self._start = partition.start if self._is_range else 0
        self._stop = partition.stop if self._is_range else ENDLESS
        # JSON escapes a character of two UTF-8 bytes in six, and a record has other columns beside its text.
        self._limit = 3 * reading.max_document_bytes + 2**20

    def documents(self) -> Iterator[tuple[int, Document]]:
        """(position, document) in order."""
        if self._format == "jsonl":
            parse = json_parser(self._reading, self._folders, partial(note_missing, self._counts, self._object.uri))
            return self._parsed(self._lines(), parse, where=self._where)
        if self._format == "csv":
            return iter(self._csv())
        return self._parsed(self._paragraphs(), text_parser(self._reading, self._folders))

    def _csv(self) -> CsvDocuments:
        span = (self._start, self._stop) if self._is_range else None
        return CsvDocuments(self._object, self._file, self._size, span, self._reading, self._counts, self._limit)

    def _blocks(self, start: int) -> Iterator[bytes]:
        if self._is_range:
            return self._object.range(self._file, start, self._stop)
        return self._object.blocks(self._file)

    def _parsed(
        self, records: Iterable[Record], parse: Parser, where: Callable[[int, int], str] | None = None
    ) -> Iterator[tuple[int, Document]]:
        parse = recoded(parse, self._reading.encoding)
        for number, (offset, body) in enumerate(records, start=1):
            if body is None:
                yield offset, Document(None, None, "too_large", "the record is longer than any document may be")
            elif not body or body.isspace():
                self._counts.note_line("blank")
            else:
                document = parse(body)
                if where is not None and document.reason == "broken_json":
                    document = document._replace(detail=f"{where(number, offset)}: {document.detail}")
                yield offset, document

    def _where(self, number: int, offset: int) -> str:
        return f"byte {offset}" if self._start else f"line {number}"

    def _lines(self) -> Iterator[Record]:
        # From the byte before: where that is a line end, the range starts with a line of its own.
        before = max(0, self._start - 1)
        blocks = self._counts.counted(self._blocks(before), before, self._start, self._stop)
        found = lines(blocks, before, self._stop, self._limit)
        if not self._start:
            return without_bom(found)
        next(found, None)
        return found

    def _paragraphs(self) -> Iterator[Record]:
        limit = self._reading.max_document_bytes
        if not self._start:
            found = without_bom(lines(self._blocks(0), 0, ENDLESS, limit))
            return paragraphs(found, self._stop, limit)
        # A byte order mark is no text: a range that starts in it goes on behind the first line, as one right after it.
        before = self._start - 1 if self._start > len(BOM) or not _starts_with_bom(self._file) else len(BOM)
        blank = _only_space_before(self._file, before)
        found = lines(self._blocks(before), before, ENDLESS, limit)
        _, rest = next(found, (0, b""))
        inside = not blank or rest is None or not (not rest or rest.isspace())
        if inside:
            _skip_paragraph(found)
        return paragraphs(found, self._stop, limit)


def _starts_with_bom(file: Any) -> bool:
    file.seek(0)
    return bool(file.read(len(BOM)) == BOM)


def _only_space_before(file: Any, at: int) -> bool:
    """Whether nothing but white space stands between the last line end before `at`, or the object's start, and `at`."""
    while at > 0:
        size = min(at, _LOOK_BACK)
        file.seek(at - size)
        _, line_end, rest = file.read(size).rpartition(b"\n")
        at -= size
        if (rest.removeprefix(BOM) if at == 0 and not line_end else rest).strip():
            return False
        if line_end:
            return True
    return True


def _skip_paragraph(records: Iterator[Record]) -> None:
    for _, body in records:
        if body is not None and not body.strip():
            return
