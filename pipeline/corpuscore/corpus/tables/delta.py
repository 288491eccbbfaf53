"""Delta Lake: the files of a table's newest version.

Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from corpuscore.corpus.tables import entries_of, missing_extra, not_read
from corpuscore.errors import CorpusError
from corpuscore.naming import folder_values
from corpuscore.storage import Entry, path_of, scheme_of

LOG = "_delta_log/"
#: What a reader may have to know, and changes nothing of where rows are and what columns are called.
_HARMLESS = frozenset({"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "invariants"})


def delta_entries(folder: str, anonymous: bool) -> list[Entry]:
    """The data files of the newest version of a table.

    Args:
        folder: Canonical URI of its folder, with a slash at its end.
        anonymous: Without credentials.

    Raises:
        CorpusError: The extra is not installed, the table cannot be read, or it has what is not understood here.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError:
        raise missing_extra(folder, "a Delta table", "delta") from None
    where = path_of(folder) if scheme_of(folder) == "file" else folder
    try:
        table = DeltaTable(where, storage_options=_options(folder, anonymous))
        _check(folder, table)
        actions = pa.table(table.get_add_actions())
    except (DeltaError, OSError, ValueError) as error:
        raise CorpusError(
            f"The Delta table {folder} cannot be read: {' '.join(str(error).split())[:300]}",
            rule="its log describes its files",
            next_step="look at it with another reader, and mend it",
        ) from error
    paths = actions["path"].to_pylist()
    files = {_uri(folder, path): values for path, values in zip(paths, _partitions(actions), strict=True)}
    for uri, values in files.items():
        _check_partition(folder, uri, values)
    return entries_of(folder, files, anonymous)


def _partitions(actions: pa.Table) -> list[dict[str, Any]]:
    if "partition" not in actions.column_names:
        return [{}] * len(actions)
    return [values or {} for values in actions["partition"].to_pylist()]


def _uri(folder: str, path: str) -> str:
    """Where a file lies: a path in the log is relative and percent-encoded, or a URI."""
    plain = unquote(path)
    return plain if "://" in plain else folder + plain


def _check(folder: str, table: Any) -> None:
    """Raise where rows or columns are not what the files hold."""
    features = set(table.protocol().reader_features or ())
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise not_read(folder, f"maps its columns by {mapping}", "write it again without delta.columnMapping.mode")
    if unknown := features - _HARMLESS - {"columnMapping"}:
        raise not_read(folder, f"needs {', '.join(sorted(unknown))} of a reader", "write it again without them")
    if "deletionVectors" in features and pa.table(table.deletion_vectors()).num_rows:
        raise not_read(folder, "has rows that are deleted by vectors", "apply them: REORG TABLE ... APPLY (PURGE)")


def _check_partition(folder: str, uri: str, values: dict[str, Any]) -> None:
    """Partition columns are taken from the names of folders, as Delta writers make them."""
    named = folder_values(uri)
    for column, value in values.items():
        if column not in named or (named[column] is None) != (value is None):
            found = f"keeps its partition column {column!r} in the log alone (such as {uri})"
            raise not_read(folder, found, "write it again with another writer")


def _options(folder: str, anonymous: bool) -> dict[str, str]:
    """What deltalake's own client of a store has to be told beside its environment."""
    if scheme_of(folder) not in ("s3", "s3a"):
        return {}
    options = {"AWS_SKIP_SIGNATURE": "true"} if anonymous else {}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    return options
