"""What the hardware gives at best: a large matrix product, measured here and now, in the precision that counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

#: Rows and columns of the square product, by device: beyond caches, within a second.
_SIZE = {"cpu": 2_048, "cuda": 8_192}
_REPEATS = 7


def product_rate(precision: str, device: str, threads: int) -> float:
    """Operations a second (a multiplication and an addition are two) of a bare product; 0 where there is none.

    Args:
        precision: fp32, bf16, fp16 or int8; fp8 is measured against bf16.
        device: cpu or cuda.
        threads: CPU threads.
    """
    import torch

    torch.set_num_threads(threads)
    size = _SIZE[device]
    if precision == "int8":
        left = torch.randint(-127, 127, (size, size), dtype=torch.int8, device=device)
        product: Callable[[], object] = lambda: torch._int_mm(left, left)  # noqa: E731
    else:
        kinds = {"fp32": torch.float32, "fp16": torch.float16}
        matrix = torch.randn(size, size, dtype=kinds.get(precision, torch.bfloat16), device=device)
        product = lambda: matrix @ matrix  # noqa: E731
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return 2 * size**3 / statistics.median(_seconds(product, wait) for _ in range(_REPEATS))


def _seconds(product: Callable[[], object], wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    product()
    wait()
    return time.perf_counter() - start


def operations_a_token(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Operations of the matrix products of one token's way through the layers: two for each weight.

    Attention between tokens, embeddings and the head are left out: shares are understated, never flattered.

    Args:
        shapes: Shape of each tensor of the checkpoint, by name.
    """
    matrices = (shape for name, shape in shapes.items() if len(shape) == 2 and _in_layers(name))
    return 2 * sum(rows * columns for rows, columns in matrices)


def _in_layers(name: str) -> bool:
    return not any(part in name for part in ("embedding", "classifier", "pooler", "head."))


def checkpoint_operations(weights: tuple[Path, ...]) -> int:
    """operations_a_token of some safetensors files."""
    from corpuscore.scoring.tensors import tensor_shapes

    return sum(operations_a_token(tensor_shapes(path)) for path in weights if path.suffix == ".safetensors")
