from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corpuscore.errors import JobError, ModelError, TrainingError
from corpuscore.scoring import load_scorer
from corpuscore.training.evaluation import evaluate
from corpuscore.training.labelled import read_labelled, write_labelled
from corpuscore.training.metrics import agreement, tune_thresholds
from tests.scoring.checkpoints import LABELS, write_checkpoint
from tests.training.conftest import MAX_TOKENS


def test_figures_are_those_of_the_models_scores(teacher: str, labelled: str, tmp_path: Path) -> None:
    """Thresholds come from one file, F1 from another, and both from the scores that load_scorer gives."""
    tune, judge = read_labelled(labelled, LABELS).split(0.5)
    for name, documents in (("tune.tsv", tune), ("judge.tsv", judge)):
        write_labelled(documents, tmp_path / name)
    found = evaluate(
        teacher, str(tmp_path / "judge.tsv"), str(tmp_path / "tune.tsv"), device="cpu", max_tokens=MAX_TOKENS
    )
    scorer = load_scorer(teacher, device="cpu", max_tokens=MAX_TOKENS)
    thresholds = tune_thresholds(scorer.score(tune.texts), tune.gold_DL)
    expected = agreement(scorer.score(judge.texts) >= thresholds, judge.gold_DL)
    assert found.found.macro_f1 == pytest.approx(expected.macro_f1)
    np.testing.assert_array_equal(found.thresholds_L, thresholds)
    assert found.documents == len(judge)
    assert found.documents_per_second > 0
    by_label = found.to_json()["by_label"]
    assert list(by_label) == list(LABELS)
    assert sum(row["support"] for row in by_label.values()) == judge.gold_DL.sum()


def test_options_without_effect_are_refused(labelled: str, teacher: str, tmp_path: Path) -> None:
    """Thresholds for labels that exclude each other, or tuned on the very texts that are judged."""
    folder = write_checkpoint(tmp_path / "softmax", problem_type="single_label_classification")
    with pytest.raises(JobError, match="--tune has no effect"):
        evaluate(str(folder), labelled, "other.tsv", device="cpu", max_tokens=MAX_TOKENS)
    with pytest.raises(JobError, match="are both"):
        evaluate(teacher, labelled, labelled, device="cpu", max_tokens=MAX_TOKENS)


def test_models_and_files_that_cannot_be_used_are_refused(labelled: str, teacher: str, tmp_path: Path) -> None:
    """A folder that is no model, and labels that the model hasn't."""
    with pytest.raises(ModelError):
        evaluate(str(tmp_path), labelled, device="cpu")
    (tmp_path / "names.txt").write_text("\n".join([*LABELS, "boredom"]), encoding="utf-8")
    with pytest.raises(TrainingError, match="no label boredom"):
        evaluate(teacher, labelled, label_names=str(tmp_path / "names.txt"), device="cpu", max_tokens=MAX_TOKENS)


def test_the_bundled_model_beats_chance_on_plain_sentences() -> None:
    """What comes in the box is trained: four plain sentences get their obvious labels."""
    scorer = load_scorer("bundled", device="cpu")
    scores = scorer.score(
        ["Thank you so much!", "I love him.", "That is hilarious, lol", "I am so sorry, I apologise."]
    )
    found = [scorer.info.labels[index] for index in scores.argmax(axis=1)]
    assert found == ["gratitude", "love", "amusement", "remorse"]
