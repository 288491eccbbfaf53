"""URIs -> the objects of a corpus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from fsspec.utils import glob_translate

from corpuscore.corpus.formats import format_of
from corpuscore.errors import CorpusError
from corpuscore.records import Format
from corpuscore.storage import Entry, canonical_uri, filesystem, find_entry, list_entries, uri_of

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, order=True)
class CorpusObject:
    """One object of a corpus.

    Attributes:
        uri: Canonical.
        etag: Its version when it was listed.
        size_bytes: Size as stored.
        format: How to read it.
    """

    uri: str
    etag: str
    size_bytes: int
    format: Format


def list_objects(uris: Iterable[str], format: Literal["auto"] | Format = "auto") -> list[CorpusObject]:
    """The objects under some URIs, sorted by URI, each once.

    Args:
        uris: Objects, prefixes (folders) or glob patterns (`*` stays in a folder, `**` does not). Names that start with
            "." or "_", such as _SUCCESS, are skipped unless named exactly.
        format: `auto` goes by each object's name.

    Raises:
        CorpusError: A URI matches nothing, or a name says no format.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    found: dict[str, CorpusObject] = {}
    for uri in uris:
        objects = [_object(canonical_uri(uri), entry, format) for entry in _entries(uri)]
        if not objects:
            raise CorpusError(
                f"{uri}: no objects there",
                rule='a corpus is an object, a prefix or a glob pattern; names that start with "." or "_" don\'t count',
                next_step="check the spelling, and that this user may list it",
            )
        found.update((item.uri, item) for item in objects)
    return sorted(found.values())


def _object(uri: str, entry: Entry, kind: Literal["auto"] | Format) -> CorpusObject:
    named = uri_of(uri.partition("://")[0], entry.path)
    chosen = format_of(named) if kind == "auto" else kind
    return CorpusObject(named, entry.etag, entry.size_bytes, chosen)


def _entries(uri: str) -> Iterator[Entry]:
    exact = find_entry(uri)
    if exact is not None:
        yield exact
        return
    canonical = canonical_uri(uri)
    magic = _MAGIC.search(canonical)
    folder = canonical[: magic.start()] if magic else canonical.rstrip("/") + "/"
    matches = re.compile(glob_translate(filesystem(canonical)[1])).match if magic else None
    root = filesystem(folder)[1].rpartition("/")[0]
    for entry in list_entries(folder):
        if not _is_hidden(entry.path.removeprefix(root)) and (matches is None or matches(entry.path)):
            yield entry


def _is_hidden(path: str) -> bool:
    return path.endswith("/") or "/." in path or "/_" in path
