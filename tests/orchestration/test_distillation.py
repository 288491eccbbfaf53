from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpuscore.errors import JobError
from corpuscore.orchestration.distillation import distillation_params, run_step
from corpuscore.scoring import load_scorer
from corpuscore.training.loop import Settings
from corpuscore.training.student import Shape
from tests.scoring.checkpoints import write_checkpoint

STEPS = ("sample_corpus", "teacher_scores", "train_student", "evaluate_against_teacher", "register_model")


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    """The form, filled in for a student that trains in a second."""
    (tmp_path / "texts.txt").write_text("\n\n".join(f"Paragraph {n} tells of a day by the sea." for n in range(40)))
    values = {name: param.value for name, param in distillation_params({}).items()}
    return values | {
        "teacher": str(write_checkpoint(tmp_path / "teacher", max_position_embeddings=256)),
        "texts": [str(tmp_path / "texts.txt")],
        "folder": str(tmp_path / "run"),
        "into": str(tmp_path / "models" / "small"),
        "vocabulary": 100,
        "embedding": 8,
        "hidden": 8,
        "epochs": 1,
        "device": "cpu",
    }


def test_the_forms_defaults_are_those_of_the_training() -> None:
    """The form cannot import the training, so this holds the two together."""
    params = distillation_params({})
    for owner in (Shape(), Settings()):
        for name in owner.__slots__:
            if name in params:
                assert params[name].value == getattr(owner, name), name


def test_defaults_are_taken_over_and_checked() -> None:
    """A site names its cluster once; a misspelt field is an error."""
    assert distillation_params({"cluster": "conn://gpus"})["cluster"].value == "conn://gpus"
    with pytest.raises(JobError, match="distil_defaults"):
        distillation_params({"clusters": "conn://gpus"})


def test_the_steps_make_a_model_on_a_cluster(params: dict[str, Any], dask_address: str, tmp_path: Path) -> None:
    """The DAG's five steps, one after the other, on a worker; the registered model scores."""
    for step in STEPS:
        result = run_step(step, params | {"cluster": dask_address})
    assert load_scorer(result["model"], device="cpu").score(["a day"]).shape == (1, 5)
    assert run_step("train_student", params)["model"] == str(tmp_path / "run" / "model")
