"""Tables and data sets as corpora: which objects their present snapshot is made of. A manifest freezes these.

delta.py         a folder with a _delta_log
iceberg.py       iceberg://CATALOG/NAMESPACE.TABLE, or the URI of a metadata.json
huggingface.py   a saved data set, or a repository of one
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from corpuscore.errors import CorpusError
from corpuscore.storage import Entry, concurrently, filesystem, find_entry, translated


def entries_of(table: str, uris: Iterable[str], anonymous: bool) -> list[Entry]:
    """The data files of a snapshot, as they are now.

    Args:
        table: Name for messages.
        uris: Of the files.
        anonymous: Without credentials.

    Raises:
        CorpusError: One is gone.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    asked = list(uris)
    found = concurrently(partial(find_entry, anonymous=anonymous), asked)
    gone = [uri for uri, entry in zip(asked, found, strict=True) if entry is None]
    if gone:
        raise CorpusError(
            f"{table}: {len(gone)} files of its snapshot are gone, such as {gone[0]}",
            rule="a table is read as of its present snapshot, whole",
            next_step="restore them, or mend the table; then plan again",
        )
    return [entry for entry in found if entry]


def missing_extra(table: str, what: str, extra: str) -> CorpusError:
    """The error that says: the library for such tables is not installed."""
    return CorpusError(
        f"{table} is {what}",
        rule="its files by themselves hold rows that were deleted or replaced since",
        next_step=f"pip install 'corpuscore[{extra}]'; or name its files by a pattern, to score them as they are",
    )


def not_read(table: str, found: str, next_step: str) -> CorpusError:
    """The error that names what of a table is not understood here."""
    return CorpusError(
        f"{table} {found}",
        rule="a table is read from the Parquet files of its snapshot, as they are",
        next_step=next_step,
    )


def read_small(uri: str, entry: Entry, anonymous: bool) -> bytes:
    """A description that lies beside the data.

    Raises:
        CorpusError: It is too large for one.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    if entry.size_bytes > _DESCRIPTION_BYTES:
        raise CorpusError(f"{uri} has {entry.size_bytes} bytes; a description has at most {_DESCRIPTION_BYTES}")
    store, path = filesystem(uri, anonymous)
    with translated(f"read {uri}"):
        body: bytes = store.cat_file(path)
    return body


def paths_below(folder: str, entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries by their path from a folder on.

    Args:
        folder: Path of the folder, with a slash at its end.
        entries: All of them below it.
    """
    return {entry.path.removeprefix(folder): entry for entry in entries}


_DESCRIPTION_BYTES = 16 * 2**20
