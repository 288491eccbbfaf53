"""Versions of an object: what the ledger knows of it, and which of two plans counts.

A plan's time is taken before it lists the corpus, by the clock of the work location, which all planners there share. So
of two plans one of which ended before the other began, the later one counts, whatever the modification times of the
objects say: an older version that was put back is the newest. Of plans that overlap, the one that began later counts;
of equal times, the one that is loaded last. What is left out for this is found again by the next plan.

An object that was removed stays in the ledger as gone, with the time of the plan that no longer saw it, so that an
older plan does not bring it back. Where nothing of an object was loaded there is nothing to remove, and nothing noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from corpuscore.records import CheckedPart, digest

_GONE = "gone:"


def gone_id(model: str, uri: str) -> str:
    """What the ledger has in place of work ids where an object was removed: no rows, only when that was planned."""
    return _GONE + digest([model, uri])[:32]


@dataclass(slots=True)
class LoadedObject:
    """What the ledger says of one object and model.

    Attributes:
        digests: Digest by work id; none where it is gone.
        planned_at: The latest plan that saw it as it is loaded, or saw that it is gone; None where it was loaded before
            plans had a time.
        documents: Scored and rejected.
        gone: Whether it was removed, since it had left the corpus.
    """

    digests: dict[str, str] = field(default_factory=dict)
    planned_at: datetime | None = None
    documents: int = 0
    gone: bool = False

    def is_older(self, planned_at: datetime) -> bool:
        """Whether no plan of this time, or a later one, is known to have seen it as it is loaded."""
        return self.planned_at is None or self.planned_at < planned_at


def by_object(rows: Iterable[tuple[str, str, str, int, datetime | None]]) -> dict[str, LoadedObject]:
    """Rows of the ledger (object, work id, digest, documents, planned at) by object."""
    found: dict[str, LoadedObject] = {}
    for uri, work_id, part_digest, documents, planned_at in rows:
        item = found.setdefault(uri, LoadedObject())
        if work_id.startswith(_GONE):
            item.gone = True
        else:
            item.digests[work_id] = part_digest
        item.documents += documents
        if planned_at is not None and item.is_older(planned_at):
            item.planned_at = planned_at
    return found


def find_outdated(parts: Sequence[CheckedPart], known: Mapping[str, LoadedObject], planned_at: datetime) -> set[str]:
    """Objects that a later plan has loaded otherwise than these parts are.

    Args:
        parts: All parts of the objects that they name.
        known: The ledger for these objects and the model.
        planned_at: Of the run that loads.
    """
    wanted: dict[str, dict[str, str]] = {}
    for part in parts:
        wanted.setdefault(part.uri, {})[part.work_id] = part.digest
    return {
        uri
        for uri, item in known.items()
        if uri in wanted
        and item.planned_at is not None
        and item.planned_at > planned_at
        and item.digests != wanted[uri]
    }


def compare(parts: Sequence[CheckedPart], known: Iterable[LoadedObject]) -> tuple[list[CheckedPart], list[str]]:
    """What a load has to do: parts to insert, and work ids whose rows go.

    Args:
        parts: All parts of the objects that they name.
        known: The ledger for these objects and the model.
    """
    loaded = {work_id: digest for item in known for work_id, digest in item.digests.items()}
    fresh = [part for part in parts if loaded.get(part.work_id) != part.digest]
    keep = {part.work_id for part in parts if loaded.get(part.work_id) == part.digest}
    return fresh, sorted(loaded.keys() - keep)
