"""The unpadded path on a GPU: captured programs for fixed shapes, pinned buffers, no waiting in the loop.

    pack -> pinned buffer -> (copy) -> static input -> CUDA graph -> (copy) -> pinned result

All of it is queued on one stream, so that nothing waits until a result is wanted; meanwhile the next pack is written
into another buffer and queued behind. On device="cpu" the same code runs without graphs and without pinning, which
is how its logic is tested where there is no GPU.

Shape suffixes: T tokens, S documents, L labels, H heads, D width of a head.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention.varlen import varlen_attn

from corpuscore.records import ScorerInfo
from corpuscore.scoring.bert import packed, shapes
from corpuscore.scoring.bert.fp8 import use_fp8
from corpuscore.scoring.bert.positions import padding_before, positions
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.tokenized import TokenizedBackend
from corpuscore.scoring.weights.transformers_model import DTYPES, load_model

_log = logging.getLogger(__name__)

#: Exit status of a process whose CUDA context is broken; every later call in it would fail.
BROKEN_CONTEXT = 70

#: offsets int32 [S + 1], longest -> attention within documents
Within = Callable[[torch.Tensor, int], packed.Attend]


def varlen_attention(offsets: torch.Tensor, longest: int) -> packed.Attend:
    """Flash attention within documents; bf16 and fp16 only, heads of a multiple of 8."""

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        q_THD, k_THD, v_THD = (one[0].transpose(0, 1) for one in (query, key, value))
        reach = (-1, -1) if window is None else (window - 1, window - 1)
        # The kernel splits no document's keys here, so that its sums do not depend on its neighbours.
        out_THD = varlen_attn(q_THD, k_THD, v_THD, offsets, offsets, longest, longest, scale=scaling, window_size=reach)
        assert isinstance(out_THD, torch.Tensor)  # noqa: S101  (a tuple only where more was asked for)
        return out_THD[None]

    return attend


def masked_attention(offsets: torch.Tensor, longest: int) -> packed.Attend:  # noqa: ARG001  (a Within)
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
class _Slot:
    """A place for a pack under way.

    Attributes:
        numbers: Host buffer of the pack, pinned on a GPU.
        rows: Host buffer of the result, likewise.
        done: Passed when the result has arrived; None on the CPU, where it has when the call returns.
    """

    numbers: torch.Tensor
    rows: torch.Tensor
    done: torch.cuda.Event | None

    def collect(self, documents: int) -> npt.NDArray[np.float32]:
        """Wait for the result, and copy it out of the buffer."""
        with _translated():
            if self.done is not None:
                self.done.synchronize()
            return self.rows[:documents].numpy().copy()


@dataclass(slots=True)
class _Program:
    """The forward pass for one shape: static input, static output, and what fills the one from the other."""

    numbers: torch.Tensor
    rows_SL: torch.Tensor
    run: Callable[[], None]


class CudaBackend(TokenizedBackend):
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
        model = load_model(checkpoint, info.precision, device, packed.ATTENTION)
        self._classifier = packed.PackedClassifier(model, info.activation)
        self._config = model.config
        self._padding = padding_before(checkpoint.config)
        if info.precision == "fp8":
            use_fp8(self._classifier, device)
        self._within = _choose_attention(self._config, info.precision, device)
        self._forward = _compiled(self._classify) if device == "cuda" else self._classify
        self._programs: dict[shapes.Shape, _Program] = {}
        self._pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
        self._free = [self._slot(), self._slot()]  # more are made where several streams have passes under way
        self._queueing = threading.Lock()  # copy in, run and copy out of one pass stand together on the GPU's stream

    @property
    def token_budget(self) -> int:
        """From the bytes that a token takes and the memory that is free."""
        free_bytes = torch.cuda.mem_get_info()[0] if self._device == "cuda" else 2**30
        return shapes.token_budget(self._config, DTYPES[self._info.precision].itemsize, free_bytes)

    def forward(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities float32 [S, L], waiting for them; packs that are under way stay as they are.

        Raises:
            MemoryError: The GPU's memory does not hold the pack.
        """
        return self.submit(tokens)()

    def submit(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """Queue a pack, and return what waits for its rows; thread-safe.

        Raises:
            MemoryError: The GPU's memory does not hold the pack.
        """
        with self._queueing:
            return self._queue(tokens)

    @torch.inference_mode()
    def _queue(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        with _translated():
            if self._within is None:
                return self._exact(tokens)
            slot = self._free.pop() if self._free else self._slot()
            shape = shapes.shape_for(tokens)
            _grow(slot, shape, self._device)
            shapes.fill(slot.numbers.numpy(), tokens, positions(tokens.ids, tokens.offsets, self._padding), shape)
            program = self._program(shape)
            program.numbers.copy_(slot.numbers[: shape.size], non_blocking=True)
            program.run()
            slot.rows[: shape.documents].copy_(program.rows_SL, non_blocking=True)
            if slot.done is not None:
                slot.done.record()
        return partial(self._collect, slot, len(tokens.lengths))

    def _collect(self, slot: _Slot, documents: int) -> npt.NDArray[np.float32]:
        rows_SL = slot.collect(documents)
        self._free.append(slot)
        return rows_SL

    def _exact(self, tokens: Tokens) -> Callable[[], npt.NDArray[np.float32]]:
        """fp32, which the flash kernel does not do: torch's own attention for documents of equal length."""
        ids_T, positions_T = (
            torch.from_numpy(tokens.ids).long(),
            torch.from_numpy(positions(tokens.ids, tokens.offsets, self._padding)),
        )
        attend = packed.grouped_attention(tokens.lengths.tolist())
        offsets = torch.from_numpy(tokens.offsets)
        rows_SL = self._classifier(*(one.to(self._device) for one in (ids_T, positions_T, offsets)), attend)
        return lambda: rows_SL.cpu().numpy()

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

    def _slot(self) -> _Slot:
        event = torch.cuda.Event() if self._device == "cuda" else None  # type: ignore[no-untyped-call]
        return _Slot(torch.empty(0, dtype=torch.int32), torch.empty(0, len(self._info.labels)), event)


def _grow(slot: _Slot, shape: shapes.Shape, device: str) -> None:
    """Make the slot's buffers large enough; they keep the size of the largest pack."""
    pinned = device == "cuda"
    if len(slot.numbers) < shape.size:
        slot.numbers = torch.empty(shape.size, dtype=torch.int32, pin_memory=pinned)
    if len(slot.rows) < shape.documents:
        slot.rows = torch.empty(shape.documents, slot.rows.shape[1], pin_memory=pinned)


def _choose_attention(config: Any, precision: str, device: str) -> Within | None:
    """The flash kernel where it can be used; None: documents of equal length in batches, which is slower."""
    if device == "cpu":
        return masked_attention
    width = config.hidden_size // config.num_attention_heads
    if precision == "fp32" or width % 8:
        _log.warning("Precision %s with heads of %d runs without flash attention and CUDA graphs.", precision, width)
        return None
    return varlen_attention


def _compiled(classify: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Fused by torch.compile, once for all shapes; plain, and said so, where Triton is missing."""
    try:
        import triton  # noqa: F401
    except ImportError:
        _log.warning("Triton is not installed: the forward pass runs without fused kernels, which is slower.")
        return classify
    return torch.compile(classify, dynamic=True)


@contextmanager
def _translated() -> Iterator[None]:
    """Out of memory becomes MemoryError, which the engine answers; a broken CUDA context ends the process."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except torch.AcceleratorError as error:
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    """End this process: after such an error every CUDA call in it fails, and only a new one can go on."""
    _log.critical("CUDA failed for good (%s); this process ends with status %d.", error, BROKEN_CONTEXT)
    logging.shutdown()
    os._exit(BROKEN_CONTEXT)
