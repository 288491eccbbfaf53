"""A classifier as one folder: config.json, model.safetensors, tokenizer.json.

Weights are stored as fp32, fp16, or int8 with one fp32 scale a row; they load as fp32. In int8, matrices become
`round(row / scale)` with `scale = max |row| / 127`, beside them `NAME.scale`; vectors stay fp16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.scoring.nn.srupp_classifier import MODEL_TYPE, SRUppClassifier, SRUppConfig

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
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    _write(folder / TOKENIZER, tokenizer.to_str().encode())
    _write(folder / WEIGHTS, save(_packed(state, storage), metadata={"format": "pt"}))
    _write(folder / CONFIG, (json.dumps(model.config.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def load_classifier(folder: Path) -> tuple[SRUppClassifier, Tokenizer]:
    """The model, in fp32 on the CPU and ready to score, and its tokenizer without truncation or padding.

    Raises:
        ModelError: A file is missing or broken, the model is of another type, or the files don't belong together.
    """
    model = load_network(folder)
    return model, _tokenizer(folder / TOKENIZER, model.config.vocab_size)


def load_network(folder: Path) -> SRUppClassifier:
    """The model alone; see load_classifier."""
    model = SRUppClassifier(read_config(folder))
    try:
        model.load_state_dict(_unpacked(load(_read(folder / WEIGHTS))))
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise _broken(folder / WEIGHTS, str(error)) from error
    return model.eval()


def read_config(folder: Path) -> SRUppConfig:
    """The configuration in a folder.

    Raises:
        ModelError: There is none, or it is not that of an SRU++ classifier.
    """
    path = folder / CONFIG
    try:
        value = json.loads(_read(path))
        if value.get("model_type") == MODEL_TYPE:
            return SRUppConfig.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error
    raise _broken(path, f"model_type is {value.get('model_type')!r} instead of {MODEL_TYPE!r}")


def _packed(state: dict[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    if storage == "fp32":
        return {name: tensor.contiguous() for name, tensor in state.items()}
    packed = {}
    for name, tensor in state.items():
        if storage == "int8" and tensor.dim() == 2:
            packed[name], packed[name + _SCALE] = _quantised(tensor)
        else:
            packed[name] = tensor.half().contiguous()
    return packed


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (rows / scale[:, None]).round().to(torch.int8), scale


def _unpacked(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            state[name] = tensor.float() * stored[name + _SCALE][:, None]
        elif not name.endswith(_SCALE):
            state[name] = tensor.float()
    return state


def _tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    text = _read(path)
    try:
        tokenizer = Tokenizer.from_str(text.decode())
    except Exception as error:  # the library raises bare Exception for whatever it cannot read
        raise _broken(path, str(error)) from error
    if tokenizer.get_vocab_size() > vocab_size:
        raise _broken(path, f"it has {tokenizer.get_vocab_size()} tokens for {vocab_size} rows of the embedding")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


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


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def _broken(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is not part of an SRU++ classifier: {reason}",
        next_step="copy the model's folder again, or write it again with `corpuscore train distil`",
    )
