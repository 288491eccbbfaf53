"""Weights read without torch: every storage type, old names, pickles, damage."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from corpuscore.errors import ModelError
from corpuscore.scoring.checkpoint import Checkpoint, find_checkpoint
from corpuscore.scoring.kernels import build
from corpuscore.scoring.weights.arrays import read_weights
from tests.scoring.checkpoints import write_checkpoint

NORM = "bert.encoder.layer.0.output.LayerNorm"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A small BERT."""
    return find_checkpoint(str(write_checkpoint(tmp_path)))


def tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights as torch reads them."""
    return safetensors.torch.load_file(checkpoint.weights[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_storage_type_is_read_as_torch_reads_it(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """In fp32, bit for bit; integers are no weights."""
    stored = {name: tensor.to(dtype) for name, tensor in tensors(checkpoint).items()}
    safetensors.torch.save_file({**stored, "position_ids": torch.arange(4)}, checkpoint.weights[0])
    read = read_weights(checkpoint)
    assert read.keys() == stored.keys()
    for name, tensor in stored.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], tensor.float().numpy())


def test_old_names_of_norms_are_understood(checkpoint: Checkpoint) -> None:
    """gamma and beta, as converters from TensorFlow wrote them."""
    given = tensors(checkpoint)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in given.items()}
    old = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in old.items()}
    safetensors.torch.save_file(old, checkpoint.weights[0])
    read = read_weights(checkpoint)
    assert read.keys() == given.keys()
    np.testing.assert_array_equal(read[f"{NORM}.bias"], given[f"{NORM}.bias"].numpy())


def test_pickles_are_read_as_tensors_only(checkpoint: Checkpoint) -> None:
    """The same weights from a pickle; one that would run code is refused."""
    pickle = checkpoint.folder / "pytorch_model.bin"
    torch.save(tensors(checkpoint), pickle)
    pickled = replace(checkpoint, weights=(pickle,))
    read, expected = read_weights(pickled), read_weights(checkpoint)
    assert read.keys() == expected.keys()
    np.testing.assert_array_equal(read[f"{NORM}.weight"], expected[f"{NORM}.weight"])
    torch.save({"weights": subprocess.Popen}, pickle)
    with pytest.raises(ModelError, match="pytorch_model.bin cannot be read"):
        read_weights(pickled)


@pytest.mark.skipif(bool(build.why_missing("encoder.cpp")), reason=build.why_missing("encoder.cpp"))
@pytest.mark.parametrize("model", ["bundled", "bert"])
def test_scoring_on_the_cpu_imports_neither_torch_nor_transformers(model: str, checkpoint: Checkpoint) -> None:
    """A worker that starts without them is ready in a second rather than in ten."""
    name = model if model == "bundled" else str(checkpoint.folder)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from corpuscore.scoring import load_scorer\n"
        f"print(load_scorer({name!r}, device='cpu', max_tokens=40).score(['soup']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(1, ")
