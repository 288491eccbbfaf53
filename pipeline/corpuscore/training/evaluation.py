"""How good and how fast a model is on labelled texts: what `corpuscore evaluate` prints.

Shape suffixes: D documents, L labels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpuscore.errors import JobError, TrainingError
from corpuscore.records import ScorerInfo
from corpuscore.scoring import load_scorer
from corpuscore.scoring.scorer import Scorer
from corpuscore.training.labelled import Labelled, read_label_names, read_labelled
from corpuscore.training.metrics import Agreement, agreement, brier, decide, expected_calibration_error, tune_thresholds

#: Threshold of a label that none was tuned for.
DEFAULT_THRESHOLD = 0.5
#: Documents before the clock starts: kernels are built and caches filled by the first.
_WARM_UP = 64


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one model on one file.

    Attributes:
        scorer: The model.
        documents: Of the file.
        thresholds_L: Score from which a label is predicted.
        tuned_on: File that they were tuned on, or None.
        found: Agreement with gold labels at these thresholds.
        brier, calibration_error: Of the scores themselves.
        seconds: Wall time of scoring, tokenizing included.
    """

    scorer: ScorerInfo
    documents: int
    thresholds_L: npt.NDArray[np.floating[Any]]
    tuned_on: str | None
    found: Agreement
    brier: float
    calibration_error: float
    seconds: float

    @property
    def documents_per_second(self) -> float:
        """Scored, tokenizing included."""
        return self.documents / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        columns = (
            self.thresholds_L,
            self.found.precision_L,
            self.found.recall_L,
            self.found.f1_L,
            self.found.support_L,
        )
        names = ("threshold", "precision", "recall", "f1", "support")
        by_label = {
            label: dict(zip(names, (column[index].item() for column in columns), strict=True))
            for index, label in enumerate(self.scorer.labels)
        }
        return {
            "model": self.scorer.to_json(),
            "documents": self.documents,
            "tuned_on": self.tuned_on,
            "macro_f1": self.found.macro_f1,
            "micro_f1": self.found.micro_f1,
            "brier": self.brier,
            "calibration_error": self.calibration_error,
            "seconds": self.seconds,
            "documents_per_second": self.documents_per_second,
            "by_label": by_label,
        }


def evaluate(
    model: str,
    data: str,
    tune: str | None = None,
    label_names: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_tokens: int = 512,
) -> Evaluation:
    """Score a labelled file and compare.

    Args:
        model: `bundled`, a folder or a hub name.
        data: Labelled file, see `read_labelled`.
        tune: Another labelled file, on which one threshold a label is tuned; without it each is 0.5.
        label_names: File that names the numbers in both; the model's order where None.
        device, precision, max_tokens: As for load_scorer.

    Raises:
        JobError: Thresholds for a model whose labels exclude each other, or tuned on the file itself.
        ModelError, TrainingError: The model or a file cannot be used.
    """
    scorer = load_scorer(model, device=device, precision=precision, max_tokens=max_tokens)
    if tune is not None:
        _check_tuning(tune, data, scorer.info)
    names = read_label_names(label_names) if label_names else None
    documents = read_labelled(data, scorer.info.labels, names)
    thresholds_L = np.full(len(scorer.info.labels), DEFAULT_THRESHOLD)
    if tune is not None:
        known = read_labelled(tune, scorer.info.labels, names)
        thresholds_L = tune_thresholds(_scores(scorer, known, tune), known.gold_DL)
    scorer.score(documents.texts[:_WARM_UP])
    started = time.perf_counter()
    scores_DL = _scores(scorer, documents, data)
    seconds = time.perf_counter() - started
    predicted_DL = decide(scores_DL, scorer.info.activation, thresholds_L)
    return Evaluation(
        scorer=scorer.info,
        documents=len(documents),
        thresholds_L=thresholds_L,
        tuned_on=tune,
        found=agreement(predicted_DL, documents.gold_DL),
        brier=brier(scores_DL, documents.gold_DL),
        calibration_error=expected_calibration_error(scores_DL, documents.gold_DL),
        seconds=seconds,
    )


def _check_tuning(tune: str, data: str, info: ScorerInfo) -> None:
    if info.activation == "softmax":
        raise JobError(
            "--tune has no effect",
            rule=f"labels of {info.model} exclude each other; the largest score is predicted",
            next_step="leave --tune out",
        )
    if tune == data:
        raise JobError(
            f"--tune and --data are both {data}",
            rule="thresholds are tuned on texts that are not judged",
            next_step="give another file",
        )


def _scores(scorer: Scorer, documents: Labelled, path: str) -> npt.NDArray[np.float32]:
    scores_DL = scorer.score(documents.texts)
    failed = np.flatnonzero(~np.isfinite(scores_DL).all(axis=1))
    if len(failed):
        raise TrainingError(
            f"{path}: the model gives no finite score for {len(failed)} texts, the first in row {failed[0] + 1}",
            rule="every document needs a score",
            next_step="look at the text, or take precision fp32",
        )
    return scores_DL
