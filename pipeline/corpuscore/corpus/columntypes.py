"""What types an object's columns have, by its footer or its beginning, for those who look before they plan."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from corpuscore.corpus.arrowfiles import open_arrow
from corpuscore.corpus.counting import ReadCounts
from corpuscore.corpus.csvdocuments import read_head
from corpuscore.corpus.encodings import record_encoding
from corpuscore.corpus.listing import CorpusObject
from corpuscore.corpus.opening import PlannedObject
from corpuscore.corpus.parquet import open_parquet
from corpuscore.corpus.records import BOM, ENDLESS, lines
from corpuscore.options import ReadOptions

_LINES = 200
_BYTES = 2**18
_MOST_COLUMNS = 200


def column_types(planned: PlannedObject, item: CorpusObject, reading: ReadOptions) -> dict[str, str]:
    """Type by name of the columns of an object; empty where its format has none.

    Args:
        planned: The object.
        item: The same, as it was listed.
        reading: Its dialect and encoding.

    Raises:
        CorpusError: The object cannot be read.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    with planned.open() as file, planned.translated():
        if item.format == "parquet":
            schema = open_parquet(file, item.size_bytes).file.schema_arrow
            return {field.name: str(field.type)[:60] for field in islice(schema, _MOST_COLUMNS)}
        if item.format == "arrow":
            schema = open_arrow(file).schema
            return {field.name: str(field.type)[:60] for field in islice(schema, _MOST_COLUMNS)}
        if item.format == "csv":
            head = read_head(planned, planned.blocks(file, _BYTES), reading, _BYTES, ReadCounts())
            return dict.fromkeys((head.names if head else [])[:_MOST_COLUMNS], "string")
        if item.format == "jsonl":
            return _json_types(planned, file, record_encoding(reading.encoding))
    return {}


def _json_types(planned: PlannedObject, file: Any, encoding: str) -> dict[str, str]:
    """Types of the keys of the first lines; null only where nothing else is."""
    found: dict[str, list[str]] = {}
    for _, body in islice(lines(planned.blocks(file, _BYTES), 0, ENDLESS, _BYTES), _LINES):
        try:
            value = json.loads((body or b"").removeprefix(BOM).decode(encoding))
        except (ValueError, RecursionError):
            continue
        for name, entry in islice(value.items(), _MOST_COLUMNS) if isinstance(value, dict) else ():
            kinds = found.setdefault(name, [])
            if (kind := _json_type(entry)) not in kinds:
                kinds.append(kind)
    return {name: " or ".join(sorted({*kinds} - {"null"})) or "null" for name, kinds in found.items()}


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
