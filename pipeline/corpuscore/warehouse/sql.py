"""What warehouses that speak SQL share: the transaction of a load, and the queries of a report.

Source: design.md, "Why exactly once holds", 4 to 6. Delete and insert rather than MERGE, which leaves rows that
vanished from a slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from corpuscore.records import CheckedPart
from corpuscore.warehouse.connection import SqlConnection
from corpuscore.warehouse.names import TableName, quoted
from corpuscore.warehouse.protocol import Counts, LoadBatch, LoadSummary, RunRow, Summary
from corpuscore.warehouse.stream import PartStream
from corpuscore.warehouse.summary import Scope, summarise
from corpuscore.warehouse.tables import (
    LEDGER,
    LISTED,
    RUNS,
    check_names,
    differences,
    ledger_rows,
    missing_kept,
    one_row,
    other_schema,
    rejects_schema,
    scores_schema,
    threshold_words,
)
from corpuscore.warehouse.versions import LoadedObject, by_object, compare, find_outdated, gone_id


class SqlWarehouse(SqlConnection):
    """A Warehouse on an SQL connection."""

    #: What the load did whose COMMIT was not answered.
    _unanswered: tuple[tuple[CheckedPart, ...], LoadSummary] | None = None

    def prepare(self, labels: Sequence[str], kept: pa.Schema) -> None:
        """See Warehouse."""
        check_names(labels, kept, self.names, self.options)
        wanted = {
            "scores": (self.scores, scores_schema(labels, kept, self.options)),
            "rejects": (self.rejects, rejects_schema(kept)),
            "ledger": (self.ledger_table, LEDGER),
            "runs": (self.runs_table, RUNS),
        }
        with self.transaction(lock=[f"prepare {self.scores}"]):
            if not self.has_schema(self.scores):
                self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.scores.schema_sql}")
            problems = [
                problem for role, table in wanted.items() if (problem := self._provide(role, *table, kept.names))
            ]
            if problems:
                raise other_schema(problems)

    def check(self, labels: Sequence[str], kept_names: Sequence[str]) -> None:
        """See Warehouse."""
        check_names(labels, pa.schema([(name, pa.string()) for name in kept_names]), self.names, self.options)
        columns = scores_schema(labels, pa.schema([]), self.options)
        with self.transaction():
            found = self.columns(self.scores)
            wanted = {field.name: self.type_name(field.type) for field in columns}
            wanted |= {name: found.get(name, "kept column") for name in kept_names}
            if found and (problem := self._difference("scores", self.scores, found, wanted, kept_names)):
                raise other_schema([problem])

    def _difference(
        self, role: str, table: TableName, found: dict[str, str], wanted: dict[str, str], kept: Sequence[str]
    ) -> str:
        """How a table differs from what is wanted, beyond kept columns that it can be given."""
        if missing_kept(found, wanted, kept):
            return ""
        problems = differences(found, wanted)
        words = threshold_words(self.options)
        if role == "scores" and words and not problems and (other := self.comment(table, LISTED)) != words:
            problems = [f"{LISTED} holds {other or 'something of its own'!r} instead of {words!r}"]
        return f"Table {table} has another schema: {', '.join(problems)}" if problems else ""

    def _provide(self, role: str, table: TableName, schema: pa.Schema, kept: Sequence[str]) -> str:
        """Create a table, or give it the kept columns that it lacks, or say how it differs."""
        wanted = {field.name: self.type_name(field.type) for field in schema}
        found = self.columns(table)
        if role == "ledger" and found and "planned_at" not in found:  # a table from before this column was there
            self.execute(f"ALTER TABLE {table.sql} ADD COLUMN IF NOT EXISTS planned_at {wanted['planned_at']}")
            found = self.columns(table)
        if found:
            for name in missing_kept(found, wanted, kept):
                self.execute(f"ALTER TABLE {table.sql} ADD COLUMN {quoted(name)} {wanted[name]}")
            return self._difference(role, table, self.columns(table), wanted, kept)
        columns = [
            f"{quoted(field.name)} {wanted[field.name]}{'' if field.nullable else ' NOT NULL'}" for field in schema
        ]
        self.execute(f"CREATE TABLE {table.sql} ({', '.join(columns)})")
        for statement in self.indexes.get(role, ()):
            self.execute(statement.format(table=table.sql))
        if role == "scores" and (words := threshold_words(self.options)):
            self.execute(f"COMMENT ON COLUMN {table.sql}.{quoted(LISTED)} IS '{words}'")
        return ""

    def load(self, batch: LoadBatch) -> LoadSummary:
        """See Warehouse."""
        uris = sorted({part.uri for part in batch.parts})
        with self.transaction(lock=self._locks(batch.model, uris)):
            known = self._objects(batch.model, uris)
            outdated = find_outdated(batch.parts, known, batch.planned_at)
            parts = [part for part in batch.parts if part.uri not in outdated]
            current = {uri: item for uri, item in known.items() if uri not in outdated}
            fresh, stale = compare(parts, current.values())
            superseded = self._delete(stale)
            self._delete_entries([gone_id(batch.model, uri) for uri, item in current.items() if item.gone])
            scored, rejected = self._insert(batch, fresh) if fresh else (0, 0)
            self._confirm(batch.planned_at, {part.work_id for part in parts} - {part.work_id for part in fresh})
            summary = LoadSummary(
                rows_loaded=scored,
                rejects_loaded=rejected,
                work_ids_loaded=len(fresh),
                work_ids_skipped=len(parts) - len(fresh),
                rows_superseded=superseded,
                outdated=tuple(sorted(outdated)),
            )
            if not fresh and self._unanswered and self._unanswered[0] == batch.parts:
                summary = self._unanswered[1]  # that COMMIT was carried out, and only its answer was lost
            self._unanswered = batch.parts, summary
        self._unanswered = None
        return summary

    def remove(self, run_id: str, model: str, uris: Sequence[str], planned_at: datetime) -> int:
        """See Warehouse."""
        with self.transaction(lock=self._locks(model, uris)):
            known = self._objects(model, uris)
            older = {uri: item for uri, item in known.items() if item.is_older(planned_at)}
            rows = self._delete([work_id for item in older.values() for work_id in item.digests])
            self._confirm(planned_at, [gone_id(model, uri) for uri, item in older.items() if item.gone])
            leaving = [CheckedPart(gone_id(model, uri), uri, "", "", 0, 0) for uri in older if not older[uri].gone]
            if leaving:
                self._enter(leaving, run_id, model, planned_at)
        return rows

    def _locks(self, model: str, uris: Iterable[str]) -> list[str]:
        return [f"{self.scores} {model} {uri}" for uri in uris]

    def _delete(self, work_ids: Sequence[str]) -> int:
        """Delete the rows and ledger rows of work ids; rows of documents that went.

        Without any, no statement runs: a first load pays nothing for superseding.
        """
        if not work_ids:
            return 0
        doomed = "WHERE work_id IN (SELECT unnest($1::text[]))"
        rows = sum(self.execute(f"DELETE FROM {table.sql} {doomed}", work_ids) for table in (self.scores, self.rejects))
        self._delete_entries(work_ids)
        return rows

    def _delete_entries(self, work_ids: Sequence[str]) -> None:
        """Delete ledger rows."""
        if work_ids:
            where = "WHERE work_id IN (SELECT unnest($1::text[]))"
            self.execute(f"DELETE FROM {self.ledger_table.sql} {where}", list(work_ids))

    def _confirm(self, planned_at: datetime, work_ids: Iterable[str]) -> None:
        """Note that a later plan saw loaded work as it is."""
        if confirmed := sorted(work_ids):
            where = "WHERE work_id IN (SELECT unnest($2::text[])) AND coalesce(planned_at < $1, true)"
            self.execute(f"UPDATE {self.ledger_table.sql} SET planned_at = $1 {where}", planned_at, confirmed)

    def _insert(self, batch: LoadBatch, parts: Sequence[CheckedPart]) -> tuple[int, int]:
        """Insert the rows of parts and their ledger rows; rows to scores and to rejects."""
        with PartStream(batch, parts, self.options) as stream:
            scored = self._append_stream(self.scores, stream, stream.scores())
            rejected = self._append_stream(self.rejects, stream, stream.rejects()) if stream.rejected else 0
        self._enter(parts, batch.run_id, batch.model, batch.planned_at)
        return scored, rejected

    def _enter(self, parts: Sequence[CheckedPart], run_id: str, model: str, planned_at: datetime) -> None:
        """Insert ledger rows."""
        rows = ledger_rows(parts, run_id, model, planned_at)
        self.append(self.ledger_table, rows.to_reader())

    def _append_stream(self, table: TableName, stream: PartStream, rows: pa.RecordBatchReader) -> int:
        """Append, and raise what went wrong in the stream as it was: a driver can only wrap it."""
        try:
            return self.append(table, rows)
        except Exception:
            if stream.error is not None:
                raise stream.error from None
            raise

    def _objects(self, model: str, uris: Sequence[str] | None) -> dict[str, LoadedObject]:
        """A model's loaded work by object; needs a transaction."""
        found = self.columns(self.ledger_table)
        if not found:
            return {}
        planned_at = "planned_at" if "planned_at" in found else "NULL"  # validate asks before load prepares the tables
        columns = f"object_uri, work_id, digest, scored + rejected, {planned_at}"
        sql = f"SELECT {columns} FROM {self.ledger_table.sql} WHERE model = $1"
        if uris is None:
            return by_object(self.query(sql, model))
        return by_object(self.query(f"{sql} AND object_uri IN (SELECT unnest($2::text[]))", model, list(uris)))

    def ledger(self, model: str, uris: Sequence[str] | None = None) -> dict[str, str]:
        """See Warehouse."""
        return {
            work_id: digest for item in self.objects(model, uris).values() for work_id, digest in item.digests.items()
        }

    def objects(self, model: str, uris: Sequence[str] | None = None) -> dict[str, LoadedObject]:
        """See Warehouse."""
        with self.transaction():
            return self._objects(model, uris)

    def count(self, work_ids: Sequence[str]) -> Counts:
        """See Warehouse."""
        scope = Scope(None, work_ids)
        with self.transaction():
            if not self.columns(self.scores):
                return Counts(0, 0)
            scored, rejected = (
                self.query(f"SELECT count(*) FROM {table.sql} {scope.where}", *scope.values)[0][0]
                for table in (self.scores, self.rejects)
            )
        return Counts(scored, rejected)

    def summary(
        self,
        labels: Sequence[str],
        *,
        model: str | None = None,
        work_ids: Sequence[str] | None = None,
        strongest: Sequence[str] | None = None,
        top: int = 1,
    ) -> Summary:
        """See Warehouse."""
        scope = Scope(model, work_ids)
        with self.transaction():
            return summarise(
                self.query, self.scores, self.rejects, scope, labels, labels if strongest is None else strongest, top
            )

    def record_run(self, row: RunRow) -> None:
        """See Warehouse."""
        values = {name: getattr(row, name) for name in RUNS.names}
        values["label_means"] = json.dumps(dict(row.label_means), ensure_ascii=False)
        values["details"] = json.dumps(dict(row.details), ensure_ascii=False)
        with self.transaction(lock=[f"runs {self.scores}"]):
            self.execute(f"DELETE FROM {self.runs_table.sql} WHERE run_id = $1", row.run_id)
            rows = one_row(RUNS, values)
            self.append(self.runs_table, pa.RecordBatchReader.from_batches(RUNS, [rows]))

    def runs(self, model: str | None = None) -> list[RunRow]:
        """See Warehouse."""
        where, values = ("", ()) if model is None else ("WHERE model = $1", (model,))
        columns = ", ".join(RUNS.names)
        sql = f"SELECT {columns} FROM {self.runs_table.sql} {where} ORDER BY started_at DESC, run_id"
        with self.transaction():
            rows = self.query(sql, *values) if self.columns(self.runs_table) else []
        return [_run_row(dict(zip(RUNS.names, row, strict=True))) for row in rows]

    def changed_at(self, run_id: str) -> datetime | None:
        """See Warehouse."""
        sql = f"SELECT max(loaded_at) FROM {self.ledger_table.sql} WHERE run_id = $1"
        with self.transaction():
            found = self.query(sql, run_id) if self.columns(self.ledger_table) else []
        return found[0][0] if found else None


def _run_row(values: dict[str, Any]) -> RunRow:
    values["label_means"] = json.loads(values["label_means"])
    values["details"] = json.loads(values["details"])
    return RunRow(**values)
