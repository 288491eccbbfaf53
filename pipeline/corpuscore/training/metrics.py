"""How good scores are against gold labels: F1 by label, thresholds, calibration. Pure numpy.

Shape suffixes: D documents, L labels, G thresholds of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpuscore.records import Activation

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

#: Thresholds that are tried in tuning.
GRID_G = np.round(np.arange(0.01, 0.96, 0.01), 2)

#: Neighbours on the grid over which F1 is averaged: the peak of a rare label's curve is one lucky document wide.
_NEIGHBOURS = 5
#: Of the calibration error, as published.
_BINS = 15


@dataclass(frozen=True, slots=True)
class Agreement:
    """Predicted against gold labels.

    Attributes:
        precision_L, recall_L, f1_L: By label; 0 where nothing was predicted or nothing is there.
        support_L: Gold documents a label.
        micro_f1: Over all decisions.
    """

    precision_L: Floats
    recall_L: Floats
    f1_L: Floats
    support_L: npt.NDArray[np.int64]
    micro_f1: float

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over all labels, those without a gold document included."""
        return float(self.f1_L.mean())


def agreement(predicted_DL: Bools, gold_DL: Bools) -> Agreement:
    """Count and compare."""
    hits_L = (predicted_DL & gold_DL).sum(axis=0)
    predicted_L, support_L = predicted_DL.sum(axis=0), gold_DL.sum(axis=0)
    return Agreement(
        precision_L=hits_L / np.maximum(predicted_L, 1),
        recall_L=hits_L / np.maximum(support_L, 1),
        f1_L=_f1(hits_L, predicted_L, support_L),
        support_L=support_L.astype(np.int64),
        micro_f1=float(_f1(hits_L.sum(), predicted_L.sum(), support_L.sum())),
    )


def _f1(hits: Any, predicted: Any, support: Any) -> Any:
    return 2 * hits / np.maximum(predicted + support, 1)


def tune_thresholds(scores_DL: Floats, gold_DL: Bools) -> Floats:
    """One threshold a label: the middle of the highest stretch of its F1 curve.

    Args:
        scores_DL: Probabilities.
        gold_DL: Gold labels.

    Returns:
        thresholds_L; a label is predicted where its score is at least its threshold.
    """
    f1_GL = np.stack([agreement(scores_DL >= threshold, gold_DL).f1_L for threshold in GRID_G])
    kernel = np.ones(_NEIGHBOURS) / _NEIGHBOURS
    edge = _NEIGHBOURS // 2
    padded = np.pad(f1_GL, ((edge, edge), (0, 0)), mode="edge")
    smooth_GL = np.apply_along_axis(np.convolve, 0, padded, kernel, mode="valid")
    thresholds_L: Floats = GRID_G[smooth_GL.argmax(axis=0)]
    return thresholds_L


def decide(scores_DL: Floats, activation: Activation, thresholds_L: Floats | float = 0.5) -> Bools:
    """Labels from scores: those above their thresholds, or the largest where labels exclude each other."""
    if activation == "sigmoid":
        above: Bools = scores_DL >= thresholds_L
        return above
    largest: Bools = np.eye(scores_DL.shape[1], dtype=bool)[scores_DL.argmax(axis=1)]
    return largest


def tuned_agreement(scores_DL: Floats, gold_DL: Bools, activation: Activation) -> Agreement:
    """Agreement at thresholds tuned on the very documents: fit for comparing models and epochs, flattering for one."""
    thresholds = tune_thresholds(scores_DL, gold_DL) if activation == "sigmoid" else 0.5
    return agreement(decide(scores_DL, activation, thresholds), gold_DL)


def brier(scores_DL: Floats, gold_DL: Bools) -> float:
    """Mean squared distance of a score from 0 or 1.

    Source: Brier 1950, Monthly Weather Review 78(1); here averaged over labels too
    """
    return float(np.square(scores_DL - gold_DL).mean())


def expected_calibration_error(scores_DL: Floats, gold_DL: Bools) -> float:
    """How far, on average, a score lies from the share of gold labels among equal scores (bins of equal width).

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3; each pair of a document and a label counts as one forecast
    """
    scores, gold = scores_DL.ravel().astype(np.float64), gold_DL.ravel()
    place = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(place, weights=scores - gold, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(scores)) if len(scores) else 0.0
