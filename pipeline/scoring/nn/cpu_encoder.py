"""Encoders of the BERT family on a CPU with AVX-512 VNNI: the weights of a transformers model in cpu_encoder.cpp.

    reason = why_not(model)                         # "" where it fits
    encoder = CpuEncoder(model, int8=ALL_INT8)
    logits_SL = encoder.logits(ids_T, offsets, threads=2)

fp32 equals transformers' padded forward up to the order of sums. int8 quantises activations for each token when they
are needed and weights for each output channel; embeddings, attention, norms and the classification head stay fp32.

Shape suffixes: S sequences, T tokens, H hidden, L labels.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.scoring.nn.native import load_library, why_missing

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

SOURCE = "cpu_encoder.cpp"
#: The products of a layer that can be int8, in the kernel's order.
PRODUCTS = ("qkv", "out", "up", "down")

_NONE, _RELU, _GELU, _GELU_TANH, _TANH = range(5)
_ACTIVATIONS = {
    "relu": _RELU,
    "gelu": _GELU,
    "gelu_python": _GELU,
    "gelu_new": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "gelu_python_tanh": _GELU_TANH,
}
_MOST_HEAD_LAYERS = 4


@dataclass(frozen=True, slots=True)
class _Family:
    """Where one architecture keeps its weights, and how its head ends.

    Attributes:
        architecture: Class name of the classifier in transformers.
        body: Prefix of the encoder's weights.
        layers: Prefix of the layers inside the body.
        layer: Of a layer: query, key, value, output projection, norm, up, down, norm.
        head: Linear layers from the first token's hidden state to the logits, each with its activation.
        counts_from_padding: Positions count tokens that are not padding, from the padding id on (RoBERTa).
    """

    architecture: str
    body: str
    layers: str
    layer: tuple[str, ...]
    head: tuple[tuple[str, int], ...]
    counts_from_padding: bool = False


_BERT_LAYER = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_DISTILBERT_LAYER = (
    *(f"attention.{name}_lin" for name in ("q", "k", "v", "out")),
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)
_ROBERTA_HEAD = (("classifier.dense", _TANH), ("classifier.out_proj", _NONE))
_FAMILIES = {
    "camembert": _Family(
        "CamembertForSequenceClassification", "roberta", "encoder.layer", _BERT_LAYER, _ROBERTA_HEAD, True
    ),
    "bert": _Family(
        "BertForSequenceClassification",
        "bert",
        "encoder.layer",
        _BERT_LAYER,
        (("bert.pooler.dense", _TANH), ("classifier", _NONE)),
    ),
    "roberta": _Family(
        "RobertaForSequenceClassification", "roberta", "encoder.layer", _BERT_LAYER, _ROBERTA_HEAD, True
    ),
    "xlm-roberta": _Family(
        "XLMRobertaForSequenceClassification", "roberta", "encoder.layer", _BERT_LAYER, _ROBERTA_HEAD, True
    ),
    "electra": _Family(
        "ElectraForSequenceClassification",
        "electra",
        "encoder.layer",
        _BERT_LAYER,
        (("classifier.dense", _GELU), ("classifier.out_proj", _NONE)),
    ),
    "distilbert": _Family(
        "DistilBertForSequenceClassification",
        "distilbert",
        "transformer.layer",
        _DISTILBERT_LAYER,
        (("pre_classifier", _RELU), ("classifier", _NONE)),
    ),
}


class _Shape(ctypes.Structure):
    """Sizes of a network; must match `struct Shape` of the kernel."""

    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in (
                *("vocabulary", "positions", "types", "embedding", "hidden", "intermediate"),
                *("heads", "layers", "activation", "head_layers", "labels"),
            )
        ),
        ("epsilon", ctypes.c_float),
        ("head_sizes", ctypes.c_int32 * _MOST_HEAD_LAYERS),
        ("head_activations", ctypes.c_int32 * _MOST_HEAD_LAYERS),
    )


def why_not(model: Any) -> str:
    """Why this model cannot run here, in words; empty where it can.

    Args:
        model: A transformers module for sequence classification.
    """
    config = model.config
    family = _FAMILIES.get(config.model_type)
    if family is None or type(model).__name__ != family.architecture:
        return f"no native kernel for {type(model).__name__}"
    if _activation_name(config) not in _ACTIVATIONS:
        return f"no native kernel for the activation {_activation_name(config)}"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"no native kernel for {config.position_embedding_type} positions"
    if getattr(config, "is_decoder", False):
        return "no native kernel for decoders"
    if config.num_hidden_layers < 1:
        return "no native kernel for a network without layers"
    return "" if load_library(SOURCE) else why_missing(SOURCE)


def _activation_name(config: Any) -> str:
    return str(getattr(config, "hidden_act", None) or getattr(config, "activation", None))


class CpuEncoder:
    """A classifier with its weights packed for this CPU. Threads may share it.

    Args:
        model: A transformers module for which `why_not` is empty; its weights are copied.
        int8: (layer, product) pairs to run in int8, product one of PRODUCTS.
        largest: What `largest_inputs` found, to balance what inputs and weights lose in int8; None balances nothing.
    """

    def __init__(self, model: Any, int8: Iterable[tuple[int, str]] = (), largest: Floats | None = None) -> None:
        family = _FAMILIES[model.config.model_type]
        state = {name: _array(tensor) for name, tensor in model.state_dict().items()}
        shape = _shape(model.config, family, state)
        flags = np.zeros((shape.layers, len(PRODUCTS)), np.uint8)
        for layer, product in int8:
            flags[layer, PRODUCTS.index(product)] = 1
        self._library = _library()
        self._handle = _create(self._library, shape, list(_weights(family, state, shape.layers)), flags, largest)
        weakref.finalize(self, self._library.encoder_free, self._handle)
        self._labels, self._vocabulary, self._positions = shape.labels, shape.vocabulary, shape.positions
        self._places = _padding_counter(model.config.pad_token_id) if family.counts_from_padding else _count

    def logits(self, ids_T: Ids, offsets: Offsets, *, threads: int) -> Floats:
        """Logits float32 [S, L]; a row does not depend on the other sequences or on threads, bit for bit.

        Args:
            ids_T: int32 [T], special tokens included.
            offsets: int64 [S + 1] from 0; sequence s is ids_T[offsets[s]:offsets[s + 1]], never empty.
            threads: Threads to use; sequences are shared out among them.

        Raises:
            ValueError: An id or a length that the embeddings do not have, or an empty sequence.
            MemoryError: No memory for the activations.
        """
        logits = np.empty((len(offsets) - 1, self._labels), np.float32)
        self._call(self._library.encoder_run, ids_T, offsets, logits, max(1, threads))
        return logits

    def largest_inputs(self, ids_T: Ids, offsets: Offsets) -> Floats:
        """The largest absolute value that each input of each product has over these sequences, for `largest`."""
        largest = np.zeros(self._library.encoder_input_count(self._handle), np.float32)
        self._call(self._library.encoder_observe, ids_T, offsets, largest)
        return largest

    def _call(self, function: Any, ids_T: Ids, offsets: Offsets, out: Floats, *rest: int) -> None:
        if len(offsets) < 2:
            return
        ids, offsets = np.ascontiguousarray(ids_T, np.int32), np.ascontiguousarray(offsets, np.int64)
        places = np.ascontiguousarray(self._places(ids, offsets), np.int32)
        self._check(ids, offsets, places)
        pointers = (_address(array) for array in (ids, places, offsets))
        if function(self._handle, *pointers, ctypes.c_int64(len(offsets) - 1), _address(out), *rest):
            raise MemoryError(f"no memory for the activations of {len(ids)} tokens")

    def _check(self, ids: Ids, offsets: Offsets, places: Ids) -> None:
        """The kernel trusts its arguments; nothing out of range may reach it."""
        if offsets[0] != 0 or offsets[-1] != len(ids) or np.diff(offsets).min() < 1:
            raise ValueError("offsets must rise from 0 to the number of ids, without empty sequences")
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise ValueError(f"token ids {ids.min()}..{ids.max()} are not all in 0..{self._vocabulary - 1}")
        if places.max() >= self._positions:
            raise ValueError(
                f"a sequence of {np.diff(offsets).max()} tokens needs position {places.max()}; "
                f"the model has {self._positions}"
            )


def _array(tensor: Any) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def _address(array: npt.NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _library() -> ctypes.CDLL:
    library = load_library(SOURCE)
    if library is None:
        raise RuntimeError(why_missing(SOURCE))
    library.encoder_create.restype = ctypes.c_void_p
    library.encoder_input_count.restype = ctypes.c_int64
    return library


def _create(
    library: ctypes.CDLL,
    shape: _Shape,
    weights: list[Floats | None],
    flags: npt.NDArray[np.uint8],
    largest: Floats | None,
) -> ctypes.c_void_p:
    pointers = (ctypes.c_void_p * len(weights))(*(_address(weight).value for weight in weights))
    handle = library.encoder_create(ctypes.byref(shape), pointers, _address(flags), _address(largest))
    if not handle:
        raise MemoryError("no memory for the packed weights")
    return ctypes.c_void_p(handle)


def _count(ids: Ids, offsets: Offsets) -> Offsets:
    """Position of each token in its sequence, from 0."""
    return np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))


def _padding_counter(padding: int) -> Callable[[Ids, Offsets], Offsets]:
    """RoBERTa's positions: tokens that are not padding count from padding + 1; padding itself stays at padding.

    Source: create_position_ids_from_input_ids in transformers' modeling_roberta.py. A text may hold the padding token.
    """

    def places(ids: Ids, offsets: Offsets) -> Offsets:
        real = ids != padding
        seen = np.cumsum(real)
        before = np.repeat(seen[offsets[:-1]] - real[offsets[:-1]], np.diff(offsets))
        return np.where(real, seen - before, 0) + padding

    return places


def _shape(config: Any, family: _Family, state: dict[str, Floats]) -> _Shape:
    """Sizes from the weights themselves; the config tells only what they cannot."""
    words = state[f"{family.body}.embeddings.word_embeddings.weight"]
    types = state.get(f"{family.body}.embeddings.token_type_embeddings.weight")
    first = f"{family.body}.{family.layers}.0."
    query, up = (state[f"{first}{family.layer[i]}.weight"] for i in (0, 5))
    head = [state[f"{name}.weight"].shape[0] for name, _ in family.head]
    shape = _Shape(
        vocabulary=words.shape[0],
        positions=state[f"{family.body}.embeddings.position_embeddings.weight"].shape[0],
        types=0 if types is None else types.shape[0],
        embedding=words.shape[1],
        hidden=query.shape[0],
        intermediate=up.shape[0],
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        activation=_ACTIVATIONS[_activation_name(config)],
        head_layers=len(head),
        labels=head[-1],
        epsilon=getattr(config, "layer_norm_eps", 1e-12),  # DistilBERT's is fixed
    )
    shape.head_sizes[: len(head)] = head
    shape.head_activations[: len(head)] = [activation for _, activation in family.head]
    return shape


def _weights(family: _Family, state: dict[str, Floats], layers: int) -> Iterator[Floats | None]:
    """All weights in the order in which the kernel reads them; None where the architecture has none."""
    embeddings = f"{family.body}.embeddings."
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        yield state.get(f"{embeddings}{name}.weight")
    linear = [f"{embeddings}LayerNorm", f"{family.body}.embeddings_project"]
    linear += [f"{family.body}.{family.layers}.{i}.{part}" for i in range(layers) for part in family.layer]
    linear += [name for name, _ in family.head]
    for name in linear:
        yield state.get(f"{name}.weight")
        yield state.get(f"{name}.bias")
