"""Apache Iceberg: the files of a table's current snapshot, through pyiceberg and its catalogs.

Source: https://iceberg.apache.org/spec/
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from corpuscore.corpus.tables import entries_of, missing_extra, not_read
from corpuscore.errors import CorpusError
from corpuscore.storage import Entry, canonical_uri, path_of, scheme_of

_SCHEME, _METADATA = "iceberg", re.compile(r".*/metadata/[^/]*\.metadata\.json")


class Snapshot(NamedTuple):
    """A table as it is now.

    Attributes:
        folder: Canonical URI of its location, with a slash at its end.
        entries: Its data files.
    """

    folder: str
    entries: list[Entry]


def is_iceberg(canonical: str) -> bool:
    """Whether a URI names a table of a catalog, or a table's metadata."""
    return scheme_of(canonical) == _SCHEME or _METADATA.fullmatch(canonical) is not None


def iceberg_folder(canonical: str, anonymous: bool) -> str:
    """Canonical URI of the location of a table, with a slash at its end; raises as iceberg_snapshot does."""
    return canonical_uri(_loaded(canonical, anonymous).metadata.location).rstrip("/") + "/"


def iceberg_snapshot(canonical: str, anonymous: bool) -> Snapshot:
    """The data files of a table's current snapshot.

    Args:
        canonical: `iceberg://CATALOG/NAMESPACE.TABLE`, of a catalog that pyiceberg is configured for
            (~/.pyiceberg.yaml, PYICEBERG_CATALOG__...); or the URI of a metadata.json.
        anonymous: Without credentials.

    Raises:
        CorpusError: The extra is not installed, there is no such table, or it has what is not understood here.
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    table = _loaded(canonical, anonymous)
    folder = canonical_uri(table.metadata.location).rstrip("/") + "/"
    _check_names(canonical, table)
    uris = [_checked(canonical, folder, task) for task in table.scan().plan_files()]
    return Snapshot(folder, entries_of(canonical, sorted(uris), anonymous))


def _loaded(canonical: str, anonymous: bool) -> Any:
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.table import StaticTable
    except ImportError:
        raise missing_extra(canonical, "an Iceberg table", "iceberg") from None
    catalog, _, name = path_of(canonical).partition("/")
    try:
        if scheme_of(canonical) != _SCHEME:
            return StaticTable.from_metadata(canonical, _properties(canonical, anonymous))
        return load_catalog(catalog).load_table(name.strip("/").replace("/", "."))
    except Exception as error:  # each catalog has errors of its own
        raise CorpusError(
            f"{canonical} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:300]})",
            rule="a table is iceberg://CATALOG/NAMESPACE.TABLE, of a catalog that pyiceberg is configured for, or the "
            "URI of its metadata.json",
            next_step="check both names, and ~/.pyiceberg.yaml or PYICEBERG_CATALOG__...",
        ) from error


def _properties(uri: str, anonymous: bool) -> dict[str, str]:
    """How pyiceberg reads a table's metadata without a catalog that tells it."""
    if scheme_of(uri) != "s3":
        return {}
    found = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO", "s3.anonymous": str(anonymous).lower()}
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return found | ({"s3.endpoint": endpoint} if endpoint else {})


def _check_names(canonical: str, table: Any) -> None:
    """Raise where files may call a column otherwise than the table does: they know it by its number."""
    names = {field.field_id: field.name for field in table.schema().fields}
    for schema in table.metadata.schemas:
        for field in schema.fields:
            if names.get(field.field_id, field.name) != field.name:
                found = f"has renamed its column {field.name!r} to {names[field.field_id]!r}"
                raise not_read(canonical, found, "rewrite its data files, or write it into a new table")


def _checked(canonical: str, folder: str, task: Any) -> str:
    """The URI of a data file."""
    if task.delete_files:
        raise not_read(canonical, "has deletes that are not applied to its files", "compact it: rewrite_data_files")
    if (kind := getattr(task.file.file_format, "value", str(task.file.file_format)).upper()) != "PARQUET":
        raise not_read(canonical, f"has data files of {kind}", "write it with write.format.default=parquet")
    uri = canonical_uri(task.file.file_path)
    if not uri.startswith(folder):
        raise not_read(canonical, f"keeps its file {uri} outside of {folder}", "rewrite its data files")
    return uri
