"""What a process is told (one JSON document on its standard input), and what it answers (a JSON line each)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from corpuscore.records import Partition, Skipped
from corpuscore.scoring.partition import ScoringContext

#: What a process is at: what its death means depends on it.
State = Literal["loading", "reading", "scoring", "writing"]


@dataclass(frozen=True, slots=True)
class Probe:
    """Score documents and keep nothing: those from `start` to `stop`, by their number in the partition, by groups.

    Attributes:
        start, stop: From 0.
        step: Documents of a group at the most.
    """

    start: int
    stop: int
    step: int


@dataclass(frozen=True, slots=True)
class Order:
    """What one process does.

    Attributes:
        partition, context, worker, work_id: As score_partition takes them.
        skip: Documents that are passed over, by position.
        task: `score` writes part and receipt; `count` only reads; or a probe.
        parent: Process id; when it is gone, nobody wants the answer.
    """

    partition: Partition
    context: ScoringContext
    worker: str
    work_id: str
    skip: Mapping[int, Skipped]
    task: Literal["score", "count"] | Probe
    parent: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "partition": asdict(self.partition),
            "context": self.context.to_json(),
            "worker": self.worker,
            "work_id": self.work_id,
            "skip": [[position, asdict(why)] for position, why in self.skip.items()],
            "task": asdict(self.task) if isinstance(self.task, Probe) else self.task,
            "parent": self.parent,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of to_json."""
        task = value["task"]
        return cls(
            partition=Partition(**value["partition"]),
            context=ScoringContext.from_json(value["context"]),
            worker=value["worker"],
            work_id=value["work_id"],
            skip={position: Skipped(**why) for position, why in value["skip"]},
            task=Probe(**task) if isinstance(task, dict) else task,
            parent=value["parent"],
        )
