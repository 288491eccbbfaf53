"""A run: one manifest on its way into one table, as files in the work location.

    manifests/<id>.parquet             the frozen partitions
    parts/<aa>/<work id>-<try>.parquet scores, one file an attempt
    receipts/<aa>/<work id>.json       which part counts
    runs/<run id>/                     run, findings, checked, load, report (.json), score/<attempt>.json, report.html

The run id is derived from manifest and table, so the same work has the same run, whoever starts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Self

import orjson

from corpuscore.addresses import shown
from corpuscore.errors import JobError
from corpuscore.job import Job
from corpuscore.manifest import Manifest
from corpuscore.records import Receipt, digest, receipt_key
from corpuscore.storage import Store, canonical_uri

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
        key = f"runs/{run_id}/run.json"
        first = {"created_at": now, "started_at": now, "planned_at": planned_at.isoformat()}
        earlier = orjson.loads(store.read(key)) if store.exists(key) else first
        facts = {
            "run_id": run_id,
            "created_at": earlier["created_at"],
            "started_at": now if cls(store, run_id, earlier).is_loaded else earlier["started_at"],
            "planned_at": max(planned_at, _planned_at(earlier)).isoformat(),
            "manifest": manifest.id,
            "corpus": [canonical_uri(uri) for uri in job.corpus],
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
                f"There is no run at {shown(uri)!r}",
                rule="A run is WORK/runs/RUN_ID, with a run.json in it",
                next_step="take the address that `corpuscore run` or `corpuscore plan` printed",
            )
        return cls(store, run_id, orjson.loads(store.read(key)))

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

    def _listed(self, folder: str, work_ids: Sequence[str]) -> set[str]:
        return {key for prefix in _prefixes(folder, work_ids) for key in self.store.find(prefix)}

    def receipts(self) -> dict[str, Receipt]:
        """The receipts that are there, by work id."""
        return self._read_receipts(self.manifest.work_ids)

    def _read_receipts(self, work_ids: Sequence[str]) -> dict[str, Receipt]:
        listed = self._listed("receipts", work_ids)
        bodies = self.store.read_many([key for key in map(receipt_key, work_ids) if key in listed])
        receipts = (Receipt.from_json(orjson.loads(body)) for body in bodies.values())
        return {receipt.work_id: receipt for receipt in receipts}

    def withdraw(self, work_ids: Sequence[str]) -> None:
        """Take receipts back whose parts are missing or damaged, so that the work is pending again."""
        self.store.delete([receipt_key(work_id) for work_id in work_ids])

    def sweep(self, receipts: Mapping[str, Receipt]) -> int:
        """Delete the parts of this run's work ids that nothing names or will name: what a crash left behind.

        An attempt writes its part and then the receipt, which, where the store cannot create exclusively, takes the
        place of the one that is there. So no receipt proves that a part is not about to count: one that is younger than
        any attempt may be stays, and of an older one the receipt is read again after the parts were listed.

        Args:
            receipts: As they were; only the work ids whose part was another one are looked at again.

        Returns:
            Parts deleted.
        """
        work_ids = self.manifest.work_ids
        old = [key for prefix in _prefixes("parts", work_ids) for key in self.store.find_older(prefix, _STRAGGLER_AGE)]
        unnamed = _named_otherwise(old, receipts)
        orphans = _named_otherwise(unnamed, self._read_receipts(sorted(set(map(_work_id_of, unnamed)))))
        self.store.delete(orphans)
        return len(orphans)


def _prefixes(folder: str, work_ids: Sequence[str]) -> list[str]:
    """What to list for these work ids: the folder for many; for few, only the shards that they are in."""
    shards = {work_id[:2] for work_id in work_ids}
    return [f"{folder}/"] if len(shards) > 64 else [f"{folder}/{shard}/" for shard in sorted(shards)]


def _work_id_of(part: str) -> str:
    return part.rpartition("/")[2].partition("-")[0]


def _named_otherwise(parts: Sequence[str], receipts: Mapping[str, Receipt]) -> list[str]:
    """Parts whose work id has a receipt that names another."""
    return [part for part in parts if (receipt := receipts.get(_work_id_of(part))) and receipt.part != part]


def _planned_at(facts: Mapping[str, Any]) -> datetime:
    """Of run.json; one that was written before plans had a time started its round when it was planned."""
    return datetime.fromisoformat(facts.get("planned_at", facts["started_at"]))
