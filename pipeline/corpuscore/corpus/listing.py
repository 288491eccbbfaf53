"""URIs -> the objects of a corpus; patterns.py says what a URI may mean."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from corpuscore.corpus.formats import format_of
from corpuscore.corpus.patterns import Belongs, excluder, folder_of, ways_of
from corpuscore.corpus.tables import not_read
from corpuscore.corpus.tables.delta import LOG, delta_entries
from corpuscore.corpus.tables.huggingface import dataset_entries
from corpuscore.corpus.tables.iceberg import iceberg_snapshot, is_iceberg
from corpuscore.errors import CorpusError
from corpuscore.options import SelectOptions
from corpuscore.records import Format
from corpuscore.storage import (
    Entry,
    canonical_uri,
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
#: Where an Iceberg table's metadata lies, from its folder on.
_ICEBERG = re.compile(r"metadata/[^/]*\.metadata\.json")


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
        found.update((item.uri, item) for item in (_object(there.scheme, entry, format) for entry in there.entries))
    return sorted(found.values())


def list_versions(uris: Iterable[str], selection: SelectOptions = EVERYTHING) -> dict[str, str]:
    """Version by URI of the objects under some URIs, whatever their format; where nothing is, nothing.

    Args:
        uris: As for list_objects.
        selection: What of it is left out.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    listings = (_selected(canonical, selection) for canonical in map(canonical_uri, uris))
    return {uri_of(there.scheme, entry.path): entry.etag for there in listings for entry in there.entries}


def _object(scheme: str, entry: Entry, kind: Literal["auto"] | Format) -> CorpusObject:
    named = uri_of(scheme, entry.path)
    chosen = format_of(named if is_listed(named) else named.partition("?")[0]) if kind == "auto" else kind
    return CorpusObject(named, entry.etag, entry.size_bytes, chosen)


class _Selected(NamedTuple):
    """What is left of a listing: the scheme of its objects, the entries, and how many were excluded or are older."""

    scheme: str
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
    return _Selected(scheme_of(prefix), new, len(entries) - len(kept), len(kept) - len(new))


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
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        raise CorpusError(
            f"A file is named {os.fsencode(entry.path)!r}",
            rule="a document is named by its object, in UTF-8",
            next_step="rename it, or leave it out with an exclude pattern, such as its name with ? for each odd byte",
        ) from None


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
    if is_iceberg(canonical):
        return iceberg_snapshot(canonical, anonymous)
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
        if way.inside is None and way.prefix.endswith("/"):
            return way.prefix, _of_folder(way.prefix, listed, found, anonymous)
        _warn_of_tables(listed, canonical)
        return way.prefix, found
    return canonical, []


def _of_folder(folder: str, listed: Sequence[Entry], found: list[Entry], anonymous: bool) -> list[Entry]:
    """The objects of a folder, which may be a table or a data set."""
    root = path_of(folder)
    if any(entry.path.startswith(root + LOG) for entry in listed):
        return delta_entries(folder, anonymous)
    metadata = [entry for entry in found if _ICEBERG.fullmatch(entry.path.removeprefix(root))]
    if metadata:
        newest = uri_of(scheme_of(folder), max(entry.path for entry in metadata))
        raise not_read(folder, "is an Iceberg table", f"name its metadata, such as {newest}, or its catalog")
    _warn_of_tables(listed, folder)
    return dataset_entries(folder, found, anonymous)


def _warn_of_tables(listed: Iterable[Entry], canonical: str) -> None:
    """Say that the files of a Delta table are read as they are, where nobody named its folder."""
    log_of = next((entry.path for entry in listed if f"/{LOG}" in entry.path), None)
    if log_of:
        log.warning(
            "%s names files of the Delta table %s, which are read as they are, with rows that were deleted or replaced "
            "since. Name the table's folder to read its newest version.",
            canonical,
            log_of.partition(f"/{LOG}")[0],
        )


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
