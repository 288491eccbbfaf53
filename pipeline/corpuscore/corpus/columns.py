"""Columns of Arrow as texts, ids and kept values; what is wrong with one row becomes its reason.

`judged_text`, `judged_string` and `kept_column` take the reasons and details found so far, and return them with their
own: a row keeps the first reason that it was given. A value that is too large is dropped before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.corpus.nested import as_json
from corpuscore.corpus.sizes import entries_of, sizes_of
from corpuscore.corpus.written import BEYOND, as_bytes, plain, written
from corpuscore.kinds import is_list, is_text, plain_type
from corpuscore.naming import Template
from corpuscore.records import Skipped

Judged = tuple[pa.Array, pa.Array, pa.Array]

_DAY_US = 86_400_000_000
#: What all warehouses hold: from 4714-11-24 BC, where PostgreSQL begins, to where its dates end.
FIRST_DAY, LAST_DAY, LAST_MICROSECOND = -2_440_588, 2_145_042_905, 2**63 - 2


def may_be_text(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold texts: strings, bytes, lists of them, or nothing."""
    kind = plain_type(kind)
    inner = plain_type(kind.value_type) if is_list(kind) else kind
    return is_text(inner) or pa.types.is_null(inner)


def judged_text(values: pa.Array, column: str, limit: int, nothing: pa.Array) -> Judged:
    """Texts (large_string), and reasons and details of the rows that cannot be scored.

    Args:
        values: The text column, whose type may_be_text; of a list of strings, the text is its lines.
        column: How to name it.
        limit: Bytes of the longest text.
        nothing: No reasons yet.
    """
    values, reasons, details = plain(values), nothing, nothing
    reasons, details = mark(pc.is_null(values), "null", f"{column!r} is null", reasons, details)
    if is_list(values.type):
        text, reasons, details = _lines(values, limit, reasons, details)
    else:
        text, reasons, details = _bounded(as_bytes(values), "the text", limit, reasons, details)
    text, reasons, details = _valid(text, repr(column), reasons, details)
    return text, *_without_blanks(text, reasons, details)


def joined_text(
    pieces: Sequence[pa.Array], template: Template, limit: int, reasons: pa.Array, details: pa.Array
) -> Judged:
    """Texts of several columns, nulls as nothing.

    Args:
        pieces: As judged_piece returns them.
        template: What stands between them.
        limit: Bytes of the longest text.
        reasons, details: Of the rows so far.
    """
    nulls = reduce(pc.and_, map(pc.is_null, pieces))
    filled = [pc.fill_null(piece, "") for piece in pieces]
    sizes = sum(np.asarray(pc.binary_length(piece), np.int64) for piece in filled)
    large = pa.array(sizes + len("".join(template.literals).encode()) > limit)
    parts = [pa.scalar(template.literals[0], pa.large_string())]
    for piece, literal in zip(filled, template.literals[1:], strict=True):
        parts += [pc.if_else(large, "", piece), pa.scalar(literal, pa.large_string())]
    text = pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
    reasons, details = _mark_large(large, "the text", limit, reasons, details)
    named = ", ".join(map(repr, template.columns))
    reasons, details = mark(nulls, "null", f"{named} are all null", reasons, details)
    return text, *_without_blanks(text, reasons, details)


def judged_piece(values: pa.Array, column: str, limit: int, reasons: pa.Array, details: pa.Array) -> Judged:
    """A column that is part of a text: strings and their lists as they are, others as they are written."""
    values = plain(values)
    if not may_be_text(values.type):
        return judged_string(values, column, limit, reasons, details)
    if is_list(values.type):
        text, reasons, details = _lines(values, limit, reasons, details)
    else:
        text, reasons, details = _bounded(as_bytes(values), column, limit, reasons, details)
    return _valid(text, column, reasons, details)


def judged_string(values: pa.Array, column: str, limit: int, reasons: pa.Array, details: pa.Array) -> Judged:
    """Values of any type as they are written (large_string), null where they are too large or cannot be written.

    Args:
        values: The column.
        column: How to name it.
        limit: Bytes of the longest value.
        reasons, details: Of the rows so far.
    """
    if pa.types.is_nested(plain_type(values.type)):
        return _json(plain(values), column, limit, reasons, details)
    text = written(values)
    if pa.types.is_temporal(plain_type(values.type)):
        beyond = pc.starts_with(text, BEYOND)
        reasons, details = _mark_beyond(beyond, column, reasons, details)
        text = pc.if_else(pc.fill_null(beyond, False), None, text)
    text, reasons, details = _bounded(text, column, limit, reasons, details)
    return _valid(text, column, reasons, details)


def _json(values: pa.Array, column: str, limit: int, reasons: pa.Array, details: pa.Array) -> Judged:
    large = sizes_of(values) > limit
    reasons, details = _mark_large(pa.array(large), column, limit, reasons, details)
    made = list(as_json(values, large))
    found = [row if isinstance(row, Skipped) else None for row in made]
    for problem in {problem for problem in found if problem is not None}:
        where = pa.array([row == problem for row in found])
        reasons, details = mark(where, problem.reason, f"{column} {problem.detail}", reasons, details)
    text = pa.array([None if isinstance(row, Skipped) else row for row in made], pa.large_string())
    return _bounded(text, column, limit, reasons, details)


def _lines(values: pa.Array, limit: int, reasons: pa.Array, details: pa.Array) -> Judged:
    """Lists of strings as lines; nulls are left out."""
    entries, lengths = entries_of(values)
    row = np.repeat(np.arange(len(values)), lengths)
    sizes = np.bincount(row, sizes_of(entries), len(values))
    large = sizes > limit
    reasons, details = _mark_large(pa.array(large), "the text", limit, reasons, details)
    wanted = entries.is_valid().to_numpy(zero_copy_only=False) & ~large[row]
    counts = np.bincount(row[wanted], minlength=len(values))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
    lists = pa.LargeListArray.from_arrays(offsets, as_bytes(entries.filter(pa.array(wanted))))
    text = pc.binary_join(lists, pa.scalar("\n", pa.large_string()))
    return pc.if_else(pc.and_(values.is_valid(), pa.array(~large)), text, None), reasons, details


def kept_column(
    values: pa.Array, column: str, kind: pa.DataType, limit: int, reasons: pa.Array, details: pa.Array
) -> Judged:
    """Values of a kept column in its kept_type; arguments are those of judged_string. One beyond it is a reason."""
    if pa.types.is_string(kind):
        text, reasons, details = judged_string(values, column, limit, reasons, details)
        return text.cast(kind), reasons, details
    values = plain(values)
    if pa.types.is_binary(kind):
        return _bounded(values.cast(kind), column, limit, reasons, details)
    if not pa.types.is_temporal(kind):
        return values.cast(kind), reasons, details
    if pa.types.is_date(kind):
        found, unit, (first, last) = pc.cast(values, kind, safe=False), pa.int32(), (FIRST_DAY, LAST_DAY)
    elif pa.types.is_time(kind):
        found, unit, (first, last) = pc.cast(values, kind, safe=False), pa.int64(), (0, _DAY_US)
    else:
        found, unit, (first, last) = _microseconds(values, kind), pa.int64(), (FIRST_DAY * _DAY_US, LAST_MICROSECOND)
    counts = found.view(unit)
    beyond = pc.or_(pc.less(counts, pa.scalar(first, unit)), pc.greater(counts, pa.scalar(last, unit)))
    reasons, details = _mark_beyond(beyond, column, reasons, details)
    return pc.if_else(pc.fill_null(beyond, False), None, found), reasons, details


def _microseconds(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Timestamps in microseconds; those beyond 64 bits of them are as far as these go."""
    per_unit = {"s": 10**6, "ms": 10**3}.get(values.type.unit)
    if per_unit is None:
        return pc.cast(values, kind, safe=False)
    counts = values.view(pa.int64())
    most = (2**63 - 1) // per_unit
    far = pc.or_(pc.greater(counts, most), pc.less(counts, -most))
    return pc.if_else(far, 2**63 - 1, pc.multiply(pc.if_else(far, 0, counts), per_unit)).view(kind)


def cut_digits(values: pa.Array) -> int:
    """How many times and timestamps of a column have digits below a microsecond, which kept ones lose."""
    kind = plain_type(values.type)
    if not (pa.types.is_timestamp(kind) or pa.types.is_time64(kind)) or kind.unit != "ns":
        return 0
    counts = plain(values).drop_null().view(pa.int64()).to_numpy()
    return int(np.count_nonzero(counts % 1000))


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


def _mark_beyond(where: pa.Array, what: str, reasons: pa.Array, details: pa.Array) -> Any:
    return mark(where, "out_of_range", f"{what} is beyond the dates or times that can be kept", reasons, details)


def _without_blanks(text: pa.Array, reasons: pa.Array, details: pa.Array) -> Any:
    reasons, details = mark(pc.equal(pc.binary_length(text), 0), "empty", "the text is empty", reasons, details)
    return mark(pc.utf8_is_space(text), "whitespace", "the text is white space", reasons, details)


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
