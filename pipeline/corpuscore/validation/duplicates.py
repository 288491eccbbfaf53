"""Repeated document ids among any number of them, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def id_hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """64 bits for each id (D), the same for the same id within this process; nulls have one too."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids)).view(np.uint64)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many documents repeat the id of another one.

    Attributes:
        count: Documents beyond the first of each id; an estimate where `exact` is False.
        exact: Whether all ids were compared, by 64-bit hashes (a false repeat among 10 million has odds of 1:370,000).
    """

    count: int
    exact: bool


class IdSketch:
    """Hashes of ids up to a bound; beyond it, only those whose lowest bits are zero, one more bit whenever it is full.

    Sampling by hash takes all documents of an id or none, so repeats are estimated without bias. The idea is that of
    Source: Gibbons, "Distinct sampling for highly-accurate answers to distinct values queries", VLDB 2001.
    """

    def __init__(self, bound: int = 20_000_000) -> None:
        self._bound = bound
        self._bits = 0
        self._held = 0
        self._kept: list[npt.NDArray[np.uint64]] = []

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Take the hashes of more documents."""
        self._keep(hashes)
        while self._held > self._bound:
            self._bits += 1
            kept, self._kept, self._held = self._kept, [], 0
            for chunk in kept:
                self._keep(chunk)

    def _keep(self, hashes: npt.NDArray[np.uint64]) -> None:
        if self._bits:
            hashes = hashes[hashes & np.uint64(2**self._bits - 1) == 0]
        self._kept.append(hashes)
        self._held += len(hashes)

    def duplicates(self) -> Duplicates:
        """What was repeated."""
        if not self._held:
            return Duplicates(0, exact=self._bits == 0)
        hashes = np.concatenate(self._kept)
        hashes.sort()
        repeated = int(np.count_nonzero(hashes[1:] == hashes[:-1]))
        return Duplicates(repeated << self._bits, exact=self._bits == 0)
