import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpuscore.errors import ModelError
from corpuscore.scoring.tensors import read_tensors, tensor_shapes


def stored(dtype: str, shape: list[int], data: bytes) -> bytes:
    """A safetensors file with one tensor."""
    header = json.dumps({"a.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


WHOLE = stored("F32", [3, 1], np.arange(3, dtype="<f4").tobytes())

BROKEN = {
    "empty": b"",
    "cut in the header": WHOLE[:30],
    "cut in the values": WHOLE[:-1],
    "longer than it says": WHOLE + b"\0",
    "no JSON": (4).to_bytes(8, "little") + b"oops",
    "of an unknown type": stored("F33", [3], b"\0" * 12),
    "a page that was downloaded instead": b"<!DOCTYPE html><title>404</title>",
    "a pointer to a large file": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a pickle": b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01K\x01s.",
}


def values(path: Path) -> object:
    """All that can be read."""
    return dict(read_tensors(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "model.safetensors"


def test_shapes_and_values_are_those_that_were_stored(path: Path) -> None:
    """Shapes come from the header alone, values in their own type, and only those that are wanted."""
    path.write_bytes(WHOLE)
    assert tensor_shapes(path) == {"a.weight": (3, 1)}
    ((name, array),) = read_tensors(path)
    assert (name, array.dtype.name, array.tolist()) == ("a.weight", "float32", [[0], [1], [2]])
    assert not list(read_tensors(path, lambda name: name.startswith("b")))


def test_bfloat16_is_the_upper_half_of_float32(path: Path) -> None:
    """It widens without rounding."""
    path.write_bytes(stored("BF16", [2], np.array([1.5, -3], "<f4").view("<u2")[1::2].tobytes()))
    ((_, array),) = read_tensors(path)
    assert array.astype(np.float32).tolist() == [1.5, -3]


@pytest.mark.parametrize("read", [tensor_shapes, values])
@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_or_foreign_file_is_corrupt(path: Path, read: Callable[[Path], object], damage: str) -> None:
    """One error, whatever is wrong and whoever reads: it names the file and what to do."""
    path.write_bytes(BROKEN[damage])
    with pytest.raises(ModelError, match=r"model\.safetensors is corrupt: .+ Next: copy or download it again"):
        read(path)


@pytest.mark.parametrize("read", [tensor_shapes, values])
def test_a_file_that_is_not_there_is_not_called_corrupt(path: Path, read: Callable[[Path], object]) -> None:
    """What the system says stands in the message."""
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: No such file"):
        read(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_a_type_that_numpy_lacks_is_named(path: Path, dtype: str) -> None:
    """Values in 8 bits mean something with their scale only; their shapes can be read."""
    path.write_bytes(stored(dtype, [2], b"\0\0"))
    assert tensor_shapes(path) == {"a.weight": (2,)}
    with pytest.raises(ModelError, match=rf"a\.weight is stored as {dtype}.*save it as float16"):
        values(path)
