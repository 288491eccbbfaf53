"""A line, a CSV record or a paragraph -> a document or a reject."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from corpuscore.corpus.encodings import UTF8, record_encoding
from corpuscore.corpus.jsonvalues import MISSING, TooDeep, Written, find, joined
from corpuscore.corpus.lenientjson import load_json
from corpuscore.options import ReadOptions
from corpuscore.records import Skipped

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
Missing = Callable[[str], None]
#: Columns that are named by an object's folders.
Folders = Mapping[str, str | None]
NO_FOLDERS: Folders = MappingProxyType({})


def unnoticed(path: str) -> None:
    """Of a missing column nobody is told."""


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


def json_parser(reading: ReadOptions, folders: Folders = NO_FOLDERS, missing: Missing = unnoticed) -> Parser:
    """Parse JSON lines, each an object.

    Args:
        reading: Which keys.
        folders: What lines without a key of their own have, see naming.folder_values.
        missing: Called with the path of a kept column that a line does not have.
    """
    ids, kept_columns = [Written(path) for path in reading.ids], [Written(column.path) for column in reading.kept]
    read_text, max_bytes = _json_text(reading), reading.max_document_bytes

    def written(column: Written, body: bytes, line: dict[str, Any], missing: Missing) -> str | None:
        value = find(line, column.path)
        if value is not MISSING:
            return column(body, line, value)
        if column.path not in folders:
            missing(column.path)
        return folders.get(column.path)

    def parse(body: bytes) -> Document:
        if len(body) > MOST_VALUES and (count := _values(body)) > MOST_VALUES:
            return Document(None, None, "too_large", f"the line has {count} values; the limit is {MOST_VALUES}")
        try:
            body, line = load_json(body)
        except orjson.JSONDecodeError as error:
            return _broken_json(body, error)
        if type(line) is not dict:
            return Document(None, None, "not_an_object", f"the line is a JSON {_json_type(line)}")
        try:
            parts = [written(column, body, line, unnoticed) for column in ids]
            kept = tuple([written(column, body, line, missing) for column in kept_columns])
        except TooDeep as error:
            return Document(None, None, "broken_json", str(error))
        if None in parts:
            return _null_id(ids[parts.index(None)].path, kept)
        document_id = "/".join([part or "" for part in parts]) if ids else None
        text = read_text(body, line)
        if isinstance(text, Skipped):
            return Document(document_id, None, text.reason, text.detail, kept)
        return _document(text, max_bytes, document_id, kept)

    return parse


def _json_text(reading: ReadOptions) -> Callable[[bytes, dict[str, Any]], str | Skipped]:
    """What gives the text of a line, or why there is none."""
    if not reading.text_template:
        column = reading.text_column
        return lambda _, line: _text_of(column, find(line, column))
    literals, columns = reading.template
    pieces = list(map(Written, columns))

    def fill(body: bytes, line: dict[str, Any]) -> str | Skipped:
        found: list[str | None] = []
        for piece in pieces:
            value = find(line, piece.path)
            text = None if value is MISSING or value is None else _text_of(piece.path, value)
            if isinstance(text, Skipped) and isinstance(value, bool | int | float):
                text = piece(body, line, value)
            if isinstance(text, Skipped):
                return text
            found.append(text)
        text = filled(literals, found)
        return Skipped("null", f"{', '.join(map(repr, columns))} are all null") if text is None else text

    return fill


def _text_of(column: str, value: Any) -> str | Skipped:
    """A string, or the lines of a list of strings."""
    if type(value) is str:
        return value
    if value is MISSING:
        return Skipped("missing_text", f"no key {column!r}")
    if value is None:
        return Skipped("null", f"{column!r} is null")
    text = joined(value) if type(value) is list else None
    return Skipped("missing_text", f"{column!r} is a JSON {_json_type(value)}") if text is None else text


def filled(literals: Sequence[str], values: Sequence[str | None]) -> str | None:
    """A template with its values, nulls as nothing; None where all are null."""
    if all(value is None for value in values):
        return None
    return literals[0] + "".join(
        [f"{value or ''}{literal}" for value, literal in zip(values, literals[1:], strict=True)]
    )


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


def csv_parser(
    reading: ReadOptions, header: list[str], split: Split, folders: Folders = NO_FOLDERS, missing: Missing = unnoticed
) -> Parser:
    """Parse CSV records below a header, which has the columns of texts and ids.

    Args:
        reading: Which columns.
        header: Their names.
        split: What makes fields of a record.
        folders, missing: As for json_parser.
    """
    width, max_bytes = len(header), reading.max_document_bytes
    at = {name: index for index, name in reversed(list(enumerate(header)))}
    literals, columns = reading.template
    texts_at, has_template = [at[column] for column in columns], bool(reading.text_template)
    ids, kept_columns = reading.ids, [column.path for column in reading.kept]
    absent = [path for path in kept_columns if path not in at and path not in folders]
    beside = [path for path in dict.fromkeys((*ids, *kept_columns)) if path not in at]
    constants = [folders.get(path) for path in beside]  # stand behind the fields of each row
    at.update({path: index for index, path in enumerate(beside, start=width)})
    ids_at, kept_at = [at[path] for path in ids], [at[path] for path in kept_columns]

    def parse(body: bytes) -> Document:
        try:
            fields: list[Any] = split(body.decode(), width)
        except UnicodeDecodeError as error:
            return _invalid_utf8(error)
        if len(fields) != width:
            found = len(fields) if len(fields) < width else f"more than {width}"
            return Document(None, None, "csv_columns", f"the row has {found} fields; the header has {width}")
        for column in absent:
            missing(column)
        fields += constants
        kept, parts = tuple([fields[index] for index in kept_at]), [fields[index] for index in ids_at]
        if constants and None in parts:
            return _null_id(ids[parts.index(None)], kept)
        text = filled(literals, [fields[index] for index in texts_at]) if has_template else fields[texts_at[0]]
        return _document(text or "", max_bytes, "/".join(parts) if ids else None, kept)

    return parse


def text_parser(reading: ReadOptions, folders: Folders = NO_FOLDERS) -> Parser:
    """Parse paragraphs: each is a text; folders alone say more of it."""
    parts, kept = [folders[path] for path in reading.ids], tuple(folders.get(column.path) for column in reading.kept)
    document_id = "/".join([part or "" for part in parts]) if parts else None

    def parse(body: bytes) -> Document:
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            return _invalid_utf8(error)
        if None in parts:
            return _null_id(reading.ids[parts.index(None)], kept)
        return _document(text, reading.max_document_bytes, document_id, kept)

    return parse
