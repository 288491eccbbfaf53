"""Nested values as JSON, a few rows at once: what lies in dictionaries is made once, however often it is repeated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.corpus.sizes import entries_of, sizes_of
from corpuscore.corpus.written import BEYOND, plain, written
from corpuscore.kinds import is_bytes, is_list, is_text, plain_type
from corpuscore.records import Skipped

_AT_ONCE_BYTES = 2**20


def as_json(values: pa.Array, left_out: Any) -> Iterator[str | Skipped | None]:
    """Each row of a nested column as JSON, or why it cannot be written.

    Lists are arrays, structs are objects, maps are arrays of pairs; numbers have all of their digits, and NaN and
    infinities, which JSON lacks, are strings; other values are text as `written` writes it, with a T in timestamps.

    Args:
        values: The column, without dictionaries at its top.
        left_out: Rows (bool) that are null in place of being written.
    """
    sizes = np.where(left_out, 0, sizes_of(values))
    start, held = 0, 0
    for at, size in enumerate(sizes.tolist()):
        if at > start and held + size > _AT_ONCE_BYTES:
            yield from _rows(values.slice(start, at - start), left_out[start:at])
            start, held = at, 0
        held += size
    yield from _rows(values.slice(start), left_out[start:])


def _rows(values: pa.Array, left_out: Any) -> Iterator[str | Skipped | None]:
    wanted = values.filter(pa.array(~left_out)) if left_out.any() else values
    try:
        made = iter([_dumped(row) for row in _python(wanted)])
        yield from [None if out else next(made) for out in left_out]
    except ValueError as error:  # of one of them
        if len(values) == 1:
            yield _problem(error)
            return
        for at in range(len(values)):
            yield from _rows(values.slice(at, 1), left_out[at : at + 1])


def _dumped(row: Any) -> str | Skipped | None:
    try:
        return None if row is None else orjson.dumps(row).decode()
    except orjson.JSONEncodeError as error:
        return Skipped("too_deep", f"cannot be written as JSON ({error})")


def _problem(error: ValueError) -> Skipped:
    if isinstance(error, UnicodeDecodeError):
        return Skipped("invalid_utf8", "is not UTF-8")
    return Skipped("out_of_range", str(error))


def _python(values: pa.Array) -> list[Any]:
    """A column as what orjson writes.

    Raises:
        ValueError: A string is not UTF-8, a date is beyond what can be written, or two fields have one name.
    """
    kind = plain_type(values.type)
    if isinstance(values, pa.DictionaryArray):
        used = values.indices.drop_null().unique()  # what other rows hold may not be writable
        held = dict(zip(used.to_pylist(), _python(values.dictionary.take(used)), strict=True))
        return [held.get(index) for index in values.indices.to_pylist()]
    if pa.types.is_struct(kind):
        return _objects(plain(values))
    if is_list(kind) or pa.types.is_map(kind):
        return _arrays(plain(values))
    simple = pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
    if simple or (is_text(kind) and not is_bytes(kind)):
        return list(plain(values).to_pylist())
    if pa.types.is_floating(kind):
        return _numbers(plain(values))
    text = written(values)
    if pa.types.is_timestamp(kind):
        text = pc.replace_substring(text, " ", "T", max_replacements=1)
    if pc.any(pc.starts_with(text, BEYOND)).as_py():
        raise ValueError("holds a date that is beyond what can be written")
    made: list[Any] = text.to_pylist()
    if pa.types.is_decimal(kind):
        return [None if value is None else orjson.Fragment(value) for value in made]
    return made


def _numbers(values: pa.Array) -> list[Any]:
    short = values.cast(pa.string()).cast(pa.float64()) if values.type != pa.float64() else values
    found: list[Any] = short.to_pylist()
    if all(value is None or math.isfinite(value) for value in found):
        return found
    return [value if value is None or math.isfinite(value) else _NAMES[str(value)] for value in found]


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _objects(values: pa.Array) -> list[Any]:
    names = [values.type.field(at).name for at in range(values.type.num_fields)]
    if len(set(names)) < len(names):
        raise ValueError("holds two fields of one name")
    rows = zip(*map(_python, values.flatten()), strict=True) if names else itertools.repeat((), len(values))
    valid = values.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]


def _arrays(values: pa.Array) -> list[Any]:
    entries, lengths = entries_of(values)
    held = iter(_python(entries))
    if pa.types.is_map(values.type):
        held = (list(pair.values()) for pair in held)
    valid = values.is_valid().to_pylist()
    return [
        list(itertools.islice(held, length)) if there else None
        for length, there in zip(lengths.tolist(), valid, strict=True)
    ]
