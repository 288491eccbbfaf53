from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, precision_recall_fscore_support

from corpuscore.training.metrics import agreement, brier, decide, expected_calibration_error, tune_thresholds


def _drawn(seed: int, documents: int = 60, labels: int = 4, rarest: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    gold = chance.random((documents, labels)) < chance.uniform(rarest, 0.6, labels)
    scores = np.clip(0.5 * gold + chance.random((documents, labels)) * 0.6, 0, 1)
    return scores.astype(np.float32), gold


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_agreement_is_what_scikit_learn_counts(seed: int) -> None:
    """Precision, recall, F1 and support by label, and both means, are scikit-learn's, empty labels included."""
    scores, gold = _drawn(seed)
    found = agreement(scores >= 0.5, gold)
    by_label = precision_recall_fscore_support(gold, scores >= 0.5, average=None, zero_division=0)
    micro = precision_recall_fscore_support(gold, scores >= 0.5, average="micro", zero_division=0)
    for ours, theirs in zip((found.precision_L, found.recall_L, found.f1_L, found.support_L), by_label, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert found.micro_f1 == pytest.approx(micro[2])
    assert found.macro_f1 == pytest.approx(by_label[2].mean())


def test_brier_is_what_scikit_learn_computes() -> None:
    """The mean over labels of each label's Brier score."""
    scores, gold = _drawn(3)
    theirs = [brier_score_loss(gold[:, label], scores[:, label]) for label in range(gold.shape[1])]
    assert brier(scores, gold) == pytest.approx(np.mean(theirs), rel=1e-5)


def test_calibration_error_of_honest_scores_is_small_and_of_boasting_ones_their_distance() -> None:
    """Scores drawn as true probabilities are off by noise only; scores that say 0.9 where half is true, by 0.4."""
    chance = np.random.default_rng(0)
    honest = chance.random((50_000, 2))
    assert expected_calibration_error(honest, chance.random(honest.shape) < honest) < 0.01
    boasting = np.full((50_000, 2), 0.9)
    assert expected_calibration_error(boasting, chance.random(boasting.shape) < 0.5) == pytest.approx(0.4, abs=0.01)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_tuned_thresholds_are_hardly_worse_than_the_best_one_for_all(seed: int) -> None:
    """On the texts that they were tuned on, thresholds by label do about as well as any common one."""
    scores, gold = _drawn(seed, documents=2000, rarest=0.1)
    tuned = agreement(scores >= tune_thresholds(scores, gold), gold).macro_f1
    common = max(agreement(scores >= threshold, gold).macro_f1 for threshold in np.arange(0.05, 0.95, 0.05))
    assert tuned >= common - 0.03


def test_softmax_scores_predict_exactly_one_label() -> None:
    """Where labels exclude each other, thresholds say nothing and the largest score wins."""
    scores, _ = _drawn(1)
    predicted = decide(scores, "softmax", 0.99)
    assert (predicted.sum(axis=1) == 1).all()
    assert (predicted.argmax(axis=1) == scores.argmax(axis=1)).all()
