"""Types of kept columns: each Arrow type's nearest of a few that every warehouse has, and which one holds two of them.

A type is kept as one that holds all of its values as they are, but for the nanoseconds of times and timestamps, which
no warehouse here stores; where there is none, values are kept as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

_MOST_DIGITS = 38  # of a decimal, in all warehouses
_NEAREST = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
}
_AS_THEY_ARE = (pa.null(), pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.date32())
#: Decimal digits of integers, in the order of their widths.
_DIGITS = {pa.int16(): 5, pa.int32(): 10, pa.int64(): 19}
_FLOATS = (pa.float32(), pa.float64())
_ZONED, _UNZONED, _TIME = pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.time64("us")
_DECIMAL = re.compile(r"decimal128\((\d+), (\d+)\)")
_NAMED = {str(kind): kind for kind in (*_AS_THEY_ARE, _ZONED, _UNZONED, _TIME, pa.binary(), pa.string())}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Without dictionary or run-end encoding and extensions."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    encoded = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return plain_type(kind.value_type) if encoded else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold texts."""
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in strings) or is_bytes(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes of any length."""
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists; a map is none."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in (*lists, pa.types.is_list_view, pa.types.is_large_list_view))


def is_uuid(kind: pa.DataType) -> bool:
    """Whether values are UUIDs, by Parquet's or Arrow's own word."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def kept_type(kind: pa.DataType) -> pa.DataType:
    """The type that a kept column has in a part; null where there are no values at all."""
    if is_uuid(kind):
        return pa.string()
    kind = plain_type(kind)
    if kind in _NEAREST:
        return _NEAREST[kind]
    if kind in _AS_THEY_ARE:
        return kind
    if pa.types.is_decimal(kind) and 0 <= kind.scale <= _MOST_DIGITS >= kind.precision:
        return pa.decimal128(max(kind.precision, kind.scale), kind.scale)
    if pa.types.is_timestamp(kind):
        return _ZONED if kind.tz else _UNZONED
    if pa.types.is_time(kind):
        return _TIME
    return pa.binary() if is_bytes(kind) or pa.types.is_fixed_size_binary(kind) else pa.string()


def widened(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The kept type that holds the values of both as they are, as Arrow promotes types; None where there is none.

    Of int64 and floating point it is float64, which holds integers up to 2**53.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    both = {one, other}
    if both <= _DIGITS.keys():
        return max(both, key=lambda kind: _DIGITS[kind])
    if both <= {*_FLOATS, *_DIGITS}:
        return pa.float32() if both == {pa.int16(), pa.float32()} else pa.float64()
    if both == {pa.string(), pa.binary()}:
        return pa.binary()
    if all(kind in _DIGITS or pa.types.is_decimal(kind) for kind in both):
        return _wider_decimal(one, other)
    return None


def _wider_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    sizes = [
        (kind.precision - kind.scale, kind.scale) if pa.types.is_decimal(kind) else (_DIGITS[kind], 0)
        for kind in (one, other)
    ]
    whole, scale = (max(digits) for digits in zip(*sizes, strict=True))
    return pa.decimal128(whole + scale, scale) if whole + scale <= _MOST_DIGITS else None


def table_schema(kinds: Mapping[str, pa.DataType]) -> pa.Schema:
    """The kept columns of a table: one that is null everywhere holds text, should there ever be any."""
    return pa.schema([(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in kinds.items()])


def type_named(name: str) -> pa.DataType:
    """The kept type that str() names so.

    Raises:
        ValueError: There is none.
    """
    if found := _DECIMAL.fullmatch(name):
        return pa.decimal128(*map(int, found.groups()))
    if name not in _NAMED:
        raise ValueError(f"{name!r} is no type of a kept column")
    return _NAMED[name]
