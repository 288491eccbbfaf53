"""Find the documents that end their process, and score all the others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from corpuscore.errors import ClusterUnavailable, CorpusError, ModelError, from_json
from corpuscore.records import HUNG, Partition, Receipt, Skipped
from corpuscore.scoring.alone.orders import Order, Probe
from corpuscore.scoring.alone.process import Died, Limits, Pace, started
from corpuscore.scoring.partition import ScoringContext

log = logging.getLogger(__name__)

#: Different documents of one partition that may be found; with one more, the partition fails.
MOST_FOUND = 8
#: Groups into which documents are divided, and documents of a group at the most.
_GROUPS = 32
_GROUP_DOCUMENTS = 1024
#: Processes in all, where some die of what no document has done.
PROCESSES = 4 + 4 * (MOST_FOUND + 1) + 12
#: Processes that may die while they load the model, one after the other.
_LOADS = 2


@dataclass(frozen=True, slots=True)
class Alone:
    """What came of a partition that was scored alone.

    Attributes:
        receipt: The one that counts.
        found: The documents that end their process, in words.
        processes: How many it took.
    """

    receipt: Receipt
    found: tuple[str, ...]
    processes: int


def score_alone(
    partition: Partition,
    work_id: str,
    context: ScoringContext,
    worker: str,
    limits: Limits,
    look: Callable[[], None] = lambda: None,
) -> Alone:
    """Score a partition that may end its process; see the package for how, and for what it costs.

    Args:
        partition, work_id, context, worker: As score_partition takes them.
        limits: What each process may take.
        look: Called some times a second while they run.

    Raises:
        CorpusError: More documents than MOST_FOUND end their process; reading the object does; or the partition does
            although none of its documents does so by itself.
        ModelError: Loading the model ends the process.
        ClusterUnavailable: Loading it takes too long.
        CorpuscoreError: Those of score_partition.
    """
    search = _Search(partition, work_id, context, worker, limits, look)
    receipt = search.score()
    if isinstance(receipt, Died):
        log.warning("The process that scored %s %s; its documents are tried", _name(partition), receipt.how)
        search.find()
        receipt = search.score()
    if isinstance(receipt, Died):
        raise _together(partition, receipt, search.found)
    return Alone(receipt, tuple(search.found), search.processes)


@dataclass(slots=True)
class _Search:
    """The state of one: what is passed over, and how long things take."""

    partition: Partition
    work_id: str
    context: ScoringContext
    worker: str
    limits: Limits
    look: Callable[[], None]
    pace: Pace = field(default_factory=Pace)
    skip: dict[int, Skipped] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    processes: int = 0

    def score(self) -> Receipt | Died:
        """The receipt of all that is not passed over, or how the process died of it."""
        try:
            return Receipt.from_json(self._ask("score")["receipt"])
        except Died as death:
            return death

    def find(self) -> None:
        """Fill `skip` and `found`.

        Raises:
            CorpusError: Reading ends the process, or too many are found.
        """
        documents = self._count()
        at = 0
        while at < documents:
            step = min(_GROUP_DOCUMENTS, _step(documents))
            death = self._probe(Probe(at, documents, step))
            if death is None:
                return
            start, at = self._narrow(_group(death))
            if at - start == 1 and (again := self._probe(Probe(start, at, 1))):
                self._found(again)

    def _count(self) -> int:
        try:
            return int(self._ask("count")["documents"])
        except Died as death:
            raise self._unreadable(death) from death

    def _narrow(self, group: tuple[int, int]) -> tuple[int, int]:
        """The one document of a group with which a process died; the group where it does not die of it again."""
        start, stop = group
        while stop - start > 1 and (death := self._probe(Probe(start, stop, _step(stop - start)))):
            start, stop = _group(death)
        return start, stop

    def _probe(self, probe: Probe) -> Died | None:
        try:
            self._ask(probe)
        except Died as death:
            if death.group is None:
                raise self._unreadable(death) from death
            return death
        return None

    def _found(self, death: Died) -> None:
        why = Skipped(death.reason, f"the process that scored it {death.how}")
        new = [position for position in death.same if position not in self.skip]
        self.skip.update(dict.fromkeys(new, why))
        copies = f" and {len(new) - 1:,} with the same text" if len(new) > 1 else ""
        self.found.append(f"{death.id!r}{copies} ({why.reason}: {why.detail})")
        log.warning("%s: document %s%s", _name(self.partition), self.found[-1], _lines(death))
        if len(self.found) > MOST_FOUND:
            raise self._too_many()

    def _ask(self, task: Literal["score", "count"] | Probe, tries: int = _LOADS) -> dict[str, Any]:
        """Have one process do a task; another one if it died while it loaded the model, which no document has done.

        Raises:
            Died: It died of what it was told.
        """
        if self.processes == PROCESSES:
            raise self._endless()
        self.processes += 1
        order = Order(self.partition, self.context, self.worker, self.work_id, self.skip, task, os.getpid())
        try:
            with started(order, self.limits, self.pace) as process:
                return _answered(process.listen(self.look))
        except Died as death:
            if death.state != "loading":
                raise
            if tries == 1:
                raise self._not_loaded(death) from death
        return self._ask(task, tries - 1)

    def _not_loaded(self, death: Died) -> ModelError | ClusterUnavailable:
        value = (
            f"The model {self.context.scoring.model!r} could not be loaded in a process of its own on {self.worker}: "
            f"{_LOADS} times the process {death.how}{_lines(death)}"
        )
        if death.reason == HUNG:
            return ClusterUnavailable(value, next_step="look at what it is downloaded from, then run this again")
        return ModelError(
            value,
            rule="Loading a model ends no process",
            next_step="load it by hand on that machine (corpuscore models), and compare its size with the memory there",
        )

    def _unreadable(self, death: Died) -> CorpusError:
        return CorpusError(
            f"{_name(self.partition)} cannot be read: the process that read it {death.how}{_lines(death)}",
            rule="Reading an object ends no process",
            next_step="write the object again, or leave it out of the corpus",
        )

    def _too_many(self) -> CorpusError:
        return CorpusError(
            f"{_name(self.partition)} has more than {MOST_FOUND} documents that end the process which scores them: "
            + "; ".join(self.found),
            rule=f"Up to {MOST_FOUND} different ones of a partition become rejects",
            next_step="find out what they have in common (the backend, a native library, memory), or take them out of "
            "the object",
        )

    def _endless(self) -> CorpusError:
        found = "; ".join(self.found) or "none"
        return CorpusError(
            f"{_name(self.partition)} took {PROCESSES} processes, not all ended by its documents; found were: {found}",
            rule=f"A partition that ends its process is tried in {PROCESSES} processes at the most",
            next_step="find out what ends processes on this machine (its memory, its log), then run this again",
        )


def _answered(heard: dict[str, Any]) -> dict[str, Any]:
    """What a process said, or the error that it had.

    Raises:
        CorpuscoreError: Of the type that it was there.
    """
    if "error" in heard:
        raise from_json(heard["error"])
    return heard


def _together(partition: Partition, death: Died, found: Sequence[str]) -> CorpusError:
    others = f"after {'; '.join(found)} were left out" if found else "though none of its documents does so by itself"
    return CorpusError(
        f"{_name(partition)} ends the process that scores it, {others}: it {death.how}{_lines(death)}",
        rule="Documents that can be scored one by one can be scored together",
        next_step="give each worker more memory, or run fewer on a machine, where memory is the reason; else report it",
    )


def _group(death: Died) -> tuple[int, int]:
    assert death.group is not None  # noqa: S101 (a probe's death without a group is an error, see _probe)
    return death.group


def _step(documents: int) -> int:
    return -(-documents // _GROUPS)


def _name(partition: Partition) -> str:
    return f"{partition.uri} [{partition.start}:{partition.stop}]"


def _lines(death: Died) -> str:
    return f" (its last lines: {death.last_lines})" if death.last_lines else ""
