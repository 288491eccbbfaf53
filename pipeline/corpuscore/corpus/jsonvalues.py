"""Values of a JSON object by their path, as they are written in its line.

A parsed number does not say how it was written (12.50, 1e3, more digits than 64 bits hold), so what may have been
written otherwise is copied from the line; no number is ever written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from corpuscore.naming import places

#: What `find` returns where there is no such key.
MISSING: Any = object()
#: Of an object or array that is kept: as deep as most readers of JSON go.
MOST_LEVELS = 254

_LONG = 2**64
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},:]', re.DOTALL)
_SOLID = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^"\s]++', re.DOTALL)
_COLON, _NUMBER = re.compile(rb"\s*+:\s*+"), re.compile(rb"[^\s,}\]]++")

Keys = tuple[str, ...]


class TooDeep(ValueError):
    """A value is nested deeper than may be kept."""


def find(value: dict[str, Any], path: str) -> Any:
    """The value at a path, or MISSING; a key that is literally the path wins, then the longest first key."""
    if path in value:
        return value[path]
    keys = _keys(value, path)
    for key in keys or ():
        value = value[key]
    return MISSING if keys is None else value


def _keys(value: Any, path: str) -> Keys | None:
    """The keys down to a path."""
    if type(value) is not dict:
        return None
    if path in value:
        return (path,)
    for key, rest in places(path):
        if key in value and (inner := _keys(value[key], rest)) is not None:
            return (key, *inner)
    return None


class Written:
    """A path, and how its value is written in a line.

    Args:
        path: Of a key.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, body: bytes, line: dict[str, Any], value: Any) -> str | None:
        """A value that `find` found as the string that a column keeps.

        Strings are as they are, null is null, numbers are as written; objects and arrays are as written but for white
        space between their values.

        Args:
            body: The line.
            line: The same, parsed.
            value: The value at the path; not MISSING.

        Raises:
            TooDeep: It has more than MOST_LEVELS levels.
        """
        if value is None or type(value) is str:
            return value
        if type(value) is bool:
            return "true" if value else "false"
        if type(value) is int and (value or b"-0" not in body) and abs(value) < _LONG:
            return str(value)
        keys = (self.path,) if self.path in line else _keys(line, self.path) or ()
        start = _only_place(body, keys[-1])
        if start is None:
            start, stop = body.index(b"{"), len(body)
            for key in keys:
                start, stop = _place(body, start, key)
        else:
            stop = _end(body, start)
        return self._compact(body[start:stop].strip()).decode()

    def _compact(self, raw: bytes) -> bytes:
        if raw[:1] not in b"[{":
            return raw
        if raw.count(b"[") + raw.count(b"{") > MOST_LEVELS and _levels(raw) > MOST_LEVELS:
            raise TooDeep(f"{self.path!r} is nested more than {MOST_LEVELS} deep")
        return b"".join(_SOLID.findall(raw))


def _only_place(body: bytes, key: str) -> int | None:
    """Where the value of a key begins whose name stands in the line once, so that nothing else can be it; else None."""
    if not key.isalnum() or not key.isascii() or b"\\u" in body:
        return None
    name = b'"%s"' % key.encode()
    at = body.find(name)
    if at < 0 or body.find(name, at + 1) >= 0 or body[at - 1 : at] == b"\\":
        return None
    colon = _COLON.match(body, at + len(name))
    return colon.end() if colon else None


def _end(body: bytes, start: int) -> int:
    """Where a number, an object or an array ends."""
    if body[start : start + 1] not in b"[{":
        number = _NUMBER.match(body, start)
        return number.end() if number else start
    level = 0
    for token in _TOKEN.finditer(body, start):
        level += (token[0] in (b"[", b"{")) - (token[0] in (b"]", b"}"))
        if not level:
            return token.end()
    return len(body)


def _place(body: bytes, start: int, key: str) -> tuple[int, int]:
    """Where the value of a key lies in an object that starts at an offset; the last one counts, as in parsers."""
    level, name, begin, found, place = 0, b"", 0, False, (0, 0)
    for token in _TOKEN.finditer(body, start):
        mark = token[0]
        if level == 1 and mark in (b",", b"}"):
            if found:
                place = begin, token.start()
            found = False
        level += (mark in (b"{", b"[")) - (mark in (b"}", b"]"))
        if not level:
            break
        if level == 1 and mark == b":":
            begin, found = token.end(), _names(name, key)
        elif level == 1:
            name = mark
    return place


def _names(token: bytes, key: str) -> bool:
    if b"\\" not in token:
        return token[1:-1] == key.encode("utf-8", "surrogatepass")
    name: str = json.loads(token)
    return name == key


def _levels(raw: bytes) -> int:
    level = most = 0
    for token in _TOKEN.finditer(raw):
        level += (token[0] in (b"[", b"{")) - (token[0] in (b"]", b"}"))
        most = max(most, level)
    return most


def joined(values: Sequence[Any]) -> str | None:
    """The lines of a list of strings; nulls are left out. None where it holds anything else."""
    held = [value for value in values if value is not None]
    return "\n".join(held) if all(type(value) is str for value in held) else None
