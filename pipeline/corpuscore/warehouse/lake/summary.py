"""The figures of a report, computed batch by batch; the rows never are in memory all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpuscore.records import Status
from corpuscore.warehouse.protocol import Strongest, Summary


class Figures:
    """Sums over rows of scores and of rejects.

    Args:
        labels: Score columns.
        strongest: Labels for which documents are found.
        top: How many for each.
    """

    def __init__(self, labels: Sequence[str], strongest: Sequence[str], top: int) -> None:
        self._labels, self._strongest, self._top = tuple(labels), tuple(strongest), top
        self._scored = self._truncated = self._tokens = 0
        self._sums = np.zeros(len(self._labels))
        self._wins = np.zeros(len(self._labels), np.int64)
        self._best: dict[str, list[pa.Table]] = {label: [] for label in self._strongest}
        self._reasons: Counter[str] = Counter()

    @property
    def columns(self) -> list[str]:
        """Columns of the scores table that are needed."""
        named = dict.fromkeys((*self._labels, *self._strongest))
        return ["document_id", "work_id", "status", "token_count", *named]

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in rows of the scores table."""
        if rows.num_rows == 0:
            return
        self._scored += rows.num_rows
        self._truncated += pc.sum(pc.equal(rows["status"], Status.TRUNCATED.value)).as_py() or 0
        self._tokens += pc.sum(rows["token_count"]).as_py() or 0
        if self._labels:
            scores_DL = np.stack([np.asarray(rows[label], np.float32) for label in self._labels], axis=1)
            self._sums += scores_DL.sum(axis=0, dtype=np.float64)
            self._wins += np.bincount(scores_DL.argmax(axis=1), minlength=len(self._labels))
        for label in self._strongest:
            columns = {"id": rows["document_id"], "score": pc.cast(rows[label], pa.float32()), "work": rows["work_id"]}
            self._best[label] = [self._highest(pa.concat_tables([*self._best[label], pa.table(columns)]))]

    def _highest(self, rows: pa.Table) -> pa.Table:
        if rows.num_rows <= self._top:
            return rows
        return rows.take(pc.select_k_unstable(rows, self._top, [("score", "descending"), ("id", "ascending")]))

    def add_rejects(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in rows of the rejects table."""
        self._reasons.update(pc.coalesce(rows["reason"], rows["status"]).to_pylist())

    def summary(self) -> Summary:
        """What was taken in, summed up."""
        scored = self._scored
        return Summary(
            scored=scored,
            rejected=self._reasons.total(),
            truncated=self._truncated,
            tokens=self._tokens,
            reasons=dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))),
            label_means=dict(zip(self._labels, (self._sums / scored).tolist(), strict=True)) if scored else {},
            label_shares=dict(zip(self._labels, (self._wins / scored).tolist(), strict=True)) if scored else {},
            strongest={label: self._documents(label) for label in self._strongest},
        )

    def _documents(self, label: str) -> tuple[Strongest, ...]:
        rows = pa.concat_tables(self._best[label]).to_pylist() if self._best[label] else []
        found = [Strongest(row["id"], row["score"], row["work"]) for row in rows]
        return tuple(sorted(found, key=lambda item: (-item.probability, item.document_id)))
