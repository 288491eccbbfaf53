"""What transformers' own text-classification pipeline says of texts, one at a time."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers

from corpuscore.records import Skipped
from corpuscore.scoring import load_scorer
from tests.scoring.tiny import TEXTS

#: Window of the tiny checkpoints.
MAX_TOKENS = 60


@dataclass(frozen=True)
class Comparison:
    """How far scores are from what they should be, at the most.

    Attributes:
        backend: What scored.
        beside_the_pipeline: From the pipeline's.
        beside_itself_alone: Of each text from those of the text alone.
        spread: Of the pipeline's scores over the texts.
        failed: As in Scores.
    """

    backend: str
    beside_the_pipeline: float
    beside_itself_alone: float
    spread: float
    failed: dict[int, Skipped]


def pipeline_scores(folder: Path, texts: list[str]) -> npt.NDArray[np.float32]:
    """Probabilities by label, each text cut to MAX_TOKENS."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline: Any = transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
        labels, model = pipeline.model.config.id2label, pipeline.model
        rows = []
        for text in texts:
            pipeline.model = copy.deepcopy(model)  # one that has seen no other text
            (found,) = pipeline([text], truncation=True, max_length=MAX_TOKENS)
            scores = {item["label"]: item["score"] for item in found}
            rows.append([scores[labels[at]] for at in range(len(labels))])
    return np.array(rows, np.float32)


def compare(folder: Path) -> Comparison:
    """A checkpoint's scores of TEXTS with its pipeline's, and with those of each text alone."""
    expected = pipeline_scores(folder, TEXTS)
    scorer = load_scorer(str(folder), device="cpu", max_tokens=MAX_TOKENS)
    (scores,) = scorer.stream([TEXTS])
    got = scores.probabilities_DL
    alone = np.concatenate([scorer.score([text]) for text in TEXTS])
    return Comparison(
        scorer.info.backend,
        float(np.abs(got - expected).max()),
        float(np.abs(got - alone).max()),
        float(np.ptp(expected, axis=0).max()),
        scores.failed,
    )
