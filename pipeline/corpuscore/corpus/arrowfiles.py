"""Arrow IPC: files and streams, which is also what Feather (version 2) and saved Hugging Face data sets are.

A file is cut between record batches, as Parquet is between row groups; a stream says nothing of where they lie, and is
read whole. A record batch is decoded whole, without columns that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa

from corpuscore.corpus.batches import resized
from corpuscore.corpus.fields import Fields
from corpuscore.corpus.thrift import Malformed
from corpuscore.errors import CorpusError
from corpuscore.oddities import Oddities
from corpuscore.options import ReadOptions

_FILE, _OLD_FEATHER = b"ARROW1", b"FEA1"


class OpenedArrow(NamedTuple):
    """An object whose schema was read.

    Attributes:
        file: Its bytes.
        schema: Of its rows.
        batches: How many record batches a file has; None for a stream.
    """

    file: Any
    schema: pa.Schema
    batches: int | None


def open_arrow(file: Any) -> OpenedArrow:
    """The schema of an object; its record batches are read later.

    Raises:
        CorpusError: It is Feather of the first version.
        pa.ArrowException: Arrow cannot read it.
    """
    file.seek(0)
    magic = file.read(len(_FILE))
    if magic.startswith(_OLD_FEATHER):
        raise CorpusError(
            "A file is Feather of version 1",
            rule="Feather is read from version 2 on, which is Arrow IPC",
            next_step="write it again: pyarrow.feather.write_feather(pyarrow.feather.read_table(...), ...)",
        )
    reader = _reader(file, magic == _FILE, None)
    return OpenedArrow(file, reader.schema, reader.num_record_batches if magic == _FILE else None)


def _reader(file: Any, is_file: bool, fields: list[int] | None) -> Any:
    """Arrow's own reader, for these fields alone."""
    file.seek(0)
    options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    source = pa.PythonFile(file, mode="r")
    return pa.ipc.open_file(source, options=options) if is_file else pa.ipc.open_stream(source, options=options)


def rows_of_batches(opened: OpenedArrow, until: int | None = None) -> list[int]:
    """Rows of each record batch of a file up to one; of each, the field of the fewest bytes is read."""
    count = opened.batches or 0
    widths = [field.type.bit_width if pa.types.is_primitive(field.type) else 2**16 for field in opened.schema]
    reader = _reader(opened.file, True, [widths.index(min(widths))] if widths else None)
    with _bounded():
        return [reader.get_batch(index).num_rows for index in range(count if until is None else min(until, count))]


@contextmanager
def _bounded() -> Iterator[None]:
    """Say that an object announces more than memory holds; Arrow takes its word for how large a buffer will be."""
    try:
        yield
    except MemoryError:
        raise Malformed("a record batch that takes more memory than there is; write smaller ones") from None


class ArrowDocuments:
    """The documents of some record batches of one object.

    Args:
        opened: The object.
        uri: For ids of documents without id columns.
        batches: Which record batches of a file, in order; None: all, also of a stream.
        oddities: Takes what is odd.
    """

    def __init__(
        self,
        opened: OpenedArrow,
        uri: str,
        batches: range | None,
        reading: ReadOptions,
        batch_rows: int,
        oddities: Oddities,
    ) -> None:
        self._opened = opened
        self._batches = batches
        self._batch_rows = batch_rows
        self._oddities = oddities
        self._fields = Fields(uri, opened.schema, reading)
        self.kept_schema = self._fields.kept_schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return resized(self._read(), self._batch_rows)

    def _read(self) -> Iterator[pa.RecordBatch]:
        position = sum(rows_of_batches(self._opened, self._batches.start)) if self._batches else 0
        for batch in self._decoded():
            _check(batch)
            for start in range(0, batch.num_rows, self._batch_rows):
                piece = batch.slice(start, self._batch_rows)
                yield self._fields.documents(piece, position, self._oddities)
                position += piece.num_rows

    def _decoded(self) -> Iterator[pa.RecordBatch]:
        sources = (*self._fields.texts, *self._fields.ids, *self._fields.kept)
        wanted = sorted({self._opened.schema.get_field_index(item.keys[0]) for item in sources if item.keys})
        reader = _reader(self._opened.file, self._opened.batches is not None, wanted)
        indexes = self._batches or range(self._opened.batches or 0)
        found = iter(reader) if self._opened.batches is None else map(reader.get_batch, indexes)
        while True:
            with _bounded():
                batch = next(found, None)
            if batch is None:
                return
            yield batch


def _check(batch: pa.RecordBatch) -> None:
    """Look at what Arrow takes from a file as it is: offsets that lead elsewhere end the process that follows them.

    Strings that are no UTF-8 are left to whoever judges them, row by row.

    Raises:
        pa.ArrowInvalid: The file lies.
    """
    for column in batch.columns:
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)
