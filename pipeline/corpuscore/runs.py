"""A run: one manifest on its way into one table, as files in the work location.

    manifests/<id>.parquet             the frozen partitions
    parts/<aa>/<work id>-<try>.parquet scores, one file an attempt
    receipts/<aa>/<work id>.json       which part counts
    runs/<run id>/                     run, findings, checked, load, score/<attempt> (.json)
    runs/<run id>/reports/<start>      what each execution came to (.json, .html)

The run id is derived from manifest and table, so the same work has the same run, whoever starts it.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, Self

from corpuscore.addresses import shown
from corpuscore.errors import DamagedDocument, MissingDocument
from corpuscore.job import Job
from corpuscore.manifest import Manifest
from corpuscore.receipts import Receipts, read_receipts
from corpuscore.records import CheckedPart, Receipt, digest, receipt_key
from corpuscore.rundocuments import checked_of, document_of, facts_of
from corpuscore.storage import (
    Store,
    canonical_uri,
    delete_leftovers,
    find_entry,
    read_document,
    read_documents,
    write_document,
)

log = logging.getLogger(__name__)

Chunk = tuple[int, int]

#: Longer than an attempt may take from its part to its receipt, which is two requests and their retries.
_STRAGGLER_AGE = timedelta(days=1)


class Run:
    """Handle on the folder of one run.

    Attributes:
        store: The work location.
        id: 12 hex digits.
        facts: run.json: job, corpus, manifest id, when it was created, when its present round started, when it was
            planned last. A round ends with the load; planning the same work again starts the next one, which usually
            finds nothing to do.
    """

    def __init__(self, store: Store, run_id: str, facts: dict[str, Any]) -> None:
        self.store = store
        self.id = run_id
        self.facts = facts

    @classmethod
    def create(cls, job: Job, manifest: Manifest, store: Store, planned_at: datetime) -> Self:
        """The run of this manifest into the job's table; an earlier one is adopted and takes the new options over."""
        run_id = digest([manifest.id, shown(job.warehouse), job.table])[:12]
        now = datetime.now(UTC).isoformat()
        first = {"created_at": now, "started_at": now, "planned_at": planned_at.isoformat()}
        earlier = _earlier_facts(store, run_id) or first
        facts = {
            "run_id": run_id,
            "created_at": earlier["created_at"],
            "started_at": now if cls(store, run_id, earlier).is_loaded else earlier["started_at"],
            "planned_at": max(planned_at, _planned_at(earlier)).isoformat(),
            "manifest": manifest.id,
            "corpus": [canonical_uri(uri) for uri in job.corpus],
            "job": job.without_secrets().model_dump(mode="json"),
            "asked_by": _asked_by(),
        }
        write_document(store, _key(run_id, "run"), facts)
        run = cls(store, run_id, facts)
        run.__dict__["manifest"] = manifest
        return run

    @classmethod
    def open(cls, uri: str) -> Self:
        """The run whose folder is at a URI.

        Raises:
            MissingDocument: There is no run, or not any more.
            DamagedDocument: Its run.json is not what was written.
        """
        work, slash, run_id = uri.rstrip("/").rpartition("/runs/")
        store = Store(work)
        try:
            facts = read_document(store, _key(run_id, "run"), partial(facts_of, run_id)) if slash else None
        except DamagedDocument as error:
            step = "plan again with the same arguments, which makes it anew; work that is done stays done"
            raise DamagedDocument(error.value, rule=error.rule, next_step=step) from error
        if facts is None:
            raise MissingDocument(
                f"There is no run at {shown(uri)!r}",
                rule="A run is WORK/runs/RUN_ID, with a run.json in it",
                next_step="correct the address, or run the same again, which plans it anew and does what is left",
            )
        return cls(store, run_id, facts)

    @property
    def uri(self) -> str:
        """Address of the run's folder."""
        return self.store.uri_of(f"runs/{self.id}")

    @property
    def planned_at(self) -> datetime:
        """When the corpus was listed last, by the clock of the work location: what orders versions of an object."""
        return _planned_at(self.facts)

    @property
    def corpus(self) -> list[str]:
        """What was listed: canonical URIs, so that a relative one means the folder in which it was planned."""
        return list(self.facts.get("corpus", ()))  # none in runs of older versions, until they are planned again

    @cached_property
    def job(self) -> Job:
        """The job as it was planned last, without the warehouse's password."""
        return Job.build(self.facts["job"])

    @cached_property
    def manifest(self) -> Manifest:
        """The frozen partitions."""
        return Manifest.load(self.store, self.facts["manifest"])

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON document of the run, or None where its stage has not ended yet; a damaged one is named in the log."""
        try:
            return read_document(self.store, _key(self.id, name), partial(document_of, name))
        except DamagedDocument as error:
            _warn(error)
            return None

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON document of the run."""
        write_document(self.store, _key(self.id, name), value)

    def read_checked(self) -> list[CheckedPart] | None:
        """What validation checked, as load takes it; None where it has not, or has found errors since.

        Raises:
            DamagedDocument: The list is not the one that was written.
        """
        return read_document(self.store, _key(self.id, "checked"), partial(checked_of, self.manifest.work_ids))

    def write_checked(self, parts: Sequence[CheckedPart]) -> None:
        """Hand to load what was checked."""
        self.write("checked", {"parts": [asdict(part) for part in parts]})

    def forget_checked(self) -> None:
        """Take back what was checked before: nothing of it may be loaded until it is checked again."""
        self.store.delete([_key(self.id, "checked")])

    @property
    def is_loaded(self) -> bool:
        """Whether the present round has been loaded."""
        loaded = self.read("load")
        return loaded is not None and loaded["started_at"] == self.facts["started_at"]

    def write_score(self, attempt: str, summary: dict[str, Any]) -> None:
        """Add what one call of score did to the present round."""
        self.write(f"score/{attempt}", {**summary, "started_at": self.facts["started_at"]})

    def read_scores(self) -> list[dict[str, Any]]:
        """What the calls of score did in the present round."""
        listed = self.store.find(f"runs/{self.id}/score/")
        found, damaged = read_documents(self.store, dict.fromkeys(listed, partial(document_of, "score")))
        for error in damaged.values():
            _warn(error)
        return [item for item in found.values() if item["started_at"] == self.facts["started_at"]]

    @property
    def report_name(self) -> str:
        """Of the present round's report; each has its own, so that none takes the place of an earlier one."""
        return f"reports/{datetime.fromisoformat(self.facts['started_at']):%Y%m%dT%H%M%S.%f}"

    def pages(self) -> list[str]:
        """Keys of the reports' pages, the oldest first."""
        return [key for key in self.store.find(f"runs/{self.id}/reports/") if key.endswith(".html")]

    def pending(self, chunk: Chunk | None = None) -> list[int]:
        """Indexes of the partitions (of a chunk) that have no receipt whose part is there."""
        start, stop = chunk or (0, len(self.manifest))
        return [start + at for at in pending_of(self.store, self.manifest.work_ids[start:stop])]

    def receipts(self) -> Receipts:
        """The receipts that are there."""
        return read_receipts(self.store, self.manifest.work_ids)

    def withdraw(self, work_ids: Sequence[str]) -> None:
        """Take receipts back whose parts are missing or damaged, so that the work is pending again."""
        self.store.delete([receipt_key(work_id) for work_id in work_ids])

    def sweep(self, receipts: Mapping[str, Receipt]) -> int:
        """Delete what crashes left behind: drafts, open uploads, and parts that nothing names or will name.

        An attempt writes its part and then the receipt, which, where the store cannot create exclusively, takes the
        place of the one that is there. So no receipt proves that a part is not about to count: one that is younger than
        any attempt may be stays, and of an older one the receipt is read again after the parts were listed.

        Args:
            receipts: As they were; only the work ids whose part was another one are looked at again.

        Returns:
            How much was deleted.
        """
        work_ids = self.manifest.work_ids
        old = [key for prefix in _prefixes("parts", work_ids) for key in self.store.find_older(prefix, _STRAGGLER_AGE)]
        unnamed = _named_otherwise(old, receipts)
        orphans = _named_otherwise(unnamed, read_receipts(self.store, sorted(set(map(_work_id_of, unnamed)))).found)
        self.store.delete(orphans)
        folders = [prefix for folder in ("parts", "receipts") for prefix in _prefixes(folder, work_ids)]
        prefixes = [*folders, f"runs/{self.id}/", "manifests/"]
        return len(orphans) + delete_leftovers(self.store, prefixes, _STRAGGLER_AGE)


def pending_of(store: Store, work_ids: Sequence[str]) -> list[int]:
    """Places of the work ids that have no receipt whose part is there."""
    receipts, parts = _listed(store, "receipts", work_ids), _listed(store, "parts", work_ids)
    stems = {key.rpartition("-")[0] for key in parts}
    return [
        at
        for at, work_id in enumerate(work_ids)
        if receipt_key(work_id) not in receipts or f"parts/{work_id[:2]}/{work_id}" not in stems
    ]


def _listed(store: Store, folder: str, work_ids: Sequence[str]) -> set[str]:
    return {key for prefix in _prefixes(folder, work_ids) for key in store.find(prefix)}


def _prefixes(folder: str, work_ids: Sequence[str]) -> list[str]:
    """What to list for these work ids: the folder for many; for few, only the shards that they are in."""
    shards = {work_id[:2] for work_id in work_ids}
    return [f"{folder}/"] if len(shards) > 64 else [f"{folder}/{shard}/" for shard in sorted(shards)]


def _work_id_of(part: str) -> str:
    return part.rpartition("/")[2].partition("-")[0]


def _named_otherwise(parts: Sequence[str], receipts: Mapping[str, Receipt]) -> list[str]:
    """Parts whose work id has a receipt that names another."""
    return [part for part in parts if (receipt := receipts.get(_work_id_of(part))) and receipt.part != part]


def _key(run_id: str, name: str) -> str:
    return f"runs/{run_id}/{name}.json"


def _asked_by() -> str:
    """Who plans this, and where; in Airflow, for which of its runs."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in many containers
        user = str(os.getuid())
    dag, run = (os.environ.get(f"AIRFLOW_CTX_{name}") for name in ("DAG_ID", "DAG_RUN_ID"))
    return f"{user}@{socket.gethostname()}{f', Airflow {dag} {run}' if dag and run else ''}"


def _warn(error: DamagedDocument) -> None:
    log.warning("%s. It counts as not there.", error.value)


def _earlier_facts(store: Store, run_id: str) -> dict[str, Any] | None:
    """What run.json said before. Of a damaged one, its own age is left: it had been planned by then."""
    key = _key(run_id, "run")
    try:
        return read_document(store, key, partial(facts_of, run_id))
    except DamagedDocument as error:
        log.warning("%s. It is made again.", error.value)
        entry = find_entry(store.uri_of(key))
        now = datetime.now(UTC)
        written = entry.modified if entry and entry.modified else now
        return {"created_at": written.isoformat(), "started_at": now.isoformat(), "planned_at": written.isoformat()}


def _planned_at(facts: Mapping[str, Any]) -> datetime:
    """Of run.json; one that was written before plans had a time started its round when it was planned."""
    return datetime.fromisoformat(facts.get("planned_at", facts["started_at"]))
