from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from corpuscore.cli import main
from tests.training.conftest import MAX_TOKENS, SETTINGS, SHAPE


def _flags(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def _distil(teacher: str, labelled: str, corpus: str, into: Path, *more: str) -> list[str]:
    sizes = _flags(**SHAPE, **SETTINGS, max_tokens=MAX_TOKENS, device="cpu", held_out=0.2)
    return ["train", "distil", *_flags(teacher=teacher, labels=labelled, texts=corpus, into=into), *sizes, *more]


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_distil_and_evaluate_from_the_command_line(teacher: str, labelled: str, corpus: str, tmp_path: Path) -> None:
    """One command makes the model, plain lines tell how far it is, another command judges it; errors are one line."""
    command = _distil(teacher, labelled, corpus, tmp_path / "run")
    made = _run(*command)
    assert made.exit_code == 0, made.output
    assert made.stdout.strip() == str(tmp_path / "run" / "model")
    assert "epoch 3/3: loss" in made.stderr
    assert "kept epoch" in made.stderr

    model = made.stdout.strip()
    judged = _run("evaluate", "--json", *_flags(model=model, data=labelled, tune=tmp_path / "run/held-out.tsv"))
    assert 0 <= json.loads(judged.stdout)["macro_f1"] <= 1
    table = _run("evaluate", *_flags(model=model, data=labelled))
    assert "documents/s" in table.stdout
    assert "joy" in table.stdout

    other = _run(*command, "--gold-share", "0.7")
    assert other.exit_code == 1
    assert "gold_share was 0.5, now 0.7" in other.stderr
    assert _run(*command, "--gold-share", "0.7", "--fresh").exit_code == 0


def test_finetune_from_the_command_line(teacher: str, labelled: str, tmp_path: Path) -> None:
    """Gold labels and a checkpoint are enough."""
    sizes = _flags(epochs=1, batch_tokens=256, max_tokens=MAX_TOKENS, device="cpu")
    made = _run("train", "finetune", *_flags(model=teacher, data=labelled, into=tmp_path / "run"), *sizes)
    assert made.exit_code == 0, made.output
    assert (tmp_path / "run/model/model.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--data", "none.tsv"], 1, "cannot be read"),
        (["--data", "same.tsv", "--tune", "same.tsv"], 2, "are both"),
        ([], 2, "Missing option '--data'"),
    ],
)
def test_bad_arguments_end_with_their_status(more: list[str], status: int, said: str) -> None:
    """2 for arguments, 1 for what they point to."""
    found = _run("evaluate", "--device", "cpu", *more)
    assert found.exit_code == status
    assert said in found.stderr


def test_a_killed_command_goes_on_where_it_was(teacher: str, labelled: str, corpus: str, tmp_path: Path) -> None:
    """kill -9 in mid-training, then the same command: the model is that of a run that nobody touched."""
    longer = ("--epochs", "6", "--save-every", "5")
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the tests have; sums depend on the number of threads
    killed = _distil(teacher, labelled, corpus, tmp_path / "killed", *longer)
    with subprocess.Popen(
        [sys.executable, "-m", "corpuscore", *killed], stderr=subprocess.DEVNULL, env=one_thread
    ) as process:
        checkpoints = tmp_path / "killed/checkpoints"
        while not list(checkpoints.glob("step-*.pt")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "killed/model").exists()
    assert _run(*killed).exit_code == 0
    assert _run(*_distil(teacher, labelled, corpus, tmp_path / "whole", *longer)).exit_code == 0
    whole, again = (tmp_path / name / "model/model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == again.read_bytes()
