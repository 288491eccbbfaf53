"""Thrift's compact protocol, as far as Parquet's own headers need it to be read before Arrow reads them.

read_struct(buffer, at)     a small struct: fields by number, numbers as ints, structs as dicts, short binary as bytes;
                            the rest is skipped
find_list(buffer, at, n)    where the structs of a list begin, which is a field of a large struct
Size.of(buffer)             what reading a footer would make

Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_SHORT = 16  # bytes of a binary that is worth keeping: bounds of numbers
_DEEPEST = 32  # Parquet nests its structures and lists ten deep
_DEEPEST_LARGE = 4  # a list in a struct in a list in the footer: column chunks


class Malformed(ValueError):
    """The bytes are no compact Thrift; where they end too early, it is an IndexError."""


def read_struct(buffer: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields of a struct, and where it ends.

    Raises:
        IndexError: The buffer ends in the struct.
        Malformed: This is none.
    """
    found: dict[int, Any] = {}
    number = 0
    while head := buffer[at]:
        number, at = (number + (head >> 4), at + 1) if head >> 4 else _zigzag(buffer, at + 1)
        kind = head & 15
        if number in found:
            raise Malformed(f"field {number} is there twice")
        if kind in _INTEGERS:
            found[number], at = _zigzag(buffer, at)
        elif kind == _BINARY and buffer[at] <= _SHORT:
            found[number], at = buffer[at + 1 : at + 1 + buffer[at]], at + 1 + buffer[at]
        elif kind == _STRUCT and depth < _DEEPEST:
            found[number], at = read_struct(buffer, at, depth + 1)
        else:
            at = Size()._skip(buffer, at, kind, depth)
    return found, at + 1


def find_list(buffer: bytes, at: int, wanted: int) -> list[int]:
    """Where each struct of the list begins that is field `wanted` of the struct at an offset.

    Raises:
        IndexError: The buffer ends in the struct.
        Malformed: This is none, or has no such list, or two.
    """
    number, found = 0, None
    while head := buffer[at]:
        number, at = (number + (head >> 4), at + 1) if head >> 4 else _zigzag(buffer, at + 1)
        if number == wanted and found is not None:
            raise Malformed(f"field {number} is there twice")
        if number == wanted and head & 15 == _LIST:
            found, at = _starts(buffer, at)
        else:
            at = Size()._skip(buffer, at, head & 15, 0)
    if found is None:
        raise Malformed(f"there is no list in field {wanted}")
    return found


def _starts(buffer: bytes, at: int) -> tuple[list[int], int]:
    length, kind = buffer[at] >> 4, buffer[at] & 15
    length, at = _varint(buffer, at + 1) if length == 15 else (length, at + 1)
    if length > len(buffer) - at or (length and kind != _STRUCT):
        raise Malformed("a list that is none of structures")
    starts = []
    for _ in range(length):
        starts.append(at)
        at = Size()._skip(buffer, at, _STRUCT, 1)
    return starts, at


@dataclass(slots=True)
class Size:
    """How many structures a footer holds.

    Attributes:
        structs: All of them.
        large: Those that take about a kilobyte each in Arrow: columns of the schema and of row groups.
    """

    structs: int = 0
    large: int = 0

    @classmethod
    def of(cls, footer: bytes) -> Self:
        """Count without making any.

        Raises:
            IndexError: The footer ends early.
            Malformed: This is none.
        """
        size = cls()
        size._skip(footer, 0, _STRUCT, 0)
        return size

    def _skip(self, buffer: bytes, at: int, kind: int, depth: int) -> int:
        """Where a field's value ends."""
        if kind in _INTEGERS:
            while buffer[at] > 127:
                at += 1
            return at + 1
        if kind in (_TRUE, _FALSE):  # the type is the value
            return at
        if kind == _BINARY:
            size, at = _varint(buffer, at)
            return at + size
        if kind in (_BYTE, _DOUBLE):
            return at + (1 if kind == _BYTE else 8)
        if depth >= _DEEPEST:
            raise Malformed(f"structures are nested more than {_DEEPEST} deep")
        if kind == _STRUCT:
            return self._skip_struct(buffer, at, depth + 1)
        if kind in (_LIST, _SET):
            return self._skip_list(buffer, at, depth + 1)
        raise Malformed(f"a value has the unknown type {kind}")  # maps, too, which Parquet has none of

    def _skip_struct(self, buffer: bytes, at: int, depth: int) -> int:
        self.structs += 1
        while head := buffer[at]:
            at += 1
            if not head >> 4:
                _, at = _varint(buffer, at)
            at = self._skip(buffer, at, head & 15, depth)
        return at + 1

    def _skip_list(self, buffer: bytes, at: int, depth: int) -> int:
        length, kind = buffer[at] >> 4, buffer[at] & 15
        at += 1
        if length == 15:
            length, at = _varint(buffer, at)
        if length > len(buffer) - at:  # each element takes a byte at the least
            raise IndexError(length)
        if kind == _STRUCT and depth <= _DEEPEST_LARGE:
            self.large += length
        if kind in (_TRUE, _FALSE):
            return at + length
        for _ in range(length):
            at = self._skip(buffer, at, kind, depth)
        return at


def _varint(buffer: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := buffer[at]) > 127:
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if shift > 63:
            raise Malformed("a number has more than 64 bits")
    return value | byte << shift, at + 1


def _zigzag(buffer: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(buffer, at)
    return (value >> 1) ^ -(value & 1), at
