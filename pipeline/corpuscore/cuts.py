"""Cuts: into which partitions an object was cut before, so that it is not scored again because it is cut otherwise now.

    cuts/<16 digits: model and options>/<rows a partition>-<manifest id>    an empty mark for each manifest
    cuts/<16 digits: model and options>/kept-<manifest id>                  one that holds cuts of others

A work id names a range of an object, so another cut is other work. Where all marks name the same rows a partition there
is nothing to keep; else the other manifests say how each object was cut, and the receipts which cut is scored.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from corpuscore.errors import StorageError
from corpuscore.manifest import Manifest
from corpuscore.records import Partition, digest, receipt_key
from corpuscore.storage import Store

log = logging.getLogger(__name__)

Cut = list[Partition]


@dataclass(slots=True)
class Cuts:
    """How objects were cut before under one model and one set of options.

    Args:
        store: The work location.
        fingerprint, options_digest: Of what scores.
        partition_rows: What is asked for now.

    Attributes:
        kept: Objects that keep an earlier cut; counted while `chosen` is consumed.
    """

    store: Store
    fingerprint: str
    options_digest: str
    partition_rows: int
    kept: int = 0
    _others: dict[str, Manifest] = field(default_factory=dict)
    _earlier: dict[str, list[Cut]] = field(default_factory=dict)
    _scored: AbstractSet[str] = frozenset()

    @property
    def _folder(self) -> str:
        return f"cuts/{digest([self.fingerprint, self.options_digest])[:16]}/"

    def look(self) -> None:
        """Find earlier cuts. One listing where none is another one.

        Raises:
            StorageError, StorageUnavailable: The store refuses, or does not answer. A manifest that is damaged or gone
                is passed over with a warning.
        """
        marks = [key.rpartition("/")[2] for key in self.store.find(self._folder)]
        for rows, _, manifest_id in (mark.partition("-") for mark in marks):
            if rows != str(self.partition_rows) and (manifest := self._load(manifest_id)):
                self._others[f"{rows}-{manifest_id}"] = manifest
        for manifest in self._others.values():
            for uri, cut in _by_object(manifest):
                if _holds_all_once(cut) and cut not in self._earlier.setdefault(uri, []):
                    self._earlier[uri].append(cut)
        self._scored = set(self.store.find("receipts/")) if self._earlier else frozenset()

    def _load(self, manifest_id: str) -> Manifest | None:
        try:
            return Manifest.load(self.store, manifest_id)
        except StorageError as error:
            log.warning("The cuts of an earlier plan are not known: %s", error)
            return None

    def chosen(self, partitions: Iterable[Partition]) -> Iterator[Partition]:
        """The partitions of a new cut, in which an object keeps the earlier cut of which more is scored.

        It is another object when its ETag or its format is another. One exception: a CSV object may hold a range that
        cannot be read because of where it was cut; what of it is not wholly scored yet takes a coarser cut.
        """
        for uri, new in _by_object(partitions):
            best = new
            for cut in self._earlier.get(uri, ()):
                if _same_object(cut, new) and self._share(cut) > self._share(best) and not self._stuck(cut, new):
                    best = cut
            self.kept += best != new
            yield from best

    def _share(self, cut: Cut) -> float:
        """How much of an object is scored in a cut, between 0 and 1."""
        sizes = [max(1, part.stop - part.start) for part in cut]
        return sum(size for size, part in zip(sizes, cut, strict=True) if self._is_scored(part)) / sum(sizes)

    def _is_scored(self, part: Partition) -> bool:
        return receipt_key(part.work_id(self.fingerprint, self.options_digest)) in self._scored

    def _stuck(self, cut: Cut, new: Cut) -> bool:
        return new[0].format == "csv" and len(new) < len(cut) and self._share(cut) < 1

    def mark(self, manifest: Manifest) -> None:
        """Leave a mark for a manifest, and take back those of others that say nothing more than it does.

        Raises:
            StorageError, StorageUnavailable: The store refuses, or does not answer.
        """
        own = f"{'kept' if self.kept else self.partition_rows}-{manifest.id}"
        self.store.write(self._folder + own, b"")
        held = dict(_by_object(manifest)) if self._others else {}
        spent = [mark for mark, other in self._others.items() if mark != own and _adds_nothing(other, held)]
        self.store.delete([self._folder + mark for mark in spent])


def _by_object(partitions: Iterable[Partition]) -> Iterator[tuple[str, Cut]]:
    """Objects with their cuts, in their order."""
    for uri, cut in itertools.groupby(partitions, key=lambda part: part.uri):
        yield uri, list(cut)


def _same_object(one: Cut, other: Cut) -> bool:
    return (one[0].etag, one[0].format) == (other[0].etag, other[0].format)


def _holds_all_once(cut: Cut) -> bool:
    """Whether no range begins before the end of the one before it: manifests of earlier versions may hold such."""
    return all(one.start < other.start and one.stop <= other.start for one, other in itertools.pairwise(cut))


def _adds_nothing(other: Manifest, held: dict[str, Cut]) -> bool:
    """Whether each object of a manifest is held with the same cut, or has another version by now."""
    return all(
        (cut := held.get(uri)) is not None and (cut == earlier or not _same_object(cut, earlier))
        for uri, earlier in _by_object(other)
    )
