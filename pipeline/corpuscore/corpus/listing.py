"""URIs -> the objects of a corpus; patterns.py says what a URI may mean."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from corpuscore.addresses import is_writable
from corpuscore.corpus.formats import format_of
from corpuscore.corpus.patterns import Belongs, excluder, folder_of, way_taken, ways_of
from corpuscore.errors import CorpusError, JobError
from corpuscore.job import SelectOptions
from corpuscore.records import Format
from corpuscore.storage import (
    Entry,
    canonical_uri,
    concurrently,
    find_entry,
    is_listed,
    list_entries,
    path_of,
    scheme_of,
    uri_of,
)

log = logging.getLogger(__name__)

EVERYTHING = SelectOptions()
_VERSION_MARK = "?versionId="
#: What a work location holds, for patterns that may match it.
_OF_WORK = ("manifests/0.parquet", "parts/00/0.parquet", "receipts/00/0.json", "runs/0/run.json", "cuts/0/0")


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


def list_objects(
    uris: Iterable[str], format: Literal["auto"] | Format = "auto", selection: SelectOptions = EVERYTHING
) -> list[CorpusObject]:
    """The objects under some URIs, sorted by URI, each once.

    Args:
        uris: Objects, folders, glob patterns or the beginnings of keys, see corpuscore.corpus.patterns. Names that
            start with "." or "_", such as _SUCCESS, and marks of folders are skipped unless named exactly.
        format: `auto` goes by each object's name.
        selection: What of it is left out; where only `since` leaves nothing, the list is empty.

    Raises:
        CorpusError: A URI matches nothing, or a name says no format or is no UTF-8.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    found: dict[str, CorpusObject] = {}
    for uri in uris:
        canonical = canonical_uri(uri)
        there = _selected(canonical, selection)
        if not there.entries and not there.older:
            raise _nothing(uri, canonical, there, selection)
        if there.older:
            log.info("%s: %d objects are older than %s", uri, there.older, selection.since)
        found.update((item.uri, item) for item in (_object(canonical, entry, format) for entry in there.entries))
    return sorted(found.values())


def list_versions(uris: Iterable[str], selection: SelectOptions = EVERYTHING) -> dict[str, str]:
    """Version by URI of the objects under some URIs, whatever their format; where nothing is, nothing.

    Args:
        uris: As for list_objects.
        selection: What of it is left out.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    return {
        uri_of(scheme_of(canonical), entry.path): entry.etag
        for canonical in map(canonical_uri, uris)
        for entry in _selected(canonical, selection).entries
    }


def check_apart(corpus: Iterable[str], work: str, listed: Iterable[str] = ()) -> None:
    """Raise where work location and corpus lie in one another: a run would score its own results.

    Args:
        corpus: URIs as for list_objects.
        work: The work location.
        listed: Canonical URIs of the objects, once they are known.

    Raises:
        JobError: Naming both.
    """
    base = canonical_uri(work).rstrip("/") + "/"
    found = next((uri for uri in listed if uri.startswith(base)), None)
    for uri in map(canonical_uri, corpus):
        if found or _reaches(uri, base) or (uri.rstrip("/") + "/").startswith(base):
            raise JobError(
                f"The work location {work} and the corpus {found or uri} lie in one another",
                rule="what a run writes is no document of its corpus",
                next_step="choose a work location beside the corpus",
            )


def _reaches(uri: str, base: str) -> bool:
    """Whether a corpus's folder or pattern names what lies in a work location."""
    if scheme_of(uri) != scheme_of(base):
        return False
    paths = [path_of(base) + key for key in _OF_WORK]
    ways = [way for way in ways_of(uri) if way.inside or way.prefix.endswith("/")]  # not: all that begins so
    return any(
        path.startswith(path_of(way.prefix)) and (way.belongs(path) or (way.inside and way.inside(path)))
        for way in ways
        for path in paths
    )


def _object(uri: str, entry: Entry, kind: Literal["auto"] | Format) -> CorpusObject:
    named = uri_of(scheme_of(uri), entry.path)
    chosen = format_of(named if is_listed(uri) else named.partition("?")[0]) if kind == "auto" else kind
    return CorpusObject(named, entry.etag, entry.size_bytes, chosen)


class _Selected(NamedTuple):
    """What is left of a listing: the entries, and how many were excluded or are older."""

    entries: list[Entry]
    excluded: int
    older: int


def _selected(canonical: str, selection: SelectOptions) -> _Selected:
    """What a URI means, seen fresh, without what is left out."""
    prefix, entries = _entries(canonical, selection.anonymous)
    leaves_out = excluder(selection.exclude, folder_of(prefix))
    kept = [entry for entry in entries if not leaves_out(entry.path)]
    for entry in kept:
        _check_name(entry)
    new = [entry for entry in kept if _is_new(canonical, entry, selection)]
    return _Selected(new, len(entries) - len(kept), len(kept) - len(new))


def _is_new(canonical: str, entry: Entry, selection: SelectOptions) -> bool:
    if selection.since is None:
        return True
    if entry.modified is None:
        raise CorpusError(
            f"{uri_of(scheme_of(canonical), entry.path)}: its store does not say when it was written",
            rule="since compares that time",
            next_step="leave since out, and name objects by patterns",
        )
    return entry.modified >= selection.since


def _check_name(entry: Entry) -> None:
    if not is_writable(entry.path):
        raise CorpusError(
            f"A file is named {os.fsencode(entry.path)!r}",
            rule="a document is named by its object, in UTF-8",
            next_step="rename it, or leave it out with an exclude pattern, such as its name with ? for each odd byte",
        )


def _nothing(uri: str, canonical: str, there: _Selected, selection: SelectOptions) -> CorpusError:
    """The error that says: nothing is there."""
    if there.excluded:
        return CorpusError(
            f"{uri}: all {there.excluded} objects are left out by {', '.join(selection.exclude)}",
            next_step="correct the exclude patterns",
        )
    if _VERSION_MARK in canonical:
        return CorpusError(
            f"{uri}: no object of this name",
            rule="a version of an object cannot be named; a run reads the newest, and notes which it was",
            next_step=f"leave {_VERSION_MARK}... out, or copy that version to a key of its own",
        )
    if not is_listed(canonical):
        return CorpusError(
            f"{uri}: nothing there",
            rule="web servers have no listings: each object is named by its exact URL",
            next_step="check the spelling, and name each object",
        )
    return CorpusError(
        f"{uri}: no objects there",
        rule="a corpus is an object, a folder, a glob pattern, or in a bucket what keys begin with; names that start "
        'with "." or "_" don\'t count',
        next_step="check the spelling, and that this user may list it",
    )


def _entries(canonical: str, anonymous: bool) -> tuple[str, list[Entry]]:
    """What was listed for a URI, and the objects that it means."""
    exact = find_entry(canonical, anonymous)
    if exact is not None:
        return canonical, [exact]
    for way in ways_of(canonical):
        listed = list(list_entries(way.prefix, anonymous))
        belongs = way.meant(entry.path for entry in listed)
        _warn_of_unreadable(listed, belongs or way.belongs)
        if belongs is None:
            continue
        found = [entry for entry in listed if belongs(entry.path)]
        if belongs is way.belongs and way.inside:
            _warn_of_folders(
                [entry for entry in listed if way.inside(entry.path) and not belongs(entry.path)], canonical
            )
        return way.prefix, found
    return canonical, []


def _warn_of_unreadable(listed: Iterable[Entry], belongs: Belongs) -> None:
    slashed = (entry for entry in listed if entry.path.endswith("/") and entry.size_bytes)
    unreadable = [entry.path for entry in slashed if belongs(entry.path.rstrip("/"))]
    if unreadable:
        log.warning(
            "%d objects are left out, such as %r: a name that ends in a slash is that of a folder. Rename them.",
            len(unreadable),
            unreadable[0],
        )


def _warn_of_folders(left_out: Sequence[Entry], canonical: str) -> None:
    if left_out:
        log.warning(
            "%d objects in folders that %s matches are left out, such as %r: it matches objects, too. ** takes all.",
            len(left_out),
            canonical,
            left_out[0].path,
        )


def find_departed(
    known: Iterable[str], corpus: Iterable[str], listed: Collection[str], selection: SelectOptions = EVERYTHING
) -> list[str]:
    """Of objects that were known before, those that a listing of this corpus would have named but did not.

    Args:
        known: Canonical URIs; those that are not of this corpus are left out.
        corpus: Canonical URIs of objects, folders, glob patterns or beginnings of keys.
        listed: What the listing named.
        selection: What of it is left out; those that `since` left out are to be asked for.

    Returns:
        In the order in which they were known.
    """
    departed = [
        belongs
        for uri in corpus
        if uri not in listed
        for belongs in _departing(uri, list(map(path_of, listed)), selection)
    ]
    return [uri for uri in known if uri not in listed and any(belongs(uri) for belongs in departed)]


def _departing(uri: str, paths: Sequence[str], selection: SelectOptions) -> Iterator[Belongs]:
    """Whether a canonical URI is one that a corpus's URI would have named.

    An object that is there is itself alone, also where others have its name as a prefix: it is not asked for here.
    """
    yield lambda one: one == uri
    if way := way_taken(uri, paths):
        prefix, belongs = way
        leaves_out = excluder(selection.exclude, folder_of(prefix))
        yield lambda one: one.startswith(prefix) and belongs(path_of(one)) and not leaves_out(path_of(one))


def confirm_gone(uris: Iterable[str], selection: SelectOptions = EVERYTHING) -> list[str]:
    """Of objects that a listing did not name, those that are not there when each is asked for: a listing may be old.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    asked = list(uris)
    found = concurrently(partial(find_entry, anonymous=selection.anonymous), asked)
    return [uri for uri, entry in zip(asked, found, strict=True) if entry is None]
