"""Tensors in a safetensors file: shapes without values, and values as numpy arrays, without torch.

tensor_shapes(path)     name -> shape, from the header; the file's length is checked against it
read_tensors(path)      name, array; bfloat16 is a type of numpy too, by ml_dtypes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes bfloat16 known to numpy)
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from corpuscore.errors import ModelError


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor.

    Raises:
        ModelError: There is no such file, its header cannot be read, or it is not as long as the header says.
    """
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)


def read_tensors(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and values of each tensor, in the type in which they are stored.

    Args:
        path: The file.
        wanted: By the name, whether a tensor is to be read.

    Raises:
        ModelError: As tensor_shapes.
    """
    with _opened(path) as file:
        for name in filter(wanted, file.keys()):
            yield name, file.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        what = (
            f"cannot be read: {error.strerror}"
            if isinstance(error, OSError) and error.strerror
            else f"is corrupt: {error}"
        )
        raise ModelError(f"{path} {what}", next_step="copy or download it again") from error
    with file as tensors:
        yield tensors
