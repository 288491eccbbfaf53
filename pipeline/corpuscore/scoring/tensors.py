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
        ModelError: As tensor_shapes; or a wanted tensor is stored in a type that numpy lacks.
    """
    with _opened(path) as file:
        for name in filter(wanted, file.keys()):
            try:
                array = file.get_tensor(name)
            except (AttributeError, SafetensorError) as error:  # the first for 8 bits, the second for fewer
                raise ModelError(
                    f"{path}: {name} is stored as {file.get_slice(name).get_dtype()}",
                    rule="weights are floating-point numbers of 16 bits or more",
                    next_step="load the model where it was made, and save it as float16 or bfloat16",
                ) from error
            yield name, array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        what = "cannot be read" if isinstance(error, OSError) else "is corrupt"
        raise ModelError(f"{path} {what}: {error}", next_step="copy or download it again") from error
    with file as tensors:
        yield tensors
