"""A classifier as one folder: config.json, model.safetensors, tokenizer.json. torch is imported for its network alone.

Weights are stored as fp32, fp16, or int8 with one fp32 scale a row; they load as fp32. In int8, matrices become
`round(row / scale)` with `scale = max |row| / 127`, beside them `NAME.scale`; vectors stay fp16.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from tokenizers import Tokenizer

from corpuscore.errors import ModelError
from corpuscore.files import write_whole
from corpuscore.scoring.srupp.config import MODEL_TYPE, SRUppConfig
from corpuscore.scoring.tensors import read_tensors
from corpuscore.scoring.weights.arrays import Floats

if TYPE_CHECKING:
    from corpuscore.scoring.srupp.classifier import SRUppClassifier

Storage = Literal["fp32", "fp16", "int8"]

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
_SCALE = ".scale"


def save_classifier(folder: Path, model: SRUppClassifier, tokenizer: Tokenizer, storage: Storage = "fp32") -> None:
    """Write the three files, each whole or not at all; the folder is made where it is missing.

    Args:
        folder: Where to; files of the same names are replaced.
        model: Whose weights and configuration.
        tokenizer: What makes its token ids.
        storage: How weights are kept; int8 is a quarter of fp32.
    """
    state = {name: tensor.detach().cpu().float().numpy() for name, tensor in model.state_dict().items()}
    write_whole(folder / TOKENIZER, tokenizer.to_str().encode())
    write_whole(folder / WEIGHTS, save(_packed(state, storage), metadata={"format": "pt"}))
    write_whole(folder / CONFIG, (json.dumps(model.config.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def load_network(folder: Path) -> SRUppClassifier:
    """The network, in fp32 on the CPU and ready to score.

    Raises:
        ModelError: A file is missing or broken, the model is of another type, or the files don't belong together.
    """
    import torch

    from corpuscore.scoring.srupp.classifier import SRUppClassifier

    model = SRUppClassifier(read_config(folder))
    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in read_state(folder).items()})
    except RuntimeError as error:
        raise broken(folder, str(error)) from error
    return model.eval()


def read_state(folder: Path) -> dict[str, Floats]:
    """The weights by name, in fp32.

    Raises:
        ModelError: The file is missing or broken.
    """
    try:
        return _unpacked(dict(read_tensors(folder / WEIGHTS)))
    except (KeyError, ValueError) as error:
        raise broken(folder, str(error)) from error


def read_config(folder: Path) -> SRUppConfig:
    """The configuration in a folder.

    Raises:
        ModelError: There is none, or it is not that of an SRU++ classifier.
    """
    try:
        value = json.loads(_read(folder / CONFIG))
        if value.get("model_type") == MODEL_TYPE:
            return SRUppConfig.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(folder, f"{type(error).__name__}: {error}", CONFIG) from error
    raise broken(folder, f"model_type is {value.get('model_type')!r} instead of {MODEL_TYPE!r}", CONFIG)


def _packed(state: Mapping[str, Floats], storage: Storage) -> dict[str, npt.NDArray[Any]]:
    if storage == "fp32":
        return {name: np.ascontiguousarray(array) for name, array in state.items()}
    packed: dict[str, npt.NDArray[Any]] = {}
    for name, array in state.items():
        if storage == "int8" and array.ndim == 2:
            packed[name], packed[name + _SCALE] = _quantised(array)
        else:
            packed[name] = array.astype(np.float16)
    return packed


def _quantised(rows: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    scale = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    return (rows / scale[:, None]).round().astype(np.int8), scale


def _unpacked(stored: Mapping[str, npt.NDArray[Any]]) -> dict[str, Floats]:
    state = {}
    for name, array in stored.items():
        if array.dtype == np.int8:
            state[name] = array.astype(np.float32) * stored[name + _SCALE][:, None]
        elif not name.endswith(_SCALE):
            state[name] = array.astype(np.float32)
    return state


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(
            f"{path}: {reason}",
            rule=f"an SRU++ model is a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}",
            next_step="give the folder that `corpuscore train distil --into` wrote",
        ) from error


def broken(folder: Path, reason: str, name: str = WEIGHTS) -> ModelError:
    """The error for a file of the folder that cannot be used."""
    return ModelError(
        f"{folder / name} is not part of an SRU++ classifier: {reason}",
        next_step="copy the model's folder again, or write it again with `corpuscore train distil`",
    )
