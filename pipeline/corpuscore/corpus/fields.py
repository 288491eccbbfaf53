"""Rows of Arrow -> documents: which fields of a schema are texts, ids and kept columns, and what their values are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.corpus.batches import batch_schema
from corpuscore.corpus.columns import (
    Judged,
    cut_digits,
    joined_text,
    judged_piece,
    judged_string,
    judged_text,
    kept_column,
    mark,
    may_be_text,
)
from corpuscore.corpus.formats import check_columns
from corpuscore.corpus.written import plain
from corpuscore.errors import CorpusError
from corpuscore.kinds import kept_type, plain_type
from corpuscore.naming import folder_values, places
from corpuscore.oddities import Oddities
from corpuscore.options import ReadOptions


class Source(NamedTuple):
    """Where a column comes from in one object.

    Attributes:
        path: As it was asked for.
        keys: Names of the fields down to it; none where a folder names it, or where it is missing.
        kind: Its type; null where it is missing.
        constant: What the folder says.
    """

    path: str
    keys: tuple[str, ...]
    kind: pa.DataType
    constant: str | None = None

    def column(self, batch: pa.RecordBatch) -> pa.Array:
        """Its values in a batch, of which structs may have fewer fields than in the schema."""
        if not self.keys:
            return pa.array([self.constant] * batch.num_rows, self.kind)
        column = batch.column(self.keys[0])
        for key in self.keys[1:]:
            column = plain(column)
            column = pc.struct_field(column, column.type.get_field_index(key))
        return column


def located(schema: pa.Schema | pa.StructType, path: str) -> tuple[str, ...]:
    """The names of the fields down to a path, none where there is none; a field that is literally so called wins."""
    if schema.get_field_index(path) >= 0:
        return (path,)
    for name, rest in places(path):
        at = schema.get_field_index(name)
        kind = plain_type(schema.field(at).type) if at >= 0 else pa.null()
        if pa.types.is_struct(kind) and (inner := located(kind, rest)):
            return (name, *inner)
    return ()


class Fields:
    """What of an object's rows becomes documents.

    Args:
        uri: The object.
        schema: Of its rows.
        reading: Which columns.

    Attributes:
        texts, ids, kept: Where they come from.
        paths, kinds: Of the fields that are read, each once, names joined with dots.
        missing: Paths of kept columns that are null in all rows.
        kept_schema: Kept columns as a part has them.

    Raises:
        CorpusError: A column is missing, or the text column holds no text.
    """

    def __init__(self, uri: str, schema: pa.Schema, reading: ReadOptions) -> None:
        self._uri = uri
        self._schema = schema
        self._reading = reading
        self._folders = folder_values(uri)
        self._template, self._limit = reading.template, reading.max_document_bytes
        missing = check_columns(uri, reading, schema.names, lambda path: bool(located(schema, path)))
        self.missing = tuple(dict.fromkeys(missing))
        self.texts = [self._source(path) for path in self._template.columns]
        self.ids = [self._source(path) for path in reading.ids]
        self.kept = [self._source(column.path) for column in reading.kept]
        read = {".".join(item.keys): item.kind for item in (*self.texts, *self.ids, *self.kept) if item.keys}
        self.paths, self.kinds = list(read), list(read.values())
        kinds = [kept_type(item.kind) for item in self.kept]
        self.kept_schema = pa.schema(list(zip(reading.kept_names, kinds, strict=True)))
        for item in self.texts:
            self._check_text(item)

    def _source(self, path: str) -> Source:
        keys = located(self._schema, path)
        if not keys:
            kind = pa.string() if path in self._folders else pa.null()
            return Source(path, (), kind, self._folders.get(path))
        kind = self._schema.field(keys[0]).type
        for key in keys[1:]:
            kind = plain_type(kind).field(key).type
        return Source(path, keys, kind)

    def _check_text(self, item: Source) -> None:
        simple = not pa.types.is_nested(plain_type(item.kind)) and self._reading.text_template
        if not (simple or may_be_text(item.kind)):
            raise CorpusError(
                f"{self._uri}: the text column {item.path!r} has the type {str(plain_type(item.kind))[:200]}",
                rule="a text column holds strings, UTF-8 as binary, or lists of these",
                next_step="give --text-column a column of strings",
            )

    def documents(self, batch: pa.RecordBatch, position: int, oddities: Oddities) -> pa.RecordBatch:
        """The documents of some rows.

        Args:
            batch: The rows; of the schema, the fields at `paths` are enough.
            position: Of the first row in the object.
            oddities: Takes what is odd.
        """
        positions = pa.array(np.arange(position, position + batch.num_rows, dtype=np.int64))
        text, reasons, details = self._text(batch)
        ids, reasons, details = self._ids(batch, positions, reasons, details)
        kept = []
        for item, kind in zip(self.kept, self.kept_schema.types, strict=True):
            values = item.column(batch)
            if cut := cut_digits(values):
                oddities.note("cut_nanoseconds", f"{item.path!r} of {self._uri}", cut)
            made, reasons, details = kept_column(
                values, f"the column {item.path!r}", kind, self._limit, reasons, details
            )
            kept.append(made)
        for path in self.missing:
            oddities.note("missing_column", f"{path!r} of {self._uri}", batch.num_rows)
        text = pc.if_else(pc.is_null(reasons), text, None) if reasons.null_count < len(reasons) else text
        return pa.RecordBatch.from_arrays(
            [ids, positions, text, reasons, details, *kept], schema=batch_schema(self.kept_schema)
        )

    def _text(self, batch: pa.RecordBatch) -> Judged:
        nothing = pa.nulls(batch.num_rows, pa.string())
        if not self._reading.text_template:
            (item,) = self.texts
            return judged_text(item.column(batch), item.path, self._limit, nothing)
        pieces, reasons, details = [], nothing, nothing
        for item in self.texts:
            column = f"the column {item.path!r}"
            piece, reasons, details = judged_piece(item.column(batch), column, self._limit, reasons, details)
            pieces.append(piece)
        return joined_text(pieces, self._template, self._limit, reasons, details)

    def _ids(self, batch: pa.RecordBatch, positions: pa.Array, reasons: pa.Array, details: pa.Array) -> Judged:
        made = pc.binary_join_element_wise(self._uri, pc.cast(positions, pa.string()), "#")
        if not self.ids:
            return made, reasons, details
        parts: list[Any] = []
        for item in self.ids:
            named = f"the id column {item.path!r}"
            part, reasons, details = judged_string(item.column(batch), named, self._limit, reasons, details)
            reasons, details = mark(pc.is_null(part), "null_id", f"{named} is null", reasons, details)
            parts.append(part)
        joined = pc.binary_join_element_wise(*parts, pa.scalar("/", parts[0].type)) if len(parts) > 1 else parts[0]
        return pc.coalesce(joined.cast(pa.string()), made), reasons, details
