"""A line, a CSV record or a paragraph -> a document or a reject."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from corpuscore.corpus.encodings import UTF8, record_encoding
from corpuscore.corpus.formats import chosen_columns
from corpuscore.corpus.lenientjson import load_json
from corpuscore.job import ReadOptions

#: No fewer digits go beyond 64 bits: orjson makes floats of such integers, which would give many of them one id.
_ROUNDED = re.compile(rb"\d{19}|NaN|Infinity|[eE]\+?\d{3}")
#: A value of JSON takes up to 200 bytes once it is parsed, whatever it took in the line.
MOST_VALUES = 1_000_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class Document(NamedTuple):
    """One document, or one reject.

    Attributes:
        document_id: From the id columns; None: made from the object and the position.
        text: None in a reject.
        reason: Why it is a reject, in a word; None in a document.
        detail: The same in a sentence, where there is more to say.
        kept: Values of the kept columns.
    """

    document_id: str | None
    text: str | None
    reason: str | None = None
    detail: str | None = None
    kept: tuple[str | None, ...] = ()


Parser = Callable[[bytes], Document]
#: A CSV record -> its fields, at the most one more than so many.
Split = Callable[[str, int], list[str]]


def judge(text: str, max_bytes: int) -> tuple[str, str] | None:
    """Reason and detail of a text that cannot be scored; None for one that can."""
    if not text:
        return "empty", "the text is empty"
    if len(text) * 4 > max_bytes and (size := len(text.encode())) > max_bytes:
        return "too_large", f"the text has {size} bytes; the limit is {max_bytes}"
    if text.isspace():
        return "whitespace", f"the text is {len(text)} characters of white space"
    return None


def _document(text: str, max_bytes: int, document_id: str | None, kept: tuple[str | None, ...]) -> Document:
    if len(text) * 4 <= max_bytes and not text.isspace() and text:  # nearly always
        return Document(document_id, text, None, None, kept)
    verdict = judge(text, max_bytes)
    return (
        Document(document_id, text, None, None, kept)
        if verdict is None
        else Document(document_id, None, *verdict, kept)
    )


def _invalid_utf8(error: UnicodeDecodeError) -> Document:
    return Document(None, None, "invalid_utf8", f"byte {error.start} of the record: {error.reason}")


def _broken_json(body: bytes, error: orjson.JSONDecodeError) -> Document:
    try:
        body.decode()
    except UnicodeDecodeError as cause:
        return _invalid_utf8(cause)
    return Document(None, None, "broken_json", str(error))


def _exact(body: bytes, value: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """A line's values, with all numbers as they are written where one of these columns may hold a rounded one."""
    found = {type(value.get(column)) for column in columns}
    if found.isdisjoint((float, dict, list)) or not _ROUNDED.search(body):
        return value
    as_written = orjson.Fragment
    exact: dict[str, Any] = json.loads(body, parse_int=as_written, parse_float=as_written, parse_constant=as_written)
    return exact


def as_text(value: Any) -> str | None:
    """A JSON value as the string that a column keeps: strings as they are, null as null, the rest as JSON."""
    return value if value is None or type(value) is str else orjson.dumps(value).decode()


def json_parser(reading: ReadOptions) -> Parser:
    """Parse JSON lines, each an object."""
    text_column, max_bytes = reading.text_column, reading.max_document_bytes
    id_columns, keep_columns = reading.id_columns, reading.keep_columns
    columns = (*id_columns, *keep_columns)

    def parse(body: bytes) -> Document:
        if len(body) > MOST_VALUES and (count := _values(body)) > MOST_VALUES:
            return Document(None, None, "too_large", f"the line has {count} values; the limit is {MOST_VALUES}")
        try:
            body, value = load_json(body)
        except orjson.JSONDecodeError as error:
            return _broken_json(body, error)
        if type(value) is not dict:
            return Document(None, None, "not_an_object", f"the line is a JSON {_json_type(value)}")
        try:
            exact = _exact(body, value, columns)
            ids = [as_text(exact.get(column)) for column in id_columns]
            kept = tuple([as_text(exact.get(column)) for column in keep_columns])
        except (RecursionError, orjson.JSONEncodeError):
            return Document(None, None, "broken_json", "an id or kept column is nested too deeply")
        document_id = None
        if ids:
            document_id = "/".join([part for part in ids if part is not None])
            if None in ids:
                return _null_id(id_columns[ids.index(None)], kept)
        text = value.get(text_column)
        if type(text) is str:
            return _document(text, max_bytes, document_id, kept)
        if text_column in value and text is None:
            return Document(document_id, None, "null", f"{text_column!r} is null", kept)
        found = f"{text_column!r} is a JSON {_json_type(text)}" if text_column in value else f"no key {text_column!r}"
        return Document(document_id, None, "missing_text", found, kept)

    return parse


def _values(body: bytes) -> int:
    """About how many values a line of JSON holds; those that only look so, inside of strings, are left out."""
    if _marks(body) > MOST_VALUES:
        return _marks(_STRING.sub(b"", body))
    return 0


def _marks(body: bytes) -> int:
    return sum(map(body.count, (b",", b"[", b"{")))


def _null_id(column: str, kept: tuple[str | None, ...]) -> Document:
    return Document(None, None, "null_id", f"the id column {column!r} is null", kept)


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def recoded(parse: Parser, encoding: str) -> Parser:
    """What parses records of an encoding: the parser itself, where they are UTF-8 or have become so."""
    stored = record_encoding(encoding)
    if stored == UTF8:
        return parse

    def recode(body: bytes) -> Document:
        try:
            text = body.decode(stored)
        except UnicodeDecodeError as error:
            return Document(None, None, "invalid_encoding", f"byte {error.start} of the record is no {stored}")
        return parse(text.encode())

    return recode


def csv_parser(reading: ReadOptions, header: list[str], split: Split) -> Parser:
    """Parse CSV records below a header; the columns must be in it."""
    width, max_bytes = len(header), reading.max_document_bytes
    at = {column: header.index(column) for column in chosen_columns(reading)}
    text_at = at[reading.text_column]
    ids_at = [at[column] for column in reading.id_columns]
    kept_at = [at[column] for column in reading.keep_columns]

    def parse(body: bytes) -> Document:
        try:
            fields = split(body.decode(), width)
        except UnicodeDecodeError as error:
            return _invalid_utf8(error)
        if len(fields) != width:
            found = len(fields) if len(fields) < width else f"more than {width}"
            return Document(None, None, "csv_columns", f"the row has {found} fields; the header has {width}")
        kept = tuple([fields[index] for index in kept_at])
        document_id = "/".join([fields[index] for index in ids_at]) if ids_at else None
        return _document(fields[text_at], max_bytes, document_id, kept)

    return parse


def text_parser(reading: ReadOptions) -> Parser:
    """Parse paragraphs: each is a text."""

    def parse(body: bytes) -> Document:
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            return _invalid_utf8(error)
        return _document(text, reading.max_document_bytes, None, ())

    return parse
