"""A whole SRU++ classifier forward on the CPU: the second half of sru.cpp, with weights laid out for it. No torch.

Shape suffixes: T tokens of all sequences, S sequences, L labels, N outputs and K inputs of a product, C channels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpuscore.scoring.kernels import build
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.srupp.config import SRUppConfig
from corpuscore.scoring.weights.arrays import Floats

SOURCE = "sru.cpp"
_COLUMNS = 32  # of a panel of weights
_MATRICES = 3  # of U, since the input of every layer is as wide as its output

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
    """A loaded classifier; its weights are copies, fixed from then on.

    Args:
        config: Its shape.
        state: Its weights, by their names in SRUppClassifier.
        threads: Threads of a forward pass.

    Raises:
        ValueError: Weights are missing, or have other shapes than the config.
    """

    def __init__(self, config: SRUppConfig, state: Mapping[str, Floats], threads: int) -> None:
        self._library = build.load_library(SOURCE)
        if self._library is None:
            raise RuntimeError(build.why_missing(SOURCE))
        _check(config, state)
        self._config, self._threads = config, threads
        self._kept: list[Floats] = []  # what the structures point at
        self._layers = (_Layer * config.num_layers)(*(self._layer(state, i) for i in range(config.num_layers)))
        self._network = _Network(
            embedding=self._keep(state.get("embedding.weight")),
            first=self._panels(state.get("encoder.input_to_hidden.weight")),
            pool_score=self._keep(state.get("pool_score.weight")),
            head=self._panels(state.get("head.weight")),
            head_bias=self._keep(state.get("head.bias")),
            layers=ctypes.addressof(self._layers),
            count=config.num_layers,
            embedding_size=config.embedding_size,
            hidden=config.hidden_size,
            directions=config.channels // config.hidden_size,
            proj=config.proj_size,
            heads=config.num_heads,
            mean=config.pooling in ("mean", "mean_max"),
            maximum=config.pooling in ("max", "mean_max"),
            labels=len(config.labels),
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
        if len(ids_T) and not 0 <= ids_T.min() <= ids_T.max() < self._config.vocab_size:
            raise IndexError(
                f"token ids from {ids_T.min()} to {ids_T.max()} for a vocabulary of {self._config.vocab_size}"
            )
        rows_SL = np.empty((len(offsets) - 1, len(self._config.labels)), np.float32)
        sizes = (_INT(len(rows_SL)), _POINTER(rows_SL.ctypes.data), ctypes.c_int(self._threads))
        arrays = (_POINTER(ids_T.ctypes.data), _POINTER(offsets.ctypes.data))
        library: Any = self._library
        if library.srupp_classify(ctypes.byref(self._network), *arrays, *sizes):
            raise MemoryError(f"no memory for a forward pass over {len(ids_T)} tokens")
        return rows_SL

    def _layer(self, state: Mapping[str, Floats], index: int) -> _Layer:
        cell = f"encoder.rnn_lst.{index}."
        transform, config = f"{cell}transform_module.", self._config
        attends = config.attends(index)
        out_MP = state[f"{transform}{'linear3' if attends else 'linear2'}.weight"]
        planar_KCP = out_MP.reshape(config.channels, _MATRICES, -1).swapaxes(0, 1)
        return _Layer(
            norm_weight=self._keep(state.get(f"{cell}layer_norm.weight")),
            norm_bias=self._keep(state.get(f"{cell}layer_norm.bias")),
            query=self._panels(state.get(f"{transform}linear1.weight")),
            key_value=self._panels(state.get(f"{transform}linear2.weight")) if attends else None,
            inner_weight=self._keep(state.get(f"{transform}layer_norm.weight")),
            inner_bias=self._keep(state.get(f"{transform}layer_norm.bias")),
            out=self._keep(_in_panels(_padded(planar_KCP, axis=1).reshape(-1, config.proj_size))),
            gate_weight=self._keep(_padded(state[f"{cell}weight_c"].reshape(2, -1), axis=1)),
            gate_bias=self._keep(_padded(state[f"{cell}bias"].reshape(2, -1), axis=1)),
            inputs=config.channels,
            matrices=_MATRICES,
            norm_after=config.normalize_after,
            alpha=state[f"{transform}alpha"].item() if attends else 0.0,
            scale=state[f"{cell}scale_x"].item() if config.rescale else 1.0,
        )

    def _panels(self, weight_NK: npt.NDArray[Any] | None) -> int | None:
        return None if weight_NK is None else self._keep(_in_panels(weight_NK))

    def _keep(self, array: npt.NDArray[Any] | None) -> int | None:
        """The address of a contiguous fp32 copy that lives as long as this object."""
        if array is None:
            return None
        self._kept.append(np.array(array, np.float32, order="C"))
        return self._kept[-1].ctypes.data


def _check(config: SRUppConfig, state: Mapping[str, Floats]) -> None:
    """The kernel trusts its sizes: these weights, no fewer and no more, in these shapes."""
    if config.num_layers < 1 or config.proj_size % config.num_heads:
        raise ValueError(
            f"config.json says num_layers {config.num_layers}, proj_size {config.proj_size}, num_heads "
            f"{config.num_heads}: there must be a layer, and heads must divide proj_size"
        )
    wanted = dict(weight_shapes(config))
    differing = sorted(
        name for name in wanted.keys() | state.keys() if name not in state or state[name].shape != wanted.get(name)
    )
    if differing:
        name = differing[0]
        found = f"has the shape {state[name].shape}" if name in state else "is missing"
        raise ValueError(f"{name} {found}; by config.json it {_by_config(wanted.get(name))}")


def _by_config(shape: tuple[int, ...] | None) -> str:
    return "does not exist" if shape is None else f"has {shape}"


def weight_shapes(config: SRUppConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight of a classifier, as SRUppClassifier has them."""
    channels, proj = config.channels, config.proj_size
    yield "embedding.weight", (config.vocab_size, config.embedding_size)
    if config.embedding_size != channels:
        yield "encoder.input_to_hidden.weight", (channels, config.embedding_size)
    for layer in range(config.num_layers):
        cell = f"encoder.rnn_lst.{layer}."
        transform = f"{cell}transform_module."
        yield from ((f"{cell}weight_c", (2 * channels,)), (f"{cell}bias", (2 * channels,)), (f"{cell}scale_x", (1,)))
        yield f"{transform}linear1.weight", (proj, channels)
        if config.attends(layer):
            yield from ((f"{transform}alpha", (1,)), (f"{transform}linear2.weight", (2 * proj, proj)))
        last = "linear3" if config.attends(layer) else "linear2"
        yield f"{transform}{last}.weight", (_MATRICES * channels, proj)
        norms = [(cell, channels)] * config.layer_norm + [(transform, proj)] * config.attn_layer_norm
        for owner, width in norms:
            yield from ((f"{owner}layer_norm.weight", (width,)), (f"{owner}layer_norm.bias", (width,)))
    if config.pooling == "attention":
        yield "pool_score.weight", (1, channels)
    yield from (("head.weight", (len(config.labels), config.pooled_size)), ("head.bias", (len(config.labels),)))


def _padded(array: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Zeros behind the last entry of an axis, up to whole panels."""
    widths = [(0, -array.shape[axis] % _COLUMNS if at == axis else 0) for at in range(array.ndim)]
    return np.pad(array, widths)


def _in_panels(weight_NK: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[N, K] as [N / 32, K, 32]."""
    return _padded(weight_NK, axis=0).reshape(-1, _COLUMNS, weight_NK.shape[1]).swapaxes(1, 2)
