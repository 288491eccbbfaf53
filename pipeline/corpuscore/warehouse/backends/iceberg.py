"""Iceberg through pyiceberg, for Snowflake, BigQuery, Databricks, Trino and Spark to read.

Scores and rejects are partitioned by work id, so that superseding deletes files and rewrites none. The commit of the
scores is the load; see corpuscore.warehouse.iceberg.journal for the tables beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table

from corpuscore.addresses import shown
from corpuscore.errors import WarehouseBusy, WarehouseError, WarehouseUnavailable
from corpuscore.options import TableOptions
from corpuscore.records import CheckedPart
from corpuscore.warehouse.iceberg.catalog import catalog_errors, open_catalog
from corpuscore.warehouse.iceberg.columns import bounds_left_out, by_work_id, iceberg_schema, iceberg_type
from corpuscore.warehouse.iceberg.commits import (
    NO_RETRIES,
    PROPERTIES,
    all_files,
    commit,
    files_of,
    read_all,
    read_rows,
    write_files,
)
from corpuscore.warehouse.iceberg.journal import JOURNAL, LOAD, Journal, following
from corpuscore.warehouse.lake.state import Change, confirmed, is_one_of
from corpuscore.warehouse.lake.warehouse import LakeWarehouse, Role
from corpuscore.warehouse.protocol import LoadBatch
from corpuscore.warehouse.stream import PartStream
from corpuscore.warehouse.tables import LEDGER, RUNS

_LISTED = "corpuscore.listed"
_FILE_ROWS = 200_000
#: So often the tables are looked at until they are of one load, while others are at them.
_LOOKS = 10


def connect(url: str, table: str, options: TableOptions) -> IcebergWarehouse:
    """Open the catalog of a URL, see corpuscore.warehouse.iceberg.catalog.

    Raises:
        WarehouseError: It names no catalog, or the catalog refuses.
        WarehouseUnavailable: It does not answer.
    """
    return IcebergWarehouse(url, table, options)


def makes(url: str) -> bool:
    """Whether connect may make the catalog: one in SQLite is made where it is not."""
    return url.startswith("iceberg+sqlite:")


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one moment: scores, and what follows them; all of the same load."""

    scores: Table
    rejects: Table
    ledger: Table
    runs: Table


class IcebergWarehouse(LakeWarehouse[Tables]):
    """Scores in Iceberg tables of one catalog."""

    def __init__(self, url: str, table: str, options: TableOptions) -> None:
        super().__init__(table, options)
        if options.score_type != "float32":
            raise WarehouseError(
                f"--score-type {options.score_type}: Iceberg has no such type",
                rule="float16 is for Parquet folders (parquet:///FOLDER)",
                next_step="leave --score-type out",
            )
        self._url = url
        self._catalog = open_catalog(url)
        self._read_ledger: tuple[Any, pa.Table] = (None, LEDGER.empty_table())

    def __repr__(self) -> str:
        return f"IcebergWarehouse({shown(self._url)}, {self.table})"

    def close(self) -> None:
        """See Warehouse."""
        self._catalog.close()

    def _name(self, role: str) -> tuple[str, str]:
        table = self.table if role == "scores" else self.table.beside(role)
        return table.schema or "default", table.name

    def _look(self) -> Tables | None:
        with catalog_errors(self._url):
            for _ in range(_LOOKS):
                try:
                    scores = self._catalog.load_table(self._name("scores"))
                except NoSuchTableError:
                    return None
                rejects, ledger = (self._followed(scores, role) for role in ("rejects", "ledger"))
                if rejects and ledger:
                    return Tables(scores, rejects, ledger, self._catalog.load_table(self._name("runs")))
        raise WarehouseBusy(f"Table {self.table}: other writers are loading", next_step="wait until they are done")

    def _followed(self, scores: Table, role: str) -> Table | None:
        """A table that follows the scores, made to where it is behind; None where it is ahead: the scores are old."""
        load = scores.properties.get(LOAD, "")
        table = self._catalog.load_table(self._name(role))
        if table.properties.get(LOAD, "") < load:
            with suppress(FileNotFoundError):  # somebody else has done it all meanwhile
                self._follow(table, role, Journal.read(scores.io, scores.properties[JOURNAL]), load)
            table = self._catalog.load_table(self._name(role))
        return table if table.properties.get(LOAD, "") == load else None

    def _follow(self, table: Table, role: str, journal: Journal, load: str) -> None:
        """Do to a table what the journal says; nothing where somebody else was quicker."""
        if role == "rejects":
            gone = [task.file for task in files_of(table, journal.deleted)]
            commit(table, gone, write_files(table, journal.rejects), {LOAD: load})
        elif journal.replaced:
            before = read_all(table, LEDGER)
            others = before.filter(pc.invert(is_one_of(before["work_id"], journal.replaced)))
            rows = pa.concat_tables([others, journal.entries])
            commit(table, all_files(table), write_files(table, rows), {LOAD: load})
        else:
            commit(table, [], write_files(table, journal.entries), {LOAD: load})

    def _create(self, schemas: Mapping[Role, pa.Schema], listed: str) -> None:
        with catalog_errors(self._url):
            self._catalog.create_namespace_if_not_exists(self._name("scores")[0])
            wanted = {"runs": RUNS, "ledger": LEDGER, "rejects": schemas["rejects"], "scores": schemas["scores"]}
            for role, columns in wanted.items():  # the scores last: where they are, all are
                schema = iceberg_schema(columns)
                spec = by_work_id(schema) if role in schemas else UNPARTITIONED_PARTITION_SPEC
                properties = {**PROPERTIES, **bounds_left_out(columns)}
                if role == "scores":
                    properties[_LISTED] = listed
                with suppress(TableAlreadyExistsError):
                    self._catalog.create_table(self._name(role), schema, partition_spec=spec, properties=properties)

    def prepare(self, labels: Sequence[str], kept: pa.Schema) -> None:
        """See Warehouse. Sees to it that pyiceberg repeats no commit by itself."""
        super().prepare(labels, kept)
        if (state := self._look()) is None:
            return
        for table in (state.scores, state.rejects, state.ledger, state.runs):
            if table.properties.get(NO_RETRIES) != PROPERTIES[NO_RETRIES]:
                with catalog_errors(self._url), table.transaction() as transaction:
                    transaction.set_properties({NO_RETRIES: PROPERTIES[NO_RETRIES]})

    def _extend(self, state: Tables, schemas: Mapping[Role, pa.Schema]) -> bool:
        tables: dict[Role, Table] = {"rejects": state.rejects, "scores": state.scores}
        for role, table in tables.items():
            added = [field for field in schemas[role] if field.name not in self._columns(state, role)]
            try:
                with catalog_errors(self._url), table.transaction() as transaction:
                    with transaction.update_schema() as update:
                        for field in added:
                            update.add_column((field.name,), iceberg_type(field.type))
                    transaction.set_properties(bounds_left_out(added))
            except CommitFailedException:
                return False
        return True

    def _columns(self, state: Tables, role: Role) -> dict[str, str]:
        table = state.scores if role == "scores" else state.rejects
        return {field.name: str(field.field_type) for field in table.schema().fields}

    def _type_name(self, kind: pa.DataType) -> str:
        return str(iceberg_type(kind))

    def _listed(self, state: Tables) -> str:
        return state.scores.properties.get(_LISTED, "")

    def _ledger(self, state: Tables) -> pa.Table:
        snapshot = state.ledger.metadata.current_snapshot_id
        if snapshot is None:
            return LEDGER.empty_table()
        if self._read_ledger[0] != snapshot:
            with catalog_errors(self._url):
                self._read_ledger = snapshot, read_all(state.ledger, LEDGER)
        return self._read_ledger[1]

    def _stage(self, state: Tables, batch: LoadBatch, parts: Sequence[CheckedPart]) -> list[Any]:
        return [self._write_part(state, batch, part) for part in parts]

    def _write_part(self, state: Tables, batch: LoadBatch, part: CheckedPart) -> dict[str, Any]:
        """Write the scores of a part to files, and keep its rejects for the journal."""
        files = []
        with PartStream(batch, [part], self.options) as stream:
            scores = stream.scores()
            for rows in _chunks(scores):
                with catalog_errors(self._url):
                    files += write_files(state.scores, rows)
            return {"files": files, "rejects": stream.rejects().read_all()}

    def _commit(self, state: Tables, change: Change) -> bool:
        previous = state.scores.properties.get(JOURNAL)
        load = following(state.scores.properties.get(LOAD, ""))
        path = f"{state.scores.location().rstrip('/')}/journal/{load}.arrow"
        rejects = [files["rejects"] for files in change.files.values()]
        seen = confirmed(self._ledger(state), change)
        journal = Journal(
            rejects=pa.concat_tables(rejects) if rejects else pa.table({}),
            entries=pa.concat_tables([seen, change.entries]),
            deleted=change.deleted,
            replaced=change.deleted | change.cleared | change.confirmed,
        )
        with catalog_errors(self._url):
            journal.write(state.scores.io, path)
            gone = [task.file for task in files_of(state.scores, change.deleted)]
            come = [file for files in change.files.values() for file in files["files"]]
            if not commit(state.scores, gone, come, {LOAD: load, JOURNAL: path}):
                state.scores.io.delete(path)
                return False
        with suppress(WarehouseUnavailable):  # it is done: what is missing follows when the tables are opened next
            self._look()
            for done in (path, previous):
                with suppress(OSError):  # another writer has deleted it
                    if done:
                        state.scores.io.delete(done)
        return True

    def _count_rows(self, state: Tables, role: Role, work_ids: Sequence[str]) -> int:
        table = state.scores if role == "scores" else state.rejects
        with catalog_errors(self._url):
            return sum(task.file.record_count for task in files_of(table, set(work_ids)))

    def _rows(
        self, state: Tables, role: Role, columns: Sequence[str], model: str | None, work_ids: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        table = state.scores if role == "scores" else state.rejects
        with catalog_errors(self._url):
            tasks = files_of(table, None if work_ids is None else set(work_ids), model)
            yield from read_rows(table, tasks, columns, model)

    def _read_runs(self, state: Tables) -> pa.Table:
        with catalog_errors(self._url):
            return read_all(state.runs, RUNS)

    def _write_run(self, state: Tables, row: pa.Table) -> bool:
        with catalog_errors(self._url):
            runs = self._read_runs(state)
            others = runs.filter(pc.invert(is_one_of(runs["run_id"], row["run_id"].to_pylist())))
            rows = pa.concat_tables([others, row])
            return commit(state.runs, all_files(state.runs), write_files(state.runs, rows), {})


def _chunks(rows: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Batches together, up to the rows of a file."""
    group: list[pa.RecordBatch] = []
    for batch in rows:
        group.append(batch)
        if sum(item.num_rows for item in group) >= _FILE_ROWS:
            yield pa.Table.from_batches(group, rows.schema)
            group = []
    if group:
        yield pa.Table.from_batches(group, rows.schema)
