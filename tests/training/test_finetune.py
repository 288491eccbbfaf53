from __future__ import annotations

from pathlib import Path

import pytest

from corpuscore.errors import ModelError, TrainingError
from corpuscore.scoring import load_scorer
from corpuscore.training.finetune import finetune
from corpuscore.training.loop import Event
from tests.scoring.checkpoints import LABELS
from tests.training.conftest import MAX_TOKENS, texts

SETTINGS = {"epochs": 3, "batch_tokens": 128, "save_every": 3, "warmup": 2, "learning_rate": 1e-3}


def _tune(folder: Path, teacher: str, labelled: str, **more: object) -> dict[str, object]:
    return finetune(str(folder), teacher, labelled, settings=SETTINGS, max_tokens=MAX_TOKENS, device="cpu", **more)  # type: ignore[arg-type]


def test_a_resumed_run_gives_the_model_of_an_uninterrupted_one(teacher: str, labelled: str, tmp_path: Path) -> None:
    """Weights are the same to the byte, and the result is a scorer with the file's labels."""
    _tune(tmp_path / "whole", teacher, labelled)

    def interrupt(event: Event) -> None:
        if event.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _tune(tmp_path / "cut", teacher, labelled, progress=interrupt)
    _tune(tmp_path / "cut", teacher, labelled)
    whole, cut = (tmp_path / name / "model/model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    scorer = load_scorer(str(tmp_path / "whole/model"), device="cpu", max_tokens=MAX_TOKENS)
    assert scorer.info.labels == LABELS
    assert scorer.score(texts(2)).shape == (2, len(LABELS))


def test_new_labels_get_a_new_head(teacher: str, labelled: str, tmp_path: Path) -> None:
    """A file of names decides how many labels there are, whatever the checkpoint had."""
    names = [*LABELS, "boredom", "hope"]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    _tune(tmp_path / "run", teacher, labelled, label_names=str(tmp_path / "names.txt"))
    found = load_scorer(str(tmp_path / "run/model"), device="cpu", max_tokens=MAX_TOKENS).info.labels
    assert found == tuple(names)


def test_bad_input_is_refused(teacher: str, labelled: str, tmp_path: Path) -> None:
    """No model, other options on resume, and too little to learn from."""
    with pytest.raises(ModelError):
        _tune(tmp_path / "1", str(tmp_path), labelled)
    few = tmp_path / "few.tsv"
    few.write_text("one\t0\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="both sides need documents"):
        _tune(tmp_path / "2", teacher, str(few))
    _tune(tmp_path / "3", teacher, labelled)
    with pytest.raises(TrainingError, match="held_out was"):
        _tune(tmp_path / "3", teacher, labelled, held_out=0.3)
