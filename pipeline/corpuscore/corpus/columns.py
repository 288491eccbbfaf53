"""Columns of Arrow as texts, ids and kept values; what is wrong with one row becomes its reason.

`judged_text`, `judged_string` and `kept_column` take the reasons and details found so far, and return them with their
own: a row keeps the first reason that it was given. A value that is too large is dropped before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.job import ReadOptions

Judged = tuple[pa.Array, pa.Array, pa.Array]
Sizes = npt.NDArray[np.int64]

_NUMBER_BYTES = 8


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Without dictionary encoding and extensions."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold texts."""
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in strings) or is_bytes(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes of any length."""
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def kept_type(kind: pa.DataType) -> pa.DataType:
    """The type that a kept column has in a part: simple types as they are; what databases lack, as its nearest."""
    kind = plain_type(kind)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_fixed_size_binary(kind) or is_bytes(kind):
        return pa.binary()
    simple = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    return kind if simple and not pa.types.is_duration(kind) else pa.string()


def sizes_of(values: pa.Array) -> Sizes:
    """Bytes of each row, nested values and repeated ones included."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return sizes_of(values.storage)
    if isinstance(values, pa.DictionaryArray):
        chosen = np.append(sizes_of(values.dictionary), 0)
        places = values.indices.fill_null(len(chosen) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(chosen[places], np.int64)
    if is_text(kind):
        lengths: Sizes = np.asarray(pc.fill_null(pc.binary_length(values), 0), np.int64)
        return lengths
    if pa.types.is_struct(kind):
        return sum((sizes_of(values.field(at)) for at in range(kind.num_fields)), np.zeros(len(values), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _sizes_of_lists(values)
    if pa.types.is_fixed_size_list(kind):
        inner = sizes_of(values.values.slice(values.offset * kind.list_size, len(values) * kind.list_size))
        return inner.reshape(len(values), kind.list_size).sum(axis=1) if kind.list_size else inner
    width = kind.byte_width if pa.types.is_fixed_size_binary(kind) else _NUMBER_BYTES
    return np.full(len(values), width, np.int64)


def _sizes_of_lists(values: Any) -> Sizes:
    offsets = values.offsets.to_numpy().astype(np.int64)
    kept = slice(int(offsets[0]), int(offsets[-1]))
    if isinstance(values, pa.MapArray):
        inner = sizes_of(values.keys[kept]) + sizes_of(values.items[kept])
    else:
        inner = sizes_of(values.values[kept])
    until = np.concatenate([[0], np.cumsum(inner + _NUMBER_BYTES)])
    sizes: Sizes = np.diff(until[offsets - offsets[0]])
    return sizes


def judged_text(values: pa.Array, reading: ReadOptions, nothing: pa.Array) -> Judged:
    """Texts (large_string), and reasons and details of the rows that cannot be scored."""
    text, (reasons, details) = _as_string(values), (nothing, nothing)
    size = pc.binary_length(text)
    reasons, details = mark(pc.is_null(text), "null", f"{reading.text_column!r} is null", reasons, details)
    reasons, details = mark(pc.equal(size, 0), "empty", "the text is empty", reasons, details)
    text, reasons, details = _bounded(text, "the text", reading.max_document_bytes, reasons, details)
    text, reasons, details = _valid(text, repr(reading.text_column), reasons, details)
    return text, *mark(pc.utf8_is_space(text), "whitespace", "the text is white space", reasons, details)


def judged_string(values: pa.Array, column: str, limit: int, reasons: pa.Array, details: pa.Array) -> Judged:
    """Values of any type as strings (large_string), null where they are too large or no UTF-8.

    Args:
        values: The column.
        column: How to name it.
        limit: Bytes of the longest value.
        reasons, details: Of the rows so far.
    """
    values = _plain(values)
    if pa.types.is_nested(values.type):
        large = pa.array(sizes_of(values) > limit)
        reasons, details = _mark_large(large, column, limit, reasons, details)
        values = pa.array(_as_json(values, large.to_numpy(zero_copy_only=False)), pa.large_string())
    text, reasons, details = _bounded(_as_string(values), column, limit, reasons, details)
    return _valid(text, column, reasons, details)


def kept_column(
    values: pa.Array, column: str, kind: pa.DataType, limit: int, reasons: pa.Array, details: pa.Array
) -> Judged:
    """Values of a kept column in the type that it has in a part; arguments are those of judged_string."""
    if pa.types.is_string(kind):
        text, reasons, details = judged_string(values, column, limit, reasons, details)
        return text.cast(kind), reasons, details
    plain = _plain(values)
    if pa.types.is_binary(kind):
        return _bounded(plain.cast(kind), column, limit, reasons, details)
    return plain.cast(kind), reasons, details


def mark(where: pa.Array, reason: str, detail: str, reasons: pa.Array, details: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Give the marked rows a reason, unless they have one."""
    if not pc.any(where).as_py():
        return reasons, details
    first = pc.and_(pc.is_null(reasons), pc.fill_null(where, False))
    return pc.if_else(first, reason, reasons), pc.if_else(first, detail, details)


def _mark_large(where: pa.Array, what: str, limit: int, reasons: pa.Array, details: pa.Array) -> Any:
    return mark(where, "too_large", f"{what} is longer than the limit of {limit} bytes", reasons, details)


def _bounded(values: pa.Array, what: str, limit: int, reasons: pa.Array, details: pa.Array) -> Judged:
    """Null the strings that are longer than may be, and mark their rows."""
    large = pc.greater(pc.binary_length(values), limit)
    if not pc.any(large).as_py():
        return values, reasons, details
    kept = pc.if_else(pc.fill_null(large, False), None, values)
    return kept, *_mark_large(large, what, limit, reasons, details)


def _plain(values: pa.Array) -> pa.Array:
    while values.type != plain_type(values.type):
        values = values.storage if isinstance(values, pa.ExtensionArray) else values.dictionary_decode()
    return values


def _as_string(values: pa.Array) -> pa.Array:
    """As large_string, bytes unchecked."""
    plain = _plain(values)
    if pa.types.is_binary_view(plain.type) or pa.types.is_fixed_size_binary(plain.type):
        plain = plain.cast(pa.large_binary())
    options = pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True)
    return pc.cast(plain, options=options)


def _as_json(values: pa.Array, left_out: npt.NDArray[np.bool_]) -> Iterator[str | None]:
    """Each row as JSON, made one at a time."""
    for row, out in zip(values, left_out, strict=True):
        value = None if out else row.as_py()
        made = value is not None
        yield orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode() if made else None


def _valid(text: pa.Array, column: str, reasons: pa.Array, details: pa.Array) -> Judged:
    """Null the strings that are not UTF-8 (Arrow does not check what it reads from Parquet), and mark their rows."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = text.view(pa.large_binary()).to_pylist()
        bad = pa.array([value is not None and not _is_utf8(value) for value in raw])
        reasons, details = mark(bad, "invalid_utf8", f"{column} is not UTF-8", reasons, details)
        clean = [None if spoilt else value for value, spoilt in zip(raw, bad.to_pylist(), strict=True)]
        text = pa.array(clean, pa.large_binary()).cast(pa.large_string())
    return text, reasons, details


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
