"""texts.parquet: what a student learns from, and what is held out.

Shape suffixes: D documents, L labels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.errors import TrainingError
from corpuscore.files import write_whole

#: (kind: labelled, piece or varied; held out; text; gold labels or None)
Row = tuple[str, bool, str, npt.NDArray[np.bool_] | None]


@dataclass(frozen=True, slots=True)
class Sample:
    """texts.parquet: what is learned from, and what is held out.

    Attributes:
        texts: One a document.
        gold_DL: Gold labels; none where `has_gold_D` is false.
        has_gold_D: Documents of the labelled file.
        held_D: Documents that are kept from training.
    """

    texts: list[str]
    gold_DL: npt.NDArray[np.bool_]
    has_gold_D: npt.NDArray[np.bool_]
    held_D: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.bool_]) -> Sample:
        """The documents where rows [D] is true."""
        texts = [text for text, taken in zip(self.texts, rows, strict=True) if taken]
        return Sample(texts, self.gold_DL[rows], self.has_gold_D[rows], self.held_D[rows])


def write_sample(path: Path, rows: list[Row]) -> None:
    """Write texts.parquet, whole or not at all."""
    table = pa.table(
        {
            "kind": pa.array([kind for kind, *_ in rows], pa.string()),
            "held": pa.array([held for _, held, *_ in rows], pa.bool_()),
            "text": pa.array([text for *_, text, _ in rows], pa.large_string()),
            "gold": pa.array(
                [None if gold is None else np.flatnonzero(gold).tolist() for *_, gold in rows], pa.list_(pa.int32())
            ),
        }
    )
    body = io.BytesIO()
    pq.write_table(table, body)
    write_whole(path, body.getvalue())


def read_sample(folder: Path, labels: int) -> Sample:
    """The texts of a run.

    Raises:
        TrainingError: It has none yet.
    """
    try:
        table = pq.read_table(folder / "texts.parquet")
    except OSError as error:
        raise TrainingError(
            f"{folder} has no texts yet ({error})", rule="texts are sampled first", next_step="run sample_corpus"
        ) from error
    gold = table["gold"].to_pylist()
    gold_DL = np.zeros((len(gold), labels), dtype=bool)
    for row, found in enumerate(gold):
        gold_DL[row, found or []] = True
    held_D = np.array(table["held"].to_pylist(), dtype=bool)
    return Sample(
        table["text"].to_pylist(), gold_DL, np.array([found is not None for found in gold], dtype=bool), held_D
    )


def count_sample(path: Path) -> dict[str, int]:
    """Texts of each kind, and how many of them are held out."""
    table = pq.read_table(path, columns=["kind", "held"]).to_pydict()
    kinds = {kind: table["kind"].count(kind) for kind in ("labelled", "piece", "varied")}
    return {**kinds, "held": sum(table["held"])}
