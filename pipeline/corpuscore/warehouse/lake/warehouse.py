"""A Warehouse of files: look at the newest state, decide, write files that nobody sees yet, and commit in one swap.

Nobody waits for a lock. Whoever finds at the commit that another writer was quicker looks again and decides anew; the
files that were written are used again. A commit whose answer was lost is found in the ledger, as in any warehouse.
"""

from __future__ import annotations

import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.errors import WarehouseBusy, WarehouseError
from corpuscore.options import TableOptions
from corpuscore.records import CheckedPart
from corpuscore.warehouse.lake.state import Change, is_one_of, known_objects
from corpuscore.warehouse.lake.summary import Figures
from corpuscore.warehouse.names import TableName
from corpuscore.warehouse.protocol import Counts, LoadBatch, LoadSummary, RunRow, Summary
from corpuscore.warehouse.tables import (
    LISTED,
    RUNS,
    check_names,
    differences,
    ledger_rows,
    missing_kept,
    other_schema,
    rejects_schema,
    scores_schema,
    threshold_words,
)
from corpuscore.warehouse.versions import LoadedObject, compare, find_outdated, gone_id

Role = Literal["scores", "rejects"]
State = TypeVar("State")
_Result = TypeVar("_Result")

#: So often a change is decided anew at once where another writer was quicker; after that it is a call that failed.
_TRIES = 10
_LONGEST_PAUSE_SECONDS = 0.2


class LakeWarehouse(ABC, Generic[State]):
    """What warehouses of files share. A backend has a state: all that one moment of the tables is."""

    def __init__(self, table: str, options: TableOptions) -> None:
        self.table, self.options = TableName.parse(table), options
        self._staged: dict[tuple[str, str], Any] = {}

    @abstractmethod
    def _look(self) -> State | None:
        """The newest state; None where the tables are not there."""

    @abstractmethod
    def _create(self, schemas: Mapping[Role, pa.Schema], listed: str) -> None:
        """Make the tables, unless another writer just did."""

    @abstractmethod
    def _extend(self, state: State, schemas: Mapping[Role, pa.Schema]) -> bool:
        """Give the tables these columns, more than they have; False where another writer was quicker."""

    @abstractmethod
    def _columns(self, state: State, role: Role) -> dict[str, str]:
        """Type by column name, spelled as _type_name does."""

    @abstractmethod
    def _type_name(self, kind: pa.DataType) -> str:
        """The name of a stored type."""

    @abstractmethod
    def _listed(self, state: State) -> str:
        """What the column of labels lists, in words; empty where there is none."""

    @abstractmethod
    def _ledger(self, state: State) -> pa.Table:
        """The ledger, with LEDGER's columns first."""

    @abstractmethod
    def _stage(self, state: State, batch: LoadBatch, parts: Sequence[CheckedPart]) -> list[Any]:
        """Write the rows of parts to files that are in no table yet; what the commit needs of each part."""

    @abstractmethod
    def _commit(self, state: State, change: Change) -> bool:
        """Carry a change out, whole; False where another writer was quicker, and nothing is done."""

    @abstractmethod
    def _count_rows(self, state: State, role: Role, work_ids: Sequence[str]) -> int:
        """Rows of these work ids, counted in the table."""

    @abstractmethod
    def _rows(
        self, state: State, role: Role, columns: Sequence[str], model: str | None, work_ids: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        """Some columns of the rows of a model and of these work ids."""

    @abstractmethod
    def _read_runs(self, state: State) -> pa.Table:
        """All rows of the runs table."""

    @abstractmethod
    def _write_run(self, state: State, row: pa.Table) -> bool:
        """Insert or replace the row of a run; False where another writer was quicker."""

    def prepare(self, labels: Sequence[str], kept: pa.Schema) -> None:
        """See Warehouse."""
        check_names(labels, kept, options=self.options)
        schemas: dict[Role, pa.Schema] = {
            "scores": scores_schema(labels, kept, self.options),
            "rejects": rejects_schema(kept),
        }
        if self._look() is None:
            self._create(schemas, threshold_words(self.options))
        self._attempt(lambda state: (None, self._conform(state, schemas, kept.names)))

    def _conform(self, state: State, schemas: Mapping[Role, pa.Schema], kept: Sequence[str]) -> bool:
        wanted = {role: {field.name: self._type_name(field.type) for field in schemas[role]} for role in schemas}
        problems = [problem for role in wanted if (problem := self._difference(state, role, wanted[role], kept))]
        if problems:
            raise other_schema(problems)
        lacking = any(missing_kept(self._columns(state, role), wanted[role], kept) for role in wanted)
        return not lacking or self._extend(state, schemas)

    def check(self, labels: Sequence[str], kept_names: Sequence[str]) -> None:
        """See Warehouse."""
        check_names(labels, pa.schema([(name, pa.string()) for name in kept_names]), options=self.options)
        state = self._look()
        if state is None:
            return
        found = self._columns(state, "scores")
        columns = scores_schema(labels, pa.schema([]), self.options)
        wanted = {field.name: self._type_name(field.type) for field in columns}
        wanted |= {name: found.get(name, "kept column") for name in kept_names}
        if problem := self._difference(state, "scores", wanted, kept_names):
            raise other_schema([problem])

    def _difference(self, state: State, role: Role, wanted: dict[str, str], kept: Sequence[str]) -> str:
        found = self._columns(state, role)
        if missing_kept(found, wanted, kept):
            return ""
        problems, words = differences(found, wanted), threshold_words(self.options)
        if role == "scores" and not problems and (other := self._listed(state)) != words:
            problems = [f"{LISTED} holds {other!r} instead of {words!r}"]
        name = self.table if role == "scores" else self.table.beside(role)
        return f"Table {name} has another schema: {', '.join(problems)}" if problems else ""

    def load(self, batch: LoadBatch) -> LoadSummary:
        """See Warehouse."""
        summary = self._change(lambda state: self._decide_load(state, batch))
        self._staged.clear()
        return summary

    def _decide_load(self, state: State, batch: LoadBatch) -> tuple[Change, LoadSummary]:
        uris = sorted({part.uri for part in batch.parts})
        ledger = self._ledger(state)
        known = known_objects(ledger, batch.model, uris)
        outdated = find_outdated(batch.parts, known, batch.planned_at)
        parts = [part for part in batch.parts if part.uri not in outdated]
        current = {uri: item for uri, item in known.items() if uri not in outdated}
        fresh, stale = compare(parts, current.values())
        same = {part.work_id for part in parts} - {part.work_id for part in fresh}
        change = Change(
            planned_at=batch.planned_at,
            deleted=frozenset(stale),
            cleared=frozenset(gone_id(batch.model, uri) for uri, item in current.items() if item.gone),
            confirmed=frozenset(_older(ledger, same, batch.planned_at)),
            entries=ledger_rows(fresh, batch.run_id, batch.model, batch.planned_at),
            files=self._files(state, batch, fresh),
        )
        return change, LoadSummary(
            rows_loaded=sum(part.scored for part in fresh),
            rejects_loaded=sum(part.rejected for part in fresh),
            work_ids_loaded=len(fresh),
            work_ids_skipped=len(same),
            rows_superseded=_documents(ledger, change.deleted),
            outdated=tuple(sorted(outdated)),
        )

    def _files(self, state: State, batch: LoadBatch, parts: Sequence[CheckedPart]) -> dict[str, Any]:
        """What holds the rows of each part; written once, however often the commit is tried."""
        missing = [part for part in parts if (part.work_id, part.digest) not in self._staged]
        staged = self._stage(state, batch, missing) if missing else []
        self._staged.update(((part.work_id, part.digest), files) for part, files in zip(missing, staged, strict=True))
        return {part.work_id: self._staged[part.work_id, part.digest] for part in parts}

    def remove(self, run_id: str, model: str, uris: Sequence[str], planned_at: datetime) -> int:
        """See Warehouse."""

        def decide(state: State) -> tuple[Change, int]:
            ledger = self._ledger(state)
            known = known_objects(ledger, model, uris)
            older = {uri: item for uri, item in known.items() if item.is_older(planned_at)}
            leaving = [CheckedPart(gone_id(model, uri), uri, "", "", 0, 0) for uri in older if not older[uri].gone]
            change = Change(
                planned_at=planned_at,
                deleted=frozenset(work_id for item in older.values() for work_id in item.digests),
                confirmed=frozenset(gone_id(model, uri) for uri, item in older.items() if item.gone),
                entries=ledger_rows(leaving, run_id, model, planned_at),
            )
            return change, _documents(ledger, change.deleted)

        return self._change(decide) if self._look() is not None else 0

    def _change(self, decide: Callable[[State], tuple[Change, _Result]]) -> _Result:
        def attempt(state: State) -> tuple[_Result, bool]:
            change, result = decide(state)
            return result, change.is_empty or self._commit(state, change)

        return self._attempt(attempt)

    def _attempt(self, attempt: Callable[[State], tuple[_Result, bool]]) -> _Result:
        """Try on the newest state, again and again while other writers are quicker."""
        for _ in range(_TRIES):
            state = self._look()
            if state is None:
                raise WarehouseError(f"Table {self.table} is not there", next_step="load again, which makes it")
            result, done = attempt(state)
            if done:
                return result
            time.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))
        raise WarehouseBusy(
            f"Table {self.table}: other writers were quicker {_TRIES} times", next_step="wait until they are done"
        )

    def ledger(self, model: str, uris: Sequence[str] | None = None) -> dict[str, str]:
        """See Warehouse."""
        return {
            work_id: digest for item in self.objects(model, uris).values() for work_id, digest in item.digests.items()
        }

    def objects(self, model: str, uris: Sequence[str] | None = None) -> dict[str, LoadedObject]:
        """See Warehouse."""
        state = self._look()
        return {} if state is None else known_objects(self._ledger(state), model, uris)

    def count(self, work_ids: Sequence[str]) -> Counts:
        """See Warehouse."""
        state = self._look()
        if state is None:
            return Counts(0, 0)
        return Counts(self._count_rows(state, "scores", work_ids), self._count_rows(state, "rejects", work_ids))

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
        figures = Figures(labels, labels if strongest is None else strongest, top)
        if (state := self._look()) is not None:
            for rows in self._rows(state, "scores", figures.columns, model, work_ids):
                figures.add(rows)
            for rows in self._rows(state, "rejects", ["reason", "status"], model, work_ids):
                figures.add_rejects(rows)
        return figures.summary()

    def record_run(self, row: RunRow) -> None:
        """See Warehouse."""
        values = {name: getattr(row, name) for name in RUNS.names}
        values["label_means"] = json.dumps(dict(row.label_means), ensure_ascii=False)
        values["details"] = json.dumps(dict(row.details), ensure_ascii=False)
        table = pa.Table.from_pylist([values], schema=RUNS)
        self._attempt(lambda state: (None, self._write_run(state, table)))

    def runs(self, model: str | None = None) -> list[RunRow]:
        """See Warehouse."""
        state = self._look()
        if state is None:
            return []
        found = self._read_runs(state).sort_by([("started_at", "descending"), ("run_id", "ascending")])
        rows = found.filter(pc.equal(found["model"], model)) if model is not None else found
        return [_run_row(values) for values in rows.to_pylist()]

    def changed_at(self, run_id: str) -> datetime | None:
        """See Warehouse."""
        state = self._look()
        if state is None:
            return None
        ledger = self._ledger(state)
        latest: datetime | None = pc.max(ledger.filter(pc.equal(ledger["run_id"], run_id))["loaded_at"]).as_py()
        return latest

    def close(self) -> None:
        """See Warehouse."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _documents(ledger: pa.Table, work_ids: Iterable[str]) -> int:
    """Rows and rejects of work ids."""
    found = ledger.filter(is_one_of(ledger["work_id"], work_ids))
    return int(pc.sum(pc.add(found["scored"], found["rejected"])).as_py() or 0)


def _older(ledger: pa.Table, work_ids: Iterable[str], planned_at: datetime) -> list[str]:
    """Of work ids that are loaded, those that no plan of this time or a later one has seen."""
    found = ledger.filter(is_one_of(ledger["work_id"], work_ids))
    older = pc.less(found["planned_at"], pa.scalar(planned_at, pa.timestamp("us", "UTC")))
    return list(found.filter(older)["work_id"].to_pylist())


def _run_row(values: dict[str, Any]) -> RunRow:
    return RunRow(
        **{**values, "label_means": json.loads(values["label_means"]), "details": json.loads(values["details"])}
    )
