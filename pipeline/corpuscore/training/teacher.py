"""What a teacher says of texts: scored by the pipeline's own engine, kept in files, so that nothing is scored twice.

Shape suffixes: D documents, L labels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corpuscore.errors import TrainingError
from corpuscore.files import write_whole
from corpuscore.records import ScorerInfo, digest
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.training.folder import claim

#: Texts a file: what a kill costs.
_CHUNK = 4096

Scored = Callable[[int, int], None]


def score_texts(
    teacher: str, texts: Sequence[str], folder: Path, *, device: str, max_tokens: int, progress: Scored
) -> ScorerInfo:
    """Score all texts into `folder`, as far as that is not done.

    Args:
        teacher: `bundled`, a folder or a hub name.
        texts: In the order of the scores.
        folder: Of the scores.
        device: auto, cpu or cuda.
        max_tokens: Window of the teacher.
        progress: Called with the texts that are done and their number.

    Raises:
        ModelError: The teacher cannot be used as a scorer.
        TrainingError: The folder holds scores of another teacher, or of other texts.
    """
    info = describe_scorer(teacher, device=device)
    # The fingerprint knows the precision, which differs between devices; a resume may move to another one.
    claim(
        folder,
        "scores",
        {"teacher": teacher, "labels": list(info.labels), "texts": digest(list(texts)), "max_tokens": max_tokens},
    )
    chunks = [range(start, min(start + _CHUNK, len(texts))) for start in range(0, len(texts), _CHUNK)]
    todo = [(number, rows) for number, rows in enumerate(chunks) if not _path(folder, number).exists()]
    if todo:
        scorer = load_scorer(teacher, device=device, max_tokens=max_tokens)
        batches: Iterator[Sequence[str]] = (texts[rows.start : rows.stop] for _, rows in todo)
        done = len(texts) - sum(len(rows) for _, rows in todo)
        for (number, rows), scores in zip(todo, scorer.stream(batches), strict=True):
            body = io.BytesIO()
            np.save(body, scores.probabilities_DL)
            write_whole(_path(folder, number), body.getvalue())
            done += len(rows)
            progress(done, len(texts))
    return info


def read_scores(folder: Path, documents: int) -> npt.NDArray[np.float32]:
    """All scores, [D, L]; rows of NaN where the teacher failed.

    Raises:
        TrainingError: There are not as many as there are texts.
    """
    parts = [np.load(path) for path in sorted(folder.glob("scores-*.npy"))]
    found = sum(len(part) for part in parts)
    if found != documents:
        raise TrainingError(
            f"{folder} has scores for {found} of {documents} texts",
            rule="every text has a score",
            next_step="run the scores again, or start over with --fresh",
        )
    return np.concatenate(parts)


def _path(folder: Path, number: int) -> Path:
    return folder / f"scores-{number:05d}.npy"
