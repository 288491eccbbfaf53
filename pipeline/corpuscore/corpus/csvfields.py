"""A CSV record -> its fields, as Python's csv module has them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from corpuscore.corpus.dialect import Dialect

#: The fields of a record (where there are more than were asked for, one more is enough), and whether text stands behind
#: the closing quote of one.
Fields = tuple[list[str], bool]
Split = Callable[[str, int], Fields]


@lru_cache(maxsize=32)
def splitter(dialect: Dialect) -> Split:
    """What splits records of a dialect: (record without its line end, most fields that are wanted; -1: all) -> Fields.

    What follows a closing quote belongs to the field. An escape makes a quote, a delimiter, a line end or an escape a
    character of the field; before others it is one itself, as it is in paths that Spark leaves outside of quotes.
    """
    if dialect.escape:
        return _escaped(dialect)
    return _quoted(dialect)


def _quoted(dialect: Dialect) -> Split:
    delimiter, quote = dialect.delimiter, dialect.quote
    twice = quote * 2
    other, open_ = re.escape(delimiter), re.escape(quote)
    if not quote:
        return lambda record, most: (record.split(delimiter, most), False)
    field = re.compile(
        f"{open_}([^{open_}]*+(?:{open_}{open_}[^{open_}]*+)*+)(?:{open_}([^{other}]*+)|\\Z)|([^{other}]*+)"
    )

    def split(record: str, most: int) -> Fields:
        if quote not in record:
            return record.split(delimiter, most), False
        fields, at, is_odd = [], 0, False
        while True:
            match = field.match(record, at)
            assert match is not None  # noqa: S101 (the last alternative matches the empty string)
            quoted, rest, plain = match.groups()
            if quoted is None:
                fields.append(plain)
            else:
                is_odd = is_odd or bool(rest)
                fields.append(quoted.replace(twice, quote) + (rest or ""))
            at = match.end() + 1
            if at > len(record) or len(fields) == most + 1 > 0:
                return fields, is_odd

    return split


def _escaped(dialect: Dialect) -> Split:
    delimiter, quote, escape = (re.escape(part) for part in (dialect.delimiter, dialect.quote, dialect.escape))
    pair = f"{escape}(?:.|\\Z)"
    inside = f"[^{quote}{escape}]*+(?:(?:{quote}{quote}|{pair})[^{quote}{escape}]*+)*+"
    outside = f"[^{delimiter}{escape}]*+(?:{pair}[^{delimiter}{escape}]*+)*+"
    behind = f"(?:[^{delimiter}]{outside})?+"  # right behind a closing quote, an escape is none
    in_quotes = f"{quote}({inside})(?:{quote}({behind})|\\Z)" if quote else "(?!)()()"
    field = re.compile(f"{in_quotes}|({outside})", re.DOTALL)
    special = f"[{delimiter}{quote}{escape}\r\n]"
    pairs = re.compile(f"{escape}({special})")
    quoted_pairs = re.compile(f"{escape}({special})|{quote}({quote})" if quote else "(?!)()()")

    def plain_of(match: re.Match[str]) -> str:
        return match[1] or match[2]

    def unescaped_behind(rest: str) -> str:
        return rest[:1] + pairs.sub(r"\1", rest[1:])

    def split(record: str, most: int) -> Fields:
        if dialect.escape not in record and (not quote or dialect.quote not in record):
            return record.split(dialect.delimiter, most), False
        fields, at, is_odd = [], 0, False
        while True:
            match = field.match(record, at)
            assert match is not None  # noqa: S101 (the last alternative matches the empty string)
            quoted, rest, plain = match.groups()
            if quoted is None:
                fields.append(pairs.sub(r"\1", plain))
            else:
                is_odd = is_odd or bool(rest)
                fields.append(quoted_pairs.sub(plain_of, quoted) + unescaped_behind(rest or ""))
            at = match.end() + 1
            if at > len(record) or len(fields) == most + 1 > 0:
                return fields, is_odd

    return split
