"""What every file in scoring/backends must keep; a new one is picked up by its name."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpuscore.scoring import load_scorer
from corpuscore.scoring.backends import backend_names
from corpuscore.scoring.devices import DEVICES
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Backend
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE, write_checkpoint

NAMES = backend_names()
#: Every precision that a ScorerInfo may have.
PRECISIONS = {"fp32", "bf16", "fp16", "int8", "fp8"}


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_says_what_it_can_do(name: str) -> None:
    """Its precisions are known ones on known devices, and it has nothing to say to a config without a type."""
    module = importlib.import_module(f"corpuscore.scoring.backends.{name}")
    assert set(module.PRECISIONS) <= set(DEVICES)
    assert all(offered and set(offered) <= PRECISIONS for offered in module.PRECISIONS.values())
    assert isinstance(module.FALLBACK, bool)
    assert module.accepts({}) is False
    assert module.max_tokens({}) is None
    assert callable(module.check)
    assert callable(module.load)


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_says_what_it_computes_with(name: str, tmp_path: Path) -> None:
    """Nothing that was not asked for, but fp32 where that is faster; and on a CPU what tells its bits apart."""
    config = json.loads((write_checkpoint(tmp_path) / "config.json").read_text())
    module = importlib.import_module(f"corpuscore.scoring.backends.{name}")
    for device, offered in module.PRECISIONS.items():
        for precision in offered:
            found = module.arithmetic(config, device, precision)
            assert found.precision in (precision, "fp32")
            assert device == "cuda" or found.kind


def test_fallbacks_are_asked_last() -> None:
    """auto takes a fallback only where nothing else accepts."""
    flags = [importlib.import_module(f"corpuscore.scoring.backends.{name}").FALLBACK for name in NAMES]
    assert flags == sorted(flags)


def test_importing_backends_is_cheap() -> None:
    """No file in backends needs torch or transformers before it loads a model."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from corpuscore.scoring.backends import backend_names; print(*backend_names())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == NAMES


@pytest.fixture(scope="module", params=["bert", "transformers"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """A backend with a tiny model."""
    folder: Path = write_checkpoint(tmp_path_factory.mktemp("model"))
    scorer = load_scorer(str(folder), device="cpu", backend=request.param, max_tokens=MAX_POSITIONS)
    assert isinstance(scorer, Engine)
    return scorer._backend


def test_tokens_are_flat_and_cut(loaded: Backend) -> None:
    """int32 ids end to end with int64 offsets, special tokens at both ends, cut where asked, and said so."""
    tokens = loaded.tokenize([SAMPLE[0], "", " ".join(SAMPLE)], 16)
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.dtype(np.int32), np.dtype(np.int64))
    assert tokens.offsets[0] == 0
    assert tokens.offsets[-1] == len(tokens.ids)
    assert tokens.lengths[1] == sum(loaded.special_tokens)
    assert tokens.lengths.max() == 16
    assert tokens.truncated is not None
    assert tokens.truncated.tolist() == [tokens.lengths[0] == 16, False, True]


def test_rows_are_probabilities_and_independent(loaded: Backend) -> None:
    """float32 [S, L] between 0 and 1, a row a sequence, the same in any company."""
    tokens = loaded.tokenize(SAMPLE[:5], MAX_POSITIONS)
    rows = loaded.forward(tokens)
    assert rows.dtype == np.float32
    assert rows.shape == (5, len(loaded.info.labels))
    assert ((rows >= 0) & (rows <= 1)).all()
    alone: Callable[[str], np.ndarray] = lambda text: loaded.forward(loaded.tokenize([text], MAX_POSITIONS))  # noqa: E731
    assert max(np.abs(alone(text)[0] - row).max() for text, row in zip(SAMPLE[:5], rows, strict=True)) < 1e-6
