"""A run: one manifest on its way into one table, as files in the work location.

    manifests/<id>.parquet             the frozen partitions
    parts/<aa>/<work id>-<try>.parquet scores, one file an attempt
    receipts/<aa>/<work id>.json       which part counts
    runs/<run id>/                     run, findings, checked, load, report (.json), score/<attempt>.json, report.html

The run id is derived from manifest and table, so the same work has the same run, whoever starts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

import orjson

from corpuscore.addresses import shown
from corpuscore.errors import JobError
from corpuscore.job import Job
from corpuscore.manifest import Manifest
from corpuscore.records import Receipt, digest, receipt_key
from corpuscore.storage import Store

Chunk = tuple[int, int]


class Run:
    """Handle on the folder of one run.

    Attributes:
        store: The work location.
        id: 12 hex digits.
        facts: run.json: job, manifest id, when it was created, when its present round started. A round ends with the
            load; planning the same work again starts the next one, which usually finds nothing to do.
    """

    def __init__(self, store: Store, run_id: str, facts: dict[str, Any]) -> None:
        self.store = store
        self.id = run_id
        self.facts = facts

    @classmethod
    def create(cls, job: Job, manifest: Manifest, store: Store) -> Self:
        """The run of this manifest into the job's table; an earlier one is adopted and takes the new options over."""
        run_id = digest([manifest.id, shown(job.warehouse), job.table])[:12]
        now = datetime.now(UTC).isoformat()
        key = f"runs/{run_id}/run.json"
        earlier = orjson.loads(store.read(key)) if store.exists(key) else {"created_at": now, "started_at": now}
        facts = {
            "run_id": run_id,
            "created_at": earlier["created_at"],
            "started_at": now if cls(store, run_id, earlier).is_loaded else earlier["started_at"],
            "manifest": manifest.id,
            "job": job.without_secrets().model_dump(mode="json"),
        }
        store.write(key, orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        run = cls(store, run_id, facts)
        run.__dict__["manifest"] = manifest
        return run

    @classmethod
    def open(cls, uri: str) -> Self:
        """The run whose folder is at a URI.

        Raises:
            JobError: There is no run.
        """
        work, slash, run_id = uri.rstrip("/").rpartition("/runs/")
        store = Store(work)
        key = f"runs/{run_id}/run.json"
        if not slash or not store.exists(key):
            raise JobError(
                f"There is no run at {uri!r}",
                rule="A run is WORK/runs/RUN_ID, with a run.json in it",
                next_step="take the address that `corpuscore run` or `corpuscore plan` printed",
            )
        return cls(store, run_id, orjson.loads(store.read(key)))

    @property
    def uri(self) -> str:
        """Address of the run's folder."""
        return self.store.uri_of(f"runs/{self.id}")

    @cached_property
    def job(self) -> Job:
        """The job as it was planned last, without the warehouse's password."""
        return Job.build(self.facts["job"])

    @cached_property
    def manifest(self) -> Manifest:
        """The frozen partitions."""
        return Manifest.load(self.store, self.facts["manifest"])

    def read(self, name: str) -> Any | None:
        """A JSON file of the run, or None where its stage has not ended yet."""
        key = f"runs/{self.id}/{name}.json"
        return orjson.loads(self.store.read(key)) if self.store.exists(key) else None

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run."""
        self.store.write(f"runs/{self.id}/{name}.json", orjson.dumps(value, option=orjson.OPT_INDENT_2))

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
        found = [orjson.loads(body) for body in self.store.read_many(list(listed)).values()]
        return [item for item in found if item["started_at"] == self.facts["started_at"]]

    def pending(self, chunk: Chunk | None = None) -> list[int]:
        """Indexes of the partitions (of a chunk) that have no receipt whose part is there."""
        start, stop = chunk or (0, len(self.manifest))
        work_ids = self.manifest.work_ids[start:stop]
        receipts = self._listed("receipts", work_ids)
        parts = {key.rpartition("-")[0] for key in self._listed("parts", work_ids)}
        return [
            start + at
            for at, work_id in enumerate(work_ids)
            if receipt_key(work_id) not in receipts or f"parts/{work_id[:2]}/{work_id}" not in parts
        ]

    def _listed(self, folder: str, work_ids: Sequence[str]) -> dict[str, int]:
        """One listing for many work ids; for few, only the shards that they are in."""
        shards = {work_id[:2] for work_id in work_ids}
        if len(shards) > 64:
            return self.store.find(f"{folder}/")
        return {key: size for shard in shards for key, size in self.store.find(f"{folder}/{shard}/").items()}

    def receipts(self) -> dict[str, Receipt]:
        """The receipts that are there, by work id."""
        listed = self._listed("receipts", self.manifest.work_ids)
        keys = [key for key in map(receipt_key, self.manifest.work_ids) if key in listed]
        bodies = self.store.read_many(keys)
        receipts = (Receipt.from_json(orjson.loads(body)) for body in bodies.values())
        return {receipt.work_id: receipt for receipt in receipts}

    def withdraw(self, work_ids: Sequence[str]) -> None:
        """Take receipts back whose parts are missing or damaged, so that the work is pending again."""
        self.store.delete([receipt_key(work_id) for work_id in work_ids])

    def sweep(self, receipts: Mapping[str, Receipt]) -> int:
        """Delete the parts of this run's work ids that no receipt names: what lost a race or was left by a crash.

        Only after the load; an attempt that is still under way finds the receipt and takes it over.
        """
        listed = self._listed("parts", self.manifest.work_ids)
        orphans = [
            key
            for key in listed
            if (receipt := receipts.get(key.rpartition("/")[2].partition("-")[0])) and receipt.part != key
        ]
        self.store.delete(orphans)
        return len(orphans)
