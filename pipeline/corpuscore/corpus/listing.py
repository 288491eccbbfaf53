"""URIs -> the objects of a corpus."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from fsspec.utils import glob_translate

from corpuscore.corpus.formats import format_of
from corpuscore.errors import CorpusError
from corpuscore.records import Format
from corpuscore.storage import Entry, canonical_uri, concurrently, find_entry, list_entries, uri_of

log = logging.getLogger(__name__)

_MAGIC = re.compile(r"[*?\[]")
#: A name that starts with "." or "_", below the folder; "." and ".." are none: in a bucket they are names like others.
_HIDDEN = re.compile(r"/(?:_|\.(?!\.?(?:/|$)))")


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


def list_versions(uris: Iterable[str]) -> dict[str, str]:
    """Version by URI of the objects under some URIs, whatever their format; where nothing is, nothing.

    Args:
        uris: As for list_objects.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    return {
        uri_of(canonical_uri(uri).partition("://")[0], entry.path): entry.etag
        for uri in uris
        for entry in _entries(uri)
    }


def _object(uri: str, entry: Entry, kind: Literal["auto"] | Format) -> CorpusObject:
    named = uri_of(uri.partition("://")[0], entry.path)
    chosen = format_of(named) if kind == "auto" else kind
    return CorpusObject(named, entry.etag, entry.size_bytes, chosen)


def _entries(uri: str) -> Iterator[Entry]:
    exact = find_entry(uri)
    if exact is not None:
        yield exact
        return
    folder, belongs = _pattern(canonical_uri(uri))
    unreadable: list[str] = []
    for entry in list_entries(folder):
        if belongs(entry.path):
            yield entry
        elif entry.path.endswith("/") and entry.size_bytes and belongs(entry.path.rstrip("/")):
            unreadable.append(entry.path)
    if unreadable:
        log.warning(
            "%d objects are left out, such as %r: a name that ends in a slash is that of a folder. Rename them.",
            len(unreadable),
            unreadable[0],
        )


def _pattern(canonical: str) -> tuple[str, Callable[[str], bool]]:
    """The prefix that is listed for a folder or a glob pattern, and which of the paths under it are its objects."""
    magic = _MAGIC.search(canonical)
    folder = canonical[: magic.start()] if magic else canonical.rstrip("/") + "/"
    matches = re.compile(glob_translate(_path_of(canonical))).match if magic else None
    root = _path_of(folder).rpartition("/")[0]
    return folder, lambda path: not _is_hidden(path.removeprefix(root)) and (matches is None or bool(matches(path)))


def _path_of(canonical: str) -> str:
    """The inverse of storage's uri_of."""
    return canonical.partition("://")[2]


def find_departed(known: Iterable[str], corpus: Iterable[str], listed: Container[str]) -> list[str]:
    """Of objects that were known before, those that a listing of this corpus would have named but did not.

    Args:
        known: Canonical URIs; those that are not of this corpus are left out.
        corpus: Canonical URIs of objects, prefixes or glob patterns.
        listed: What the listing named.

    Returns:
        In the order in which they were known.
    """
    # An object that is there is itself alone, also where others have its name as a prefix.
    patterns = [(uri, *_pattern(uri)) for uri in corpus if uri not in listed]
    return [
        uri
        for uri in known
        if uri not in listed
        and any(
            uri == named or (uri.startswith(folder) and belongs(_path_of(uri))) for named, folder, belongs in patterns
        )
    ]


def confirm_gone(uris: Iterable[str]) -> list[str]:
    """Of objects that a listing did not name, those that are not there when each is asked for: a listing may be old.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    asked = list(uris)
    found = concurrently(find_entry, asked)
    return [uri for uri, entry in zip(asked, found, strict=True) if entry is None]


def _is_hidden(path: str) -> bool:
    return path.endswith("/") or _HIDDEN.search(path) is not None
