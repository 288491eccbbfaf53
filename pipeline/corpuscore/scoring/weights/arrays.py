"""Weights of a checkpoint as fp32 arrays of numpy, for native code: neither torch nor transformers is imported.

Pickles are the exception: only torch reads them safely.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from corpuscore.errors import ModelError
from corpuscore.scoring.checkpoint import Checkpoint

Floats = npt.NDArray[np.float32]

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: What the norms of checkpoints converted from TensorFlow are called.
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


def read_weights(checkpoint: Checkpoint) -> dict[str, Floats]:
    """Every floating-point tensor by its name in transformers.

    Raises:
        ModelError: A file is corrupt, or a pickle holds more than tensors.
    """
    read = _pickled if checkpoint.pickled else _stored
    files = (read(path, checkpoint.name) for path in checkpoint.weights)
    return {_present_name(name): array for tensors in files for name, array in tensors}


def _present_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_OLD_NAMES[last]}" if last in _OLD_NAMES else name


def _stored(path: Path, model: str) -> Iterator[tuple[str, Floats]]:
    try:
        tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ModelError(
            f"Model {model}: {path.name} is corrupt: {error}", next_step="copy or download it again"
        ) from error
    for name, entry in tensors:
        if entry["dtype"] in _DTYPES:
            values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
            yield name, _fp32(values, entry["dtype"]).reshape(entry["shape"])


def _fp32(values: npt.NDArray[Any], dtype: str) -> Floats:
    if dtype == "BF16":  # the upper half of an fp32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.array(values, np.float32)


def _pickled(path: Path, model: str) -> Iterator[tuple[str, Floats]]:
    import pickle

    import torch

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"Model {model}: {path.name} cannot be read ({type(error).__name__}: {error})",
            rule="a pickle of weights holds tensors and nothing else",
            next_step="load it once with transformers, and save it again as safetensors",
        ) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            yield name, tensor.float().numpy()
