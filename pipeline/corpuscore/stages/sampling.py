"""Sample: a few documents from all over a corpus, as a corpus of its own, for a first look at the scores.

    corpus -> WORK/samples/<16 digits: corpus and options>/corpus/sample.parquet -> a job like any other

The sample has its own work location and its own table beside the real one, so nothing of it counts as scored in an
earnest run, and no row of it stands among that run's.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpuscore.corpus import DocumentReader, KeptColumns, check_apart, list_objects, split, spread
from corpuscore.errors import CorpusError
from corpuscore.job import Job, section_of
from corpuscore.records import Partition, digest
from corpuscore.storage import Store, canonical_uri

#: Partitions from which documents are taken first; others follow where these have too few.
_PARTITIONS = 64

#: Of a sample: the texts, and the ids that the documents have in the corpus. Kept columns come after them.
_TEXT, _ID = "text", "document_id"

#: Sections of a job that say how its corpus is read; the sample is read as it was written here.
_OF_THE_CORPUS = ("Corpus", "Reading")

#: What a table of a sample is called, after the name of the real one.
SUFFIX = "_sample"


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sample, and what to do with it.

    Attributes:
        job: Scores it into a table of its own.
        documents, objects: That it has, and of how many objects.
        rejects: That were met on the way, and are left out.
    """

    job: Job
    documents: int
    objects: int
    rejects: int


def sample(job: Job, limit: int) -> Sampled:
    """Copy some documents of a job's corpus, evenly from all over it.

    Args:
        job: The job.
        limit: Documents at the most.

    Raises:
        CorpusError: No object, or none with a document that has a text; or what plan would raise.
        StorageError, StorageUnavailable: A store refuses, or does not answer.
    """
    check_apart(job.corpus, job.work)
    objects = list_objects(job.corpus, job.format, job.selection)
    kept = KeptColumns(job.reading)
    partitions = list(split(objects, job.partition_rows, job.reading, kept))
    schema = pa.schema([(_ID, pa.string()), (_TEXT, pa.large_string()), *kept.schema])
    taken, left = _Taken(schema), limit
    first = spread(range(len(partitions)), min(_PARTITIONS, limit))
    order = [*first, *sorted(set(range(len(partitions))) - set(first))]
    for place, at in enumerate(order):
        if not left:
            break
        left -= taken.add(partitions[at], job, math.ceil(left / max(len(first) - place, 1)))
    table = pa.Table.from_batches(taken.rows, schema)
    if not table.num_rows:
        raise CorpusError(
            f"{', '.join(job.corpus)}: no document has a text, in {len(objects):,} objects",
            rule="a sample is of documents that can be scored",
            next_step="check the text column, and corpuscore check, which says why documents are rejects",
        )
    folder = f"samples/{digest([[canonical_uri(uri) for uri in job.corpus], job.options_digest])[:16]}"
    store = Store(job.work)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    store.write(f"{folder}/corpus/sample.parquet", sink.getvalue())
    return Sampled(
        job=_job_on(job, store.uri_of(folder), kept.schema.names),
        documents=table.num_rows,
        objects=len(taken.uris),
        rejects=taken.rejects,
    )


def _job_on(job: Job, folder: str, kept: Sequence[str]) -> Job:
    others = {name: value for name, value in job.model_dump().items() if section_of(name) not in _OF_THE_CORPUS}
    return Job.build(
        {
            **others,
            "corpus": [f"{folder}/corpus/sample.parquet"],
            "text_column": _TEXT,
            "id_columns": [_ID],
            "keep_columns": list(kept),
            "work": f"{folder}/work",
            "table": job.table + SUFFIX,
        }
    )


@dataclass(slots=True)
class _Taken:
    """What has been taken so far."""

    schema: pa.Schema
    rows: list[pa.RecordBatch] = field(default_factory=list)
    uris: set[str] = field(default_factory=set)
    rejects: int = 0

    def add(self, partition: Partition, job: Job, wanted: int) -> int:
        """Take documents with a text from the beginning of a partition; how many there were."""
        left = wanted
        with DocumentReader(partition, job.reading, batch_rows=min(wanted, 1024)) as reader:
            for batch in reader:
                good = batch.filter(pc.is_null(batch.column("reason"))).slice(0, left)
                self.rejects += batch.num_rows - batch.column("reason").null_count
                if good.num_rows:
                    self.rows.append(good.select(self.schema.names).cast(self.schema))
                    self.uris.add(partition.uri)
                left -= good.num_rows
                if not left:
                    break
        return wanted - left
