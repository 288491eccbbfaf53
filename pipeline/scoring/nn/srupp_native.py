"""A whole SRU++ classifier forward on the CPU: the second half of sru.cpp, with weights laid out for it.

Shape suffixes: T tokens of all sequences, S sequences, L labels, N outputs and K inputs of a product, C channels.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.scoring.nn import native
from pipeline.scoring.nn.sru_stack import SRUCell
from pipeline.scoring.nn.srupp import SRUppAttention, SRUppProjectedLinear
from pipeline.scoring.nn.srupp_classifier import SRUppClassifier
from pipeline.scoring.scorer import Tokens

_SOURCE = "sru.cpp"
_COLUMNS = 32  # of a panel of weights

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Layer(ctypes.Structure):
    """`Layer` of sru.cpp."""

    _fields_ = (
        *(
            (name, _POINTER)
            for name in ("norm_weight", "norm_bias", "query", "key_value", "inner_weight", "inner_bias")
        ),
        *((name, _POINTER) for name in ("out", "gate_weight", "gate_bias")),
        *((name, _INT) for name in ("inputs", "matrices", "norm_after")),
        *((name, _FLOAT) for name in ("alpha", "scale")),
    )


class _Network(ctypes.Structure):
    """`Network` of sru.cpp."""

    _fields_ = (
        *((name, _POINTER) for name in ("embedding", "first", "pool_score", "head", "head_bias", "layers")),
        *((name, _INT) for name in ("count", "embedding_size", "hidden", "directions", "proj", "heads")),
        *((name, _INT) for name in ("mean", "maximum", "labels", "one_label")),
    )


class NativeClassifier:
    """A loaded classifier without torch in its forward pass; its weights are copies, fixed from then on.

    Args:
        model: What to take over.
        threads: Threads of a forward pass.
    """

    def __init__(self, model: SRUppClassifier, threads: int) -> None:
        self._library = native.load_library(_SOURCE)
        if self._library is None:
            raise RuntimeError(native.why_missing(_SOURCE))
        config, self._threads = model.config, threads
        self._vocab_size, self._labels = config.vocab_size, len(config.labels)
        self._kept: list[Tensor] = []  # what the structures point at
        encoder = model.encoder
        self._layers = (_Layer * config.num_layers)(*(self._layer(encoder[i]) for i in range(config.num_layers)))
        self._network = _Network(
            embedding=self._keep(model.embedding.weight),
            first=self._panels(encoder.input_to_hidden),
            pool_score=None if model.pool_score is None else self._keep(model.pool_score.weight),
            head=self._panels(model.head),
            head_bias=self._keep(model.head.bias),
            layers=ctypes.addressof(self._layers),
            count=config.num_layers,
            embedding_size=config.embedding_size,
            hidden=config.hidden_size,
            directions=encoder.num_directions,
            proj=config.proj_size,
            heads=config.num_heads,
            mean=config.pooling in ("mean", "mean_max"),
            maximum=config.pooling in ("max", "mean_max"),
            labels=self._labels,
            one_label=config.activation == "softmax",
        )

    def __call__(self, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Probabilities [S, L]; a sequence's are the same bits with any neighbours.

        Raises:
            IndexError: An id outside the vocabulary.
            MemoryError: A sequence too long for the memory that is left.
        """
        ids_T = np.ascontiguousarray(tokens.ids, dtype=np.int32)
        offsets = np.ascontiguousarray(tokens.offsets, dtype=np.int64)
        if len(ids_T) and not 0 <= ids_T.min() <= ids_T.max() < self._vocab_size:
            raise IndexError(f"token ids from {ids_T.min()} to {ids_T.max()} for a vocabulary of {self._vocab_size}")
        rows_SL = np.empty((len(offsets) - 1, self._labels), np.float32)
        sizes = (_INT(len(rows_SL)), _POINTER(rows_SL.ctypes.data), ctypes.c_int(self._threads))
        arrays = (_POINTER(ids_T.ctypes.data), _POINTER(offsets.ctypes.data))
        library: Any = self._library
        if library.srupp_classify(ctypes.byref(self._network), *arrays, *sizes):
            raise MemoryError(f"no memory for a forward pass over {len(ids_T)} tokens")
        return rows_SL

    def _layer(self, cell: SRUCell) -> _Layer:
        transform = cell.transform_module
        assert isinstance(transform, SRUppAttention | SRUppProjectedLinear)  # noqa: S101  (for the type checker)
        matrices = len(transform.out_weight) // cell.output_size
        planar_KCP = transform.out_weight.view(cell.output_size, matrices, -1).transpose(0, 1)
        attention = transform if isinstance(transform, SRUppAttention) else None
        norm_weight, norm_bias = self._norm(cell.layer_norm)
        inner_weight, inner_bias = self._norm(transform.layer_norm)
        return _Layer(
            norm_weight=norm_weight,
            norm_bias=norm_bias,
            query=self._panels(transform.linear1),
            key_value=self._panels(attention.linear2) if attention else None,
            inner_weight=inner_weight,
            inner_bias=inner_bias,
            out=self._keep(_in_panels(_padded(planar_KCP, dim=1).flatten(0, 1))),
            gate_weight=self._keep(_padded(cell.weight_c.view(2, -1), dim=1)),
            gate_bias=self._keep(_padded(cell.bias.view(2, -1), dim=1)),
            inputs=transform.linear1.in_features,
            matrices=matrices,
            norm_after=cell.normalize_after,
            alpha=attention.alpha.item() if attention else 0.0,
            scale=cell.scale,
        )

    def _norm(self, norm: nn.LayerNorm | None) -> tuple[int | None, int | None]:
        return (None, None) if norm is None else (self._keep(norm.weight), self._keep(norm.bias))

    def _panels(self, linear: nn.Linear | None) -> int | None:
        return None if linear is None else self._keep(_in_panels(linear.weight))

    def _keep(self, tensor: Tensor) -> int:
        """The address of a contiguous fp32 copy that lives as long as this object."""
        self._kept.append(tensor.detach().float().contiguous().clone())
        return self._kept[-1].data_ptr()


def _padded(tensor: Tensor, dim: int) -> Tensor:
    """Zeros behind the last entry of a dimension, up to whole panels."""
    missing = -tensor.shape[dim] % _COLUMNS
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)


def _in_panels(weight_NK: Tensor) -> Tensor:
    """[N, K] as [N / 32, K, 32]."""
    return _padded(weight_NK, dim=0).view(-1, _COLUMNS, weight_NK.shape[1]).transpose(1, 2).contiguous()
