"""Which objects have left a corpus: a listing would have named them and did not, nor are they there when asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial

from corpuscore.corpus.listing import EVERYTHING
from corpuscore.corpus.patterns import Belongs, excluder, folder_of, way_taken
from corpuscore.corpus.tables.delta import LOG
from corpuscore.corpus.tables.iceberg import iceberg_folder, is_iceberg
from corpuscore.options import SelectOptions
from corpuscore.storage import Entry, concurrently, find_entry, is_listed, list_entries, path_of


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
    if is_iceberg(uri):
        folder = iceberg_folder(uri, selection.anonymous)
        yield lambda one: one.startswith(folder)
    elif way := way_taken(uri, paths):
        prefix, belongs = way
        leaves_out = excluder(selection.exclude, folder_of(prefix))
        yield lambda one: one.startswith(prefix) and belongs(path_of(one)) and not leaves_out(path_of(one))


def confirm_gone(uris: Iterable[str], corpus: Iterable[str], selection: SelectOptions = EVERYTHING) -> list[str]:
    """Of objects that a listing did not name, those that are not there when each is asked for: a listing may be old.

    What the snapshot of a table does not name has gone, though its file may lie there until it is cleared away.

    Args:
        uris: Canonical, in their order.
        corpus: Canonical URIs of what was listed.
        selection: With what rights.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    asked = list(uris)
    tables = tuple(_table_folders(corpus, selection.anonymous)) if asked else ()
    found = concurrently(partial(_find_unless_of, tables, anonymous=selection.anonymous), asked)
    return [uri for uri, entry in zip(asked, found, strict=True) if entry is None]


def _find_unless_of(tables: tuple[str, ...], uri: str, anonymous: bool) -> Entry | None:
    return None if uri.startswith(tables) else find_entry(uri, anonymous)


def _table_folders(corpus: Iterable[str], anonymous: bool) -> Iterator[str]:
    """The folders of a corpus that are tables."""
    for uri in corpus:
        folder = uri.rstrip("/") + "/"
        if is_iceberg(uri):
            yield iceberg_folder(uri, anonymous)
        elif is_listed(uri) and next(iter(list_entries(folder + LOG, anonymous)), None):
            yield folder
