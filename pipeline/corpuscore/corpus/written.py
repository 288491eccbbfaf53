"""Typed values as text: one canonical form for each type, for ids, for what is kept as text, and inside of JSON.

integers, booleans     as usual              decimals     all digits, 12.50
floating point         shortest that reads back the same; nan, inf
date, time, timestamp  ISO 8601 with a blank, all digits that the type has, and the offset of a time zone
duration, interval     ISO 8601, PT3.5S
UUID                   8-4-4-4-12            binary       text where it is UTF-8, else hexadecimal; of a fixed
                                                          length always hexadecimal
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.kinds import is_bytes, is_uuid, plain_type

#: What Arrow writes for dates beyond what it can write.
BEYOND = "<value out of range"

_UUID_BYTES = 16
_HYPHENS = (8, 12, 16, 20)  # digits of a UUID before them
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PER_SECOND = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # digits of a second behind the point


def plain(values: pa.Array) -> pa.Array:
    """The same values without dictionaries, runs and extensions."""
    while values.type != plain_type(values.type):
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        else:
            values = values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else pc.run_end_decode(values)
    return values


def as_bytes(values: pa.Array) -> pa.Array:
    """A column that is_text as large_string, whatever its bytes are."""
    found = plain(values)
    if pa.types.is_binary_view(found.type):
        found = found.cast(pa.large_binary())
    return pc.cast(found, options=pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True))


def written(values: pa.Array) -> pa.Array:
    """Values of any type but nested ones as large_string; strings are not checked, dates may be BEYOND."""
    if is_uuid(values.type):
        return _hexadecimal(values.storage, _UUID_BYTES, _HYPHENS)
    found = plain(values)
    kind = found.type
    if pa.types.is_fixed_size_binary(kind):
        return _hexadecimal(found, kind.byte_width)
    if is_bytes(kind):
        return _text_or_hexadecimal(found)
    if pa.types.is_decimal(kind):
        return _by_value(found, pc.cast(found, pa.large_string()), "E", lambda value: f"{value:f}")
    if pa.types.is_duration(kind):
        digits = _PER_SECOND[kind.unit]
        return _each(found.view(pa.int64()), lambda count: f"PT{Decimal(count).scaleb(-digits):f}S")
    if pa.types.is_interval(kind):
        return _each(found, lambda span: f"P{span.months}M{span.days}DT{Decimal(span.nanoseconds).scaleb(-9):f}S")
    return as_bytes(found)


def _each(values: pa.Array, write: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if value is None else write(value) for value in values.to_pylist()], pa.large_string())


def _by_value(values: pa.Array, text: pa.Array, sign: str, write: Callable[[Any], str]) -> pa.Array:
    """Arrow's text of the values, but for those with a sign in it, which are written one by one."""
    odd = pc.fill_null(pc.match_substring(text, sign), False)
    return pc.replace_with_mask(text, odd, _each(values.filter(odd), write)) if odd.true_count else text


def _text_or_hexadecimal(values: pa.Array) -> pa.Array:
    """Bytes that are UTF-8 without control characters as they are, others in hexadecimal digits."""
    held = values.cast(pa.large_binary()).to_pylist()
    return pa.array([None if value is None else _shown(value) for value in held], pa.large_string())


def _shown(value: bytes) -> str:
    try:
        return value.hex() if _CONTROLS.search(value) else value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _hexadecimal(values: pa.Array, width: int, hyphens: tuple[int, ...] = ()) -> pa.Array:
    """Bytes of one length in hexadecimal digits, with hyphens behind so many of them."""
    raw = np.frombuffer(values.buffers()[1], np.uint8) if width else np.zeros(0, np.uint8)
    raw_VB = raw[values.offset * width : (values.offset + len(values)) * width].reshape(len(values), width)
    digits_VD: npt.NDArray[np.uint8] = np.empty((len(values), 2 * width), np.uint8)
    digits_VD[:, 0::2], digits_VD[:, 1::2] = _DIGITS[raw_VB >> 4], _DIGITS[raw_VB & 15]
    text_VD = np.insert(digits_VD, hyphens, ord("-"), axis=1)
    offsets = np.arange(len(values) + 1, dtype=np.int64) * text_VD.shape[1]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text_VD))]
    made = pa.Array.from_buffers(pa.large_string(), len(values), buffers)
    return pc.if_else(values.is_valid(), made, None) if values.null_count else made
