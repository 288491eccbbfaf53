"""What the objects' columns are, and how the beginnings of text objects are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corpuscore.corpus import CorpusObject, spread
from corpuscore.corpus.columntypes import column_types
from corpuscore.corpus.dialect import said_dialect
from corpuscore.corpus.encodings import UTF8
from corpuscore.corpus.formats import chosen_columns
from corpuscore.corpus.opening import PlannedObject
from corpuscore.errors import CorpusError
from corpuscore.options import AUTO, ReadOptions
from corpuscore.records import Finding
from corpuscore.survey.samples import MOST

_BYTES = 2**16  # of an object's beginning
_MOST_SHOWN = 30


def look_at_columns(objects: Sequence[CorpusObject], reading: ReadOptions) -> Iterator[Finding | tuple[str, Any]]:
    """Facts and findings about some of the objects, evenly over the corpus; also where they cannot be read as asked."""
    types: dict[str, dict[str, str]] = {}
    for item in spread([item for item in objects if item.size_bytes], MOST):
        planned = PlannedObject(item.uri, item.etag, reading.anonymous, encoding=reading.encoding)
        try:
            if item.format in ("jsonl", "csv", "text"):
                yield from _beginning(planned, item.format, reading)
            types[item.uri] = column_types(planned, item, reading)
        except CorpusError as error:
            yield Finding("unreadable", "error", str(error), {"object": item.uri})
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for uri, columns in types.items():
        for name, kind in columns.items():
            found[name][kind].append(uri)
    if found:
        yield "columns", {name: " or ".join(kinds) for name, kinds in list(found.items())[:_MOST_SHOWN]}
    for name in chosen_columns(reading):
        yield from _differences(name, found.get(name, {}), list(types))


def _differences(name: str, kinds: dict[str, list[str]], uris: Iterable[str]) -> Iterator[Finding]:
    if len(kinds) > 1:
        shown = "; ".join(f"{kind} in {where[0]} and {len(where) - 1} more" for kind, where in kinds.items())
        message = f"The column {name!r} has several types: {shown}"
        yield Finding("column_types", "warning", message, {"column": name, "types": list(kinds)})
    without = [uri for uri in uris if not any(uri in where for where in kinds.values())]
    if without and kinds:
        message = f"The column {name!r} is missing in {len(without)} objects, such as {without[0]}"
        yield Finding("missing_column", "warning", message, {"column": name, "objects": len(without)})


def _beginning(planned: PlannedObject, kind: str, reading: ReadOptions) -> Iterator[Finding]:
    """What is odd about the first bytes of a text object."""
    with planned.open() as file, planned.translated():
        body = next(iter(planned.blocks(file, _BYTES)), b"")[:_BYTES]
    if body[:200].count(0) > len(body[:200]) // 4:
        yield _odd("encoding", planned.uri, "looks like UTF-16", "name its encoding, or convert it to UTF-8")
    elif reading.encoding == UTF8 and (at := _not_utf8(body)) is not None:
        said = f"is not UTF-8 from byte {at} on; it may be Latin-1 or Windows-1252"
        yield _odd("encoding", planned.uri, said, "name its encoding, or convert it to UTF-8")
    if kind == "csv":
        if reading.csv_escape == AUTO and body.count(b'\\"') > body.count(b'""'):
            said = 'escapes quotes by backslashes (\\"), as Spark does'
            yield _odd("quotes", planned.uri, said, "name the escape character")
        if max((len(line) for line in body.split(b'"')), default=0) >= _BYTES // 2 and body.count(b'"') % 2:
            yield _odd("quotes", planned.uri, "has a quote that does not close soon", "mend it where it opens")
        lines = [line for line in body.split(b"\n")[:20] if line]
        has_commas = said_dialect(planned.uri, reading).delimiter == ","
        if has_commas and lines and b"," not in lines[0] and (b"\t" in lines[0] or b";" in lines[0]):
            yield _odd("delimiter", planned.uri, "has no comma in its header", "name the delimiter")


def _odd(check: str, uri: str, said: str, next_step: str) -> Finding:
    return Finding(check, "warning", f"{uri} {said}. Next: {next_step}.", {"object": uri})


def _not_utf8(body: bytes) -> int | None:
    """Where bytes are no UTF-8; a character that is cut off at their end does not count."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return None if error.start >= len(body) - 3 else error.start
    return None
