"""One commit of one Iceberg table: files that go, files that come, and properties, where nobody else was quicker.

Each commit makes a snapshot, also an empty one, since it is the snapshot on which the catalog compares. pyiceberg would
repeat a commit by itself on top of what another writer has done; that is turned off by a property of the table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from corpuscore.warehouse.iceberg.columns import writable

NO_RETRIES = "commit.retry.num-retries"

#: What every table is made with. Old metadata files go by themselves; snapshots are the catalog's owner's to expire.
PROPERTIES = {
    NO_RETRIES: "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}

#: Beyond so many values, Iceberg's readers do not look at a list.
_LISTED_VALUES = 200


def write_files(table: Table, rows: pa.Table) -> list[DataFile]:
    """Write rows to new files of a table; they are in none of its snapshots yet."""
    return list(_dataframe_to_data_files(table.metadata, writable(rows), table.io)) if rows.num_rows else []


def commit(table: Table, gone: Iterable[DataFile], come: Iterable[DataFile], properties: Mapping[str, str]) -> bool:
    """Take files out of a table and put others in, with properties, in one commit and one snapshot.

    Returns:
        False where the table is another than the one that was loaded, and nothing is done.
    """
    transaction = table.transaction()
    with transaction.update_snapshot(snapshot_properties=dict(properties)).overwrite() as snapshot:
        for file in gone:
            snapshot.delete_data_file(file)
        for file in come:
            snapshot.append_data_file(file)
    if properties:
        transaction.set_properties(dict(properties))
    try:
        transaction.commit_transaction()
    except CommitFailedException:
        return False
    return True


def files_of(table: Table, work_ids: Collection[str] | None, model: str | None = None) -> list[FileScanTask]:
    """The files that hold rows of these work ids, of a table that is partitioned by them; None: all."""
    chosen: BooleanExpression = AlwaysTrue()
    if work_ids is not None and 0 < len(work_ids) <= _LISTED_VALUES:
        chosen = _among("work_id", work_ids)
    elif model is not None:
        chosen = _among("model", [model])
    tasks = table.scan(row_filter=chosen).plan_files() if work_ids is None or work_ids else []
    return [task for task in tasks if work_ids is None or task.file.partition[0] in work_ids]


def _among(column: str, values: Iterable[str]) -> BooleanExpression:
    """The rows of which a column has one of some values."""
    return In(term=Reference(column), values={literal(value) for value in values})


def all_files(table: Table) -> list[DataFile]:
    """Every file of a table."""
    return [task.file for task in table.scan().plan_files()]


def read_rows(
    table: Table, tasks: Sequence[FileScanTask], columns: Sequence[str], model: str | None
) -> Iterator[pa.Table]:
    """Some columns of the rows of files, of a model."""
    chosen: BooleanExpression = AlwaysTrue() if model is None else _among("model", [model])
    scan = table.scan(row_filter=chosen, selected_fields=tuple(columns))
    for batch in ArrowScan(table.metadata, table.io, scan.projection(), chosen).to_record_batches(tasks):
        yield pa.Table.from_batches([batch])


def read_all(table: Table, schema: pa.Schema) -> pa.Table:
    """A small table, in this schema."""
    return table.scan(selected_fields=tuple(schema.names)).to_arrow().select(schema.names).cast(schema)
