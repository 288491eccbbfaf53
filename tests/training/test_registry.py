"""A registered model is replaced in one step, under the eyes of whoever reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from corpuscore.errors import TrainingError
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.srupp.classifier import SRUppClassifier
from corpuscore.scoring.srupp.config import SRUppConfig
from corpuscore.scoring.srupp.folder import save_classifier
from corpuscore.training import registry
from corpuscore.training.stages import register_model
from tests.scoring.checkpoints import LABELS, wordpiece

TEXT = ["a day of soup and storm"]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs whose models have other shapes: files of both together are no model."""
    folders = []
    for number, hidden_size in enumerate((8, 12)):
        torch.manual_seed(number)
        tokenizer = wordpiece()
        config = SRUppConfig(vocab_size=tokenizer.get_vocab_size(), labels=LABELS, hidden_size=hidden_size)
        folders.append(tmp_path / f"run{number}")
        save_classifier(folders[-1] / "model", SRUppClassifier(config), tokenizer)
    return folders


_REGISTER = """
import random, sys
from corpuscore.training.stages import register_model
place, *runs = sys.argv[1:]
for number in range(60):
    register_model(random.choice(runs), place)
"""


def test_a_reader_never_finds_no_model(runs: list[Path], tmp_path: Path) -> None:
    """While one model after the other is registered, every load succeeds, and gives one of them whole."""
    place = tmp_path / "models" / "tiny"
    expected = {}
    for run in runs:
        register_model(str(run), str(place))
        scorer = load_scorer(str(place), device="cpu")
        expected[scorer.info.fingerprint] = scorer.score(TEXT)
    seen = set()
    with subprocess.Popen([sys.executable, "-c", _REGISTER, str(place), *map(str, runs)]) as process:
        while process.poll() is None:
            scorer = load_scorer(str(place), device="cpu")
            np.testing.assert_array_equal(scorer.score(TEXT), expected[scorer.info.fingerprint])
            seen.add(scorer.info.fingerprint)
    assert process.returncode == 0
    assert seen == set(expected)


def test_the_model_before_stays_beside_it(runs: list[Path], tmp_path: Path) -> None:
    """`<name>.previous` is the other model that was there last, also after the same one is registered again."""
    place, names = tmp_path / "models" / "tiny", [describe_scorer(str(run / "model")).fingerprint for run in runs]
    for run in (*runs, runs[1]):
        register_model(str(run), str(place))
    found = [describe_scorer(str(path)).fingerprint for path in (place.with_name("tiny.previous"), place)]
    assert found == names
    assert sorted(path.name for path in place.parent.iterdir()) == [".tiny", "tiny", "tiny.previous"]


def test_a_place_may_move_with_its_folder(runs: list[Path], tmp_path: Path) -> None:
    """Links are relative: a container may see the models under another path."""
    register_model(str(runs[0]), str(tmp_path / "models" / "tiny"))
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    assert load_scorer(str(tmp_path / "elsewhere" / "tiny"), device="cpu").score(TEXT).shape == (1, len(LABELS))


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_that_was_copied_there_is_replaced_too(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """In one step where the file system can exchange two names, else in two; it becomes the one before."""
    place = tmp_path / "models" / "tiny"
    place.parent.mkdir()
    (runs[0] / "model").rename(place)
    before = describe_scorer(str(place)).fingerprint
    if not exchanges:
        monkeypatch.setattr(registry, "_exchange", lambda *_: False)
    register_model(str(runs[1]), str(place))
    assert place.is_symlink()
    assert describe_scorer(str(place)).fingerprint == describe_scorer(str(runs[1] / "model")).fingerprint
    assert describe_scorer(str(place.with_name("tiny.previous"))).fingerprint == before


def test_a_link_that_was_made_by_hand_is_replaced_too(runs: list[Path], tmp_path: Path) -> None:
    """What it led to is left as it is, and is the one before."""
    place = tmp_path / "models" / "tiny"
    place.parent.mkdir()
    place.symlink_to(runs[0] / "model")
    register_model(str(runs[1]), str(place))
    found = [describe_scorer(str(path)).fingerprint for path in (place.with_name("tiny.previous"), place)]
    assert found == [describe_scorer(str(run / "model")).fingerprint for run in runs]


def test_this_file_system_exchanges_a_link_and_a_folder(tmp_path: Path) -> None:
    """What makes the step from a folder to a link a single one."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    if not registry._exchange(tmp_path / "link", tmp_path / "folder"):
        pytest.skip("this file system cannot exchange two names")
    assert (tmp_path / "folder").is_symlink()
    assert not (tmp_path / "link").is_symlink()


def test_versions_that_nobody_reads_any_more_go(runs: list[Path], tmp_path: Path) -> None:
    """One that was replaced long ago is deleted; one that a reader may just have found is not."""
    place = tmp_path / "models" / "tiny"
    versions = place.with_name(".tiny")
    register_model(str(runs[0]), str(place))
    for name, age in (("old", 2 * registry.SPARE_SECONDS), ("fresh", 0)):
        (versions / name).mkdir()
        modified = (versions / name).stat().st_mtime - age
        os.utime(versions / name, (modified, modified))
    register_model(str(runs[1]), str(place))
    left = {path.name for path in versions.iterdir()}
    assert left == {"fresh", *(describe_scorer(str(run / "model")).fingerprint for run in runs)}


def test_a_place_that_cannot_be_written_says_so(runs: list[Path], tmp_path: Path) -> None:
    """A file stands in the way of the folder."""
    (tmp_path / "models").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        register_model(str(runs[0]), str(tmp_path / "models" / "tiny"))
