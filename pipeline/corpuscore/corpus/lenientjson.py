r"""JSON as it is in the wild: NaN and infinities, halves of surrogate pairs, numbers beyond any type.

orjson reads what RFC 8259 allows, and fast. What it refuses is looked at again: `\ud800` without its other half becomes
U+FFFD (also in ids and kept columns), as Unicode has it; NaN, Infinity and -Infinity, which Python and others write,
and numbers that no 64 bits hold are numbers like others. Of keys that a line has twice, the last one counts.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_PAIR = rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = rb"u[dD][89a-fA-F][0-9a-fA-F]{2}"
#: Escapes of a string, in their order, so that `\\ud800` is taken for the backslash that it is.
_ESCAPE = re.compile(rb"\\(?:%b|(%b)|.)" % (_PAIR, _HALF), re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_UNUSUAL = re.compile(rb"NaN|Infinity|(?<![0-9])[0-9]{308}|[eE]\+?[0-9]{3}")
_ENDLESS = re.compile(rb"(?<![0-9])[0-9]{10000}")
_LONG_DIGITS = 20  # more go beyond 64 bits


def load_json(body: bytes) -> tuple[bytes, Any]:
    """A line of JSON that is UTF-8: its bytes, as they can be copied from, and its value.

    Integers beyond 64 bits, and numbers beyond floats, come as floats; the bytes say what they were.

    Raises:
        orjson.JSONDecodeError: It is no JSON.
    """
    try:
        return body, orjson.loads(body)
    except orjson.JSONDecodeError:
        whole = _ESCAPE.sub(_without_half, body) if _SURROGATE.search(body) else body
        if not _UNUSUAL.search(whole):
            if whole is body:
                raise
            return whole, orjson.loads(whole)
        if _ENDLESS.search(whole):
            raise orjson.JSONDecodeError("a number has more than 10000 digits", "", 0) from None
        return whole, _loads(whole)


def _without_half(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_int=_integer)
    except json.JSONDecodeError as error:
        raise orjson.JSONDecodeError(error.msg, error.doc, error.pos) from None
    except UnicodeDecodeError:
        raise orjson.JSONDecodeError("it is not UTF-8", "", 0) from None
    except RecursionError:
        raise orjson.JSONDecodeError("it is nested too deeply", "", 0) from None


def _integer(digits: str) -> int | float:
    if len(digits) > _LONG_DIGITS:
        return float(digits)
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)
