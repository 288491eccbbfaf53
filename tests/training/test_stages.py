from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpuscore.errors import CorpuscoreError, JobError, ModelError, TrainingError
from corpuscore.scoring import load_scorer
from corpuscore.training.folder import clear
from corpuscore.training.loop import Event
from corpuscore.training.samples import read_sample
from corpuscore.training.stages import (
    evaluate_against_teacher,
    register_model,
    sample_corpus,
    teacher_scores,
    train_student,
)
from corpuscore.training.teacher import read_scores
from tests.scoring.checkpoints import LABELS, write_checkpoint
from tests.training.conftest import MAX_TOKENS, SETTINGS, SHAPE, texts


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    """A copy of a run that is ready to train."""
    return Path(shutil.copytree(scored, tmp_path / "run"))


def _train(folder: Path, teacher: str, **more: object) -> dict[str, object]:
    return train_student(str(folder), teacher, SHAPE, SETTINGS, device="cpu", **more)  # type: ignore[arg-type]


def test_a_student_is_made_compared_and_registered(run: Path, teacher: str, tmp_path: Path) -> None:
    """All five steps on a tiny random teacher give a model that scores like any other, with JSON-ready results."""
    result = _train(run, teacher)
    compared = evaluate_against_teacher(str(run), teacher, "cpu")
    registered = register_model(str(run), str(tmp_path / "models" / "tiny"))
    json.dumps([result, compared, registered])
    scorer = load_scorer(registered["model"], device="cpu")
    assert scorer.info.labels == LABELS
    scores = scorer.score(texts(3))
    assert np.isfinite(scores).all()
    assert scores.shape == (3, len(LABELS))
    assert 0 <= compared["mean_difference"] < 0.5


def test_a_student_learns_what_its_teacher_says(run: Path, teacher: str) -> None:
    """Loss on texts that it has not seen falls over the epochs."""
    settings = {**SETTINGS, "epochs": 6, "averaging": 0.0, "save_every": 100}
    result = train_student(str(run), teacher, SHAPE, settings, gold_share=0.0, device="cpu")
    losses = [epoch["held_loss"] for epoch in result["history"]]
    assert losses[-1] < losses[0]


def test_an_interrupted_training_goes_on_to_the_same_bytes(run: Path, teacher: str, tmp_path: Path) -> None:
    """The model file after an interruption is that of a run without one."""
    twin = Path(shutil.copytree(run, tmp_path / "twin"))
    _train(run, teacher)

    def interrupt(event: Event) -> None:
        if event.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(twin, teacher, progress=interrupt)
    assert not (twin / "model").exists()
    _train(twin, teacher)
    assert (twin / "model/model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()


def test_scores_are_the_teachers_and_are_not_made_twice(run: Path, teacher: str) -> None:
    """A repeated step scores only what is missing, and files of another teacher are refused."""
    before = read_scores(run / "teacher", len(read_sample(run, 5).texts))
    direct = load_scorer(teacher, device="cpu", max_tokens=MAX_TOKENS).score(read_sample(run, 5).texts)
    np.testing.assert_allclose(before, direct, atol=1e-5)
    calls: list[int] = []
    teacher_scores(str(run), teacher, "cpu", MAX_TOKENS, progress=lambda done, _: calls.append(done))
    assert not calls
    next((run / "teacher").glob("scores-*.npy")).unlink()
    with pytest.raises(TrainingError, match="scores for 0 of"):
        read_scores(run / "teacher", len(before))
    teacher_scores(str(run), teacher, "cpu", MAX_TOKENS, progress=lambda done, _: calls.append(done))
    assert calls == [len(before)]


def test_held_out_texts_are_in_no_other_part(run: Path) -> None:
    """What is held out is nowhere among what is learned from."""
    found = read_sample(run, len(LABELS))
    held = {text for text, kept in zip(found.texts, found.held_D, strict=True) if kept}
    learn = {text for text, kept in zip(found.texts, found.held_D, strict=True) if not kept}
    assert held
    assert not held & learn


def test_other_options_are_refused_until_the_run_is_cleared(run: Path, teacher: str, labelled: str) -> None:
    """A run goes on only with its own options; the error names what changed, and nothing is lost."""
    _train(run, teacher)
    with pytest.raises(TrainingError, match=r"gold_share was 0\.5, now 0\.9"):
        _train(run, teacher, gold_share=0.9)
    with pytest.raises(TrainingError, match="seed was 1, now 2"):
        sample_corpus(str(run), teacher, [], labelled, seed=2)
    assert (run / "model/config.json").exists()
    (run / "mine.txt").write_text("stays")
    clear(run)
    assert [path.name for path in run.iterdir()] == ["mine.txt"]


def test_without_gold_labels_the_teacher_is_all_there_is(teacher: str, corpus: str, tmp_path: Path) -> None:
    """Texts alone are enough; the epoch is chosen by the loss against the teacher."""
    counts = sample_corpus(str(tmp_path), teacher, [corpus], held_out=0.2)
    assert counts["labelled"] == 0
    assert 0 < counts["held"] < counts["piece"]
    teacher_scores(str(tmp_path), teacher, "cpu", MAX_TOKENS)
    result = _train(tmp_path, teacher)
    assert result["best"]["score"] == -result["best"]["held_loss"]  # type: ignore[index]


def test_a_softmax_teacher_makes_a_softmax_student(corpus: str, labelled: str, tmp_path: Path) -> None:
    """Labels that exclude each other stay so."""
    folder = write_checkpoint(tmp_path / "teacher", problem_type="single_label_classification")
    sample_corpus(str(tmp_path / "run"), str(folder), [corpus], labelled, copies=0)
    teacher_scores(str(tmp_path / "run"), str(folder), "cpu", MAX_TOKENS)
    _train(tmp_path / "run", str(folder))
    scores = load_scorer(str(tmp_path / "run" / "model"), device="cpu").score(texts(4))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_bad_input_is_refused_before_anything_is_written(teacher: str, corpus: str, tmp_path: Path) -> None:
    """An empty corpus, unknown labels and a folder that is no model leave a folder in which a better call works."""
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"text": pa.array([" ", ""], pa.string())}), empty)
    (tmp_path / "bad.tsv").write_text("text\t99\n")
    calls: list[tuple[str, list[str], str | None, type[CorpuscoreError], str]] = [
        (teacher, [str(empty)], None, TrainingError, "No text in"),
        (teacher, [], None, TrainingError, "no texts to learn from"),
        (teacher, [corpus], str(tmp_path / "bad.tsv"), TrainingError, "unknown label '99'"),
        (str(tmp_path), [corpus], None, ModelError, "no config.json"),
    ]
    for model, uris, labels, kind, said in calls:
        with pytest.raises(kind, match=said):
            sample_corpus(str(tmp_path / "run"), model, uris, labels)
    assert sample_corpus(str(tmp_path / "run"), teacher, [corpus])["piece"]


def test_numbers_out_of_their_limits_are_refused(run: Path, teacher: str, corpus: str, tmp_path: Path) -> None:
    """The option, its value and its limits are named, before anything is read or written."""
    with pytest.raises(JobError, match=r"gold-share=1\.5"):
        _train(run, teacher, gold_share=1.5)
    with pytest.raises(JobError, match="attention-layers=3 of layers=2"):
        train_student(str(run), teacher, {**SHAPE, "attention_layers": 3}, SETTINGS, device="cpu")
    with pytest.raises(JobError, match="epochs=0"):
        train_student(str(run), teacher, SHAPE, {**SETTINGS, "epochs": 0}, device="cpu")
    with pytest.raises(JobError, match=r"between 0\.001 and 0\.9"):
        sample_corpus(str(tmp_path / "new"), teacher, [corpus], held_out=1.0)
    assert not (tmp_path / "new").exists()


def test_texts_that_the_teacher_failed_on_are_left_out(run: Path, teacher: str) -> None:
    """NaN in a teacher's scores, in texts to learn from or held out, does not reach the student."""
    path = next((run / "teacher").glob("scores-*.npy"))
    scores = np.load(path)
    scores[::9] = np.nan
    np.save(path, scores)
    result = _train(run, teacher)
    assert np.isfinite([epoch["held_loss"] for epoch in result["history"]]).all()  # type: ignore[attr-defined]


def test_a_stage_without_the_one_before_says_so(teacher: str, tmp_path: Path) -> None:
    """Order of the steps is told, not guessed."""
    with pytest.raises(TrainingError, match="no texts yet"):
        teacher_scores(str(tmp_path), teacher, "cpu", MAX_TOKENS)
    with pytest.raises(ModelError):
        register_model(str(tmp_path), str(tmp_path / "there"))


def test_only_a_model_is_replaced(run: Path, teacher: str, tmp_path: Path) -> None:
    """A folder that is no model is left alone."""
    _train(run, teacher)
    (tmp_path / "other").mkdir()
    with pytest.raises(TrainingError, match="is no model"):
        register_model(str(run), str(tmp_path / "other"))
