"""Weights of a checkpoint as fp32 arrays of numpy, for native code: neither torch nor transformers is imported.

Pickles are the exception: only torch reads them safely.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corpuscore.errors import ModelError
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.tensors import read_tensors

Floats = npt.NDArray[np.float32]

#: Types that are weights by themselves; others are positions, or mean something only with a scale.
_FLOATS = ("float64", "float32", "float16", "bfloat16")
#: What the norms of checkpoints converted from TensorFlow are called.
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


def read_weights(checkpoint: Checkpoint) -> dict[str, Floats]:
    """Every floating-point tensor by its name in transformers.

    Raises:
        ModelError: A file is corrupt, or a pickle holds more than tensors.
    """
    files = (_pickled(path, checkpoint.name) if checkpoint.pickled else _stored(path) for path in checkpoint.weights)
    return {_present_name(name): array for tensors in files for name, array in tensors}


def _present_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_OLD_NAMES[last]}" if last in _OLD_NAMES else name


def _stored(path: Path) -> Iterator[tuple[str, Floats]]:
    for name, array in read_tensors(path):
        if array.dtype.name in _FLOATS:
            yield name, array.astype(np.float32)


def _pickled(path: Path, model: str) -> Iterator[tuple[str, Floats]]:
    import torch

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
            raise TypeError("it holds no tensors by name")
        yield from ((name, tensor.float().numpy()) for name, tensor in tensors.items() if tensor.is_floating_point())
    except Exception as error:  # what damaged bytes raise is torch's choice
        raise ModelError(
            f"Model {model}: {path.name} cannot be read ({type(error).__name__}: {str(error)[:300]})",
            rule="a pickle of weights holds tensors and nothing else",
            next_step="load it once with transformers, and save it again as safetensors",
        ) from error
