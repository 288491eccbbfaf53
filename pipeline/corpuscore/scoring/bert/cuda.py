"""The unpadded path on a GPU: captured programs for fixed shapes, pinned buffers, no waiting in the loop.

    pack -> pinned buffer -> (copy) -> static input -> CUDA graph -> (copy) -> pinned result

All of it is queued on one stream, so that nothing waits until a result is wanted; meanwhile the next pack is written
into another buffer and queued behind. On device="cpu" the same code runs without graphs and without pinning, which
is how its logic is tested where there is no GPU.

Shape suffixes: T tokens, S documents, L labels, H heads, D width of a head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpuscore.records import ScorerInfo
from corpuscore.scoring.accelerator import Passes, Slot, flash_attention, free_bytes, has_flash
from corpuscore.scoring.bert import shapes
from corpuscore.scoring.bert.fp8 import use_fp8
from corpuscore.scoring.bert.packed import load_packed
from corpuscore.scoring.bert.positions import padding_before, positions
from corpuscore.scoring.bert.within import Attend, GroupedAttention
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenized import QueuedBackend
from corpuscore.scoring.weights.transformers_model import DTYPES, check_ids

_log = logging.getLogger(__name__)

#: offsets int32 [S + 1], longest -> attention within documents
Within = Callable[[torch.Tensor, int], Attend]


def varlen_attention(offsets: torch.Tensor, longest: int) -> Attend:
    """Flash attention within documents; bf16 and fp16 only, heads of a multiple of 8."""

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        q_THD, k_THD, v_THD = (one[0].transpose(0, 1) for one in (query, key, value))
        reach = (-1, -1) if window is None else (window - 1, window - 1)
        return flash_attention(q_THD, k_THD, v_THD, offsets, longest, scale=scaling, window=reach)[None]

    return attend


def masked_attention(offsets: torch.Tensor, longest: int) -> Attend:  # noqa: ARG001  (a Within)
    """The same in plain torch with a mask of T x T: the reference for the kernel, on any device."""

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        place = torch.arange(query.shape[2], device=query.device)
        document = torch.searchsorted(offsets[1:].long(), place, right=True)
        allowed = document[:, None] == document[None, :]
        if window is not None:
            allowed &= (place[:, None] - place[None, :]).abs() < window
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scaling)
        return out.transpose(1, 2)

    return attend


@dataclass(slots=True)
class _Program:
    """The forward pass for one shape: static input, static output, and what fills the one from the other."""

    numbers: torch.Tensor
    rows_SL: torch.Tensor
    run: Callable[[], None]


class CudaBackend(QueuedBackend):
    """A Pipelined Backend for the BERT family in bf16, fp16, fp32 or fp8.

    Args:
        checkpoint: Already checked.
        info: Resolved precision: fp8 needs a GPU of capability 8.9 or higher.
        device: cuda; cpu runs the same logic, for tests.
        threads: Of the tokenizer.

    Raises:
        JobError: fp8 on a GPU that has none.
        ModelError: Weights that do not fit the config.
    """

    def __init__(
        self, checkpoint: Checkpoint, info: ScorerInfo, *, device: str = "cuda", threads: int | None = None
    ) -> None:
        super().__init__(checkpoint, info, threads)
        self._device = device
        self._classifier = load_packed(checkpoint, info.precision, device, info.activation)
        self._config = self._classifier.model.config
        self._padding = padding_before(checkpoint.config)
        if info.precision == "fp8":
            use_fp8(self._classifier, device)
        groups = self._classifier.needs_groups
        self._within = None if groups else _choose_attention(self._config, info.precision, device)
        self._forward = _compiled(self._classify) if device == "cuda" else self._classify
        self._programs: dict[shapes.Shape, _Program] = {}
        self._pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
        self._passes = Passes(device)

    @property
    def token_budget(self) -> int:
        """From the bytes that a token takes and the memory that is free."""
        return shapes.token_budget(self._config, DTYPES[self._info.precision].itemsize, free_bytes(self._device))

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pack; see QueuedBackend.

        Raises:
            ValueError: A sequence has no token.
            IndexError: A token has no row in the embedding.
        """
        check_ids(tokens, self._classifier.model)
        queue = self._exact if self._within is None else self._queue
        return self._passes.submit(len(tokens.lengths), partial(queue, tokens))

    def _queue(self, tokens: Tokens, slot: Slot) -> torch.Tensor:
        shape = shapes.shape_for(tokens)
        numbers = slot.room(shape.size)
        shapes.fill(numbers.numpy(), tokens, positions(tokens.ids, tokens.offsets, self._padding), shape)
        program = self._program(shape)
        program.numbers.copy_(numbers, non_blocking=True)
        program.run()
        return program.rows_SL

    def _exact(self, tokens: Tokens, slot: Slot) -> torch.Tensor:
        """Without the flash kernel: torch's own attention for documents of equal length."""
        count = len(tokens.ids)
        numbers = slot.room(2 * count + len(tokens.offsets))
        places = positions(tokens.ids, tokens.offsets, self._padding)
        np.concatenate([tokens.ids, places, tokens.offsets], out=numbers.numpy(), casting="same_kind")
        on_device = numbers.to(self._device, non_blocking=True).long()
        ids_T, positions_T, offsets = on_device[:count], on_device[count : 2 * count], on_device[2 * count :]
        attend = GroupedAttention(tokens.lengths.tolist())
        rows_SL: torch.Tensor = self._classifier(ids_T, positions_T, offsets, attend)
        return rows_SL

    def _classify(self, numbers: torch.Tensor, tokens: int, longest: int) -> torch.Tensor:
        """The whole forward pass on one flat buffer: float32 [S, L]."""
        assert self._within is not None  # noqa: S101  (for the type checker; `submit` took the other branch)
        offsets = numbers[2 * tokens :]
        ids_T, positions_T = numbers[:tokens].long(), numbers[tokens : 2 * tokens].long()
        rows_SL: torch.Tensor = self._classifier(ids_T, positions_T, offsets, self._within(offsets, longest))
        return rows_SL

    def _program(self, shape: shapes.Shape) -> _Program:
        if shape not in self._programs:
            self._programs[shape] = self._capture(shape) if self._device == "cuda" else self._eager(shape)
        return self._programs[shape]

    def _eager(self, shape: shapes.Shape) -> _Program:
        numbers = torch.zeros(shape.size, dtype=torch.int32, device=self._device)
        rows_SL = torch.zeros(shape.documents, len(self._info.labels), device=self._device)

        def run() -> None:
            rows_SL.copy_(self._forward(numbers, shape.tokens, shape.longest))

        return _Program(numbers, rows_SL, run)

    def _capture(self, shape: shapes.Shape) -> _Program:
        """Warm up on a side stream, as capturing demands, then record the pass as a CUDA graph."""
        program = self._eager(shape)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                program.run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            program.run()
        return _Program(program.numbers, program.rows_SL, graph.replay)


def _choose_attention(config: Any, precision: str, device: str) -> Within | None:
    """The flash kernel where it can be used; None: documents of equal length in batches, which is slower."""
    if device == "cpu":
        return masked_attention
    width = config.hidden_size // config.num_attention_heads
    if has_flash(device, DTYPES[precision], width):
        return varlen_attention
    _log.warning(
        "Precision %s with heads of %d on this GPU runs without flash attention and CUDA graphs, which is slower; "
        "they need bf16 or fp16, heads of a multiple of 8 and a GPU of capability 8.0 or higher.",
        precision,
        width,
    )
    return None


def _compiled(classify: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Fused by torch.compile, once for all shapes; plain, and said so, where Triton is missing."""
    try:
        import triton  # noqa: F401
    except ImportError:
        _log.warning("Triton is not installed: the forward pass runs without fused kernels, which is slower.")
        return classify
    return torch.compile(classify, dynamic=True)
