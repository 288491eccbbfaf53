"""The survey behind `corpuscore check`: what is odd about a corpus and a checkpoint, before anything is spent on them.

samples.py     bounded pieces of many objects: documents, columns and raw beginnings
texts.py       what the sampled texts are like: lengths, scripts, doubles, damage
columns.py     what the objects' columns are, and how they differ
model.py       what the checkpoint is, which path scores it, and what its tokenizer makes of the texts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from corpuscore.corpus import CorpusObject, check_apart, list_objects
from corpuscore.errors import PermanentError, TransientError
from corpuscore.job import Job
from corpuscore.records import Finding
from corpuscore.survey.columns import look_at_columns
from corpuscore.survey.model import look_at_model
from corpuscore.survey.samples import Sample, take_sample
from corpuscore.survey.texts import look_at_texts

__all__ = ["Survey", "survey"]


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        facts: By name, in words or numbers, in the order in which they are shown.
        findings: What is odd. An error is what would stop a run.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def stops(self) -> bool:
        """Whether a run would be stopped."""
        return any(finding.level == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {"stops": self.stops, **self.facts, "findings": [finding.to_json() for finding in self.findings]}

    def take(self, looks: Iterable[Finding | tuple[str, Any]], what: str) -> None:
        """Take facts and findings in; what raises is itself a finding, and the survey goes on.

        Args:
            looks: Findings, and facts as (name, value).
            what: What is looked at: corpus, columns, texts or model.
        """
        try:
            for found in looks:
                if isinstance(found, Finding):
                    self.findings.append(found)
                else:
                    self.facts[found[0]] = found[1]
        except (PermanentError, TransientError) as error:
            self.findings.append(Finding(what, "error", str(error)))


def survey(job: Job, *, apart: bool = True) -> Survey:
    """List the corpus, read bounded pieces of it, and look at the checkpoint; writes nothing and scores nothing.

    Args:
        job: What would be run.
        apart: Also see whether the work location lies outside of the corpus.
    """
    made = Survey()
    objects: list[CorpusObject] = []
    samples: list[Sample] = []
    made.take(_look_at_corpus(job, objects, apart), "corpus")
    made.take(look_at_columns(objects, job.reading), "columns")
    made.take(take_sample(objects, job, samples), "documents")
    made.take(look_at_texts(samples, job.max_reject_fraction), "texts")
    made.take(look_at_model(job, [text for sample in samples for text in sample.texts]), "model")
    return made


def _look_at_corpus(job: Job, objects: list[CorpusObject], apart: bool) -> Iterator[Finding | tuple[str, Any]]:
    if apart:
        check_apart(job.corpus, job.work)
    objects += list_objects(job.corpus, job.format, job.selection)
    yield "objects", len(objects)
    yield "bytes", sum(item.size_bytes for item in objects)
    yield (
        "formats",
        {kind: sum(item.format == kind for item in objects) for kind in sorted({o.format for o in objects})},
    )
    if empty := [item.uri for item in objects if not item.size_bytes]:
        message = f"{len(empty)} objects have no bytes, such as {empty[0]}. They have no documents."
        yield Finding("empty_objects", "info", message, {"objects": len(empty)})
