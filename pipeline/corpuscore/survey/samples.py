"""Bounded pieces of many objects, evenly over the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from corpuscore.corpus import CorpusObject, DocumentReader, split, spread
from corpuscore.errors import CorpusError
from corpuscore.job import Job
from corpuscore.options import ReadOptions
from corpuscore.records import Finding, Partition

MOST = 64  # partitions, and objects, of which a beginning is read
DOCUMENTS = 256  # of each


@dataclass(slots=True)
class Sample:
    """The beginning of one partition.

    Attributes:
        partition: Where it was read.
        whole: Whether it was all of the partition, and the partition all of its object.
        ids: Of all documents read, None where they are made from the position.
        texts: Of those that can be scored.
        reasons: Of those that cannot, by reason; with the first one's id and detail in `examples`.
        examples: By reason.
        kept: Arrow types of the kept columns, by name.
    """

    partition: Partition
    whole: bool = False
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


def take_sample(
    objects: Sequence[CorpusObject], job: Job, samples: list[Sample]
) -> Iterator[Finding | tuple[str, Any]]:
    """Cut the corpus as a plan would, and read the beginnings of some partitions into `samples`.

    Raises:
        CorpusError, JobError: What would stop the plan.
    """
    partitions = list(split(objects, job.partition_rows, job.reading))
    yield "partitions", len(partitions)
    chosen = spread(partitions, MOST)
    for partition in chosen:
        try:
            samples.append(_read(partition, job.reading))
        except CorpusError as error:
            yield Finding("unreadable", "error", str(error), {"object": partition.uri})
    read = sum(len(sample.ids) for sample in samples)
    exact = len(chosen) == len(partitions) and all(sample.whole for sample in samples)
    yield "documents looked at", f"{read:,}, all of them" if exact else f"{read:,} of {len(chosen):,} partitions"


def _read(partition: Partition, reading: ReadOptions) -> Sample:
    sample = Sample(partition)
    with DocumentReader(partition, reading, batch_rows=DOCUMENTS) as reader:
        sample.kept = {field.name: str(field.type) for field in reader.kept_schema}
        batches = list(islice(reader, 2))
    sample.whole = len(batches) < 2
    for batch in batches[:1]:
        sample.ids = batch.column("document_id").to_pylist()
        sample.texts = batch.column("text").drop_null().to_pylist()
        rows = zip(sample.ids, batch.column("reason").to_pylist(), batch.column("detail").to_pylist(), strict=True)
        for document_id, reason, detail in rows:
            if reason is not None:
                sample.reasons[reason] = sample.reasons.get(reason, 0) + 1
                sample.examples.setdefault(reason, f"{document_id}: {detail or reason}")
    return sample
