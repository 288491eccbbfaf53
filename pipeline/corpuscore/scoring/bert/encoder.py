"""Encoders of the BERT family on a CPU: the weights of a checkpoint in encoder.cpp.

    reason = why_not(config)                                        # "" where it fits
    network = Network.of(config, labels, read_weights(checkpoint))  # checked against each other
    encoder = CpuEncoder(network, int8=[(0, "qkv"), (0, "up")])
    logits_SL = encoder.logits(ids_T, offsets, threads=2)

fp32 equals transformers' padded forward up to the order of sums. int8 quantises activations for each token when they
are needed and weights for each output channel; embeddings, attention, norms and the classification head stay fp32.

Shape suffixes: S sequences, T tokens, H hidden, L labels.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from corpuscore.scoring.bert.positions import padding_before, positions
from corpuscore.scoring.kernels.build import level, load_library, why_missing
from corpuscore.scoring.weights.arrays import Floats

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

SOURCE = "encoder.cpp"
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

#: Sizes in config.json, each under the names that families give it.
_SIZES = {
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings",),
    "hidden": ("hidden_size", "dim"),
    "intermediate": ("intermediate_size", "hidden_dim"),
    "heads": ("num_attention_heads", "n_heads"),
    "layers": ("num_hidden_layers", "n_layers"),
}
_ACTIVATION = ("hidden_act", "activation")


@dataclass(frozen=True, slots=True)
class _Family:
    """Where one architecture keeps its weights, and how its head ends.

    Attributes:
        architecture: Class name of the classifier in transformers.
        body: Prefix of the encoder's weights.
        layers: Prefix of the layers inside the body.
        layer: Of a layer: query, key, value, output projection, norm, up, down, norm.
        head: Linear layers from the first token's hidden state to the logits, each with its activation.
        has_types: Whether there are embeddings of token types.
        projection: What widens embeddings that are narrower than the layers.
        groups: The config's entry for how many layers there are weights for, where several layers share them; `layers`
            has a place for the number of such a group then.
    """

    architecture: str
    body: str
    layers: str
    layer: tuple[str, ...]
    head: tuple[tuple[str, int], ...]
    has_types: bool = True
    projection: str = "embeddings_project"
    groups: str = ""


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
_ALBERT_LAYER = (
    *(f"attention.{name}" for name in ("query", "key", "value", "dense", "LayerNorm")),
    *("ffn", "ffn_output", "full_layer_layer_norm"),
)
_ROBERTA_HEAD = (("classifier.dense", _TANH), ("classifier.out_proj", _NONE))
_FAMILIES = {
    "camembert": _Family("CamembertForSequenceClassification", "roberta", "encoder.layer", _BERT_LAYER, _ROBERTA_HEAD),
    "bert": _Family(
        "BertForSequenceClassification",
        "bert",
        "encoder.layer",
        _BERT_LAYER,
        (("bert.pooler.dense", _TANH), ("classifier", _NONE)),
    ),
    "roberta": _Family("RobertaForSequenceClassification", "roberta", "encoder.layer", _BERT_LAYER, _ROBERTA_HEAD),
    "xlm-roberta": _Family(
        "XLMRobertaForSequenceClassification", "roberta", "encoder.layer", _BERT_LAYER, _ROBERTA_HEAD
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
        has_types=False,
    ),
    "albert": _Family(
        "AlbertForSequenceClassification",
        "albert",
        "encoder.albert_layer_groups.{}.albert_layers",
        _ALBERT_LAYER,
        (("albert.pooler", _TANH), ("classifier", _NONE)),
        projection="encoder.embedding_hidden_mapping_in",
        groups="num_hidden_groups",
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


def why_not(config: Mapping[str, Any]) -> str:
    """Why a sequence classifier cannot run here, in words; empty where it can.

    Args:
        config: What its config.json says.
    """
    architecture = (config.get("architectures") or ["an unnamed class"])[0]
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None or architecture != family.architecture:
        return f"no native kernel for {architecture}"
    unsaid = [names[0] for names in _SIZES.values() if _said(config, names) is None]
    if unsaid:
        return f"config.json does not give {', '.join(unsaid)}"
    if _said(config, _ACTIVATION) not in _ACTIVATIONS:
        return f"no native kernel for the activation {_said(config, _ACTIVATION)}"
    if _said(config, _SIZES["layers"]) < 1:
        return "no native kernel for a network without layers"
    if family.groups and config.get("inner_group_num", 1) != 1:
        return "no native kernel for groups of several layers that share their weights"
    if family.groups and _said(config, ("embedding_size",)) in (None, _said(config, _SIZES["hidden"])):
        return "no native kernel for a projection of embeddings that are as wide as the layers"
    return "" if load_library(SOURCE) else why_missing(SOURCE)


def int8_pays() -> bool:
    """Whether int8 is faster than fp32 here: it takes instructions that multiply and add bytes (VNNI).

    Without them its sums are as exact and no faster, measured on AVX2.
    """
    return level(SOURCE) in ("avx512vnni", "avxvnni")


def _said(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """An entry of a config, under whichever name the family gives it; None where there is none."""
    return next((config[name] for name in names if config.get(name) is not None), None)


@dataclass(frozen=True, slots=True)
class Network:
    """A classifier's sizes and weights, which fit together.

    Attributes:
        shape: Sizes, for the kernel.
        arrays: Weights in the order in which the kernel reads them; None where the architecture has none.
        padding: Id of the padding token, where positions count from it (RoBERTa); else None.
    """

    shape: _Shape
    arrays: tuple[Floats | None, ...]
    padding: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any], labels: int, state: Mapping[str, Floats]) -> Self:
        """The network of a config for which `why_not` is empty.

        Args:
            config: What config.json says.
            labels: Number of outputs.
            state: Weights by their names in transformers.

        Raises:
            ValueError: Weights are missing, or have other shapes than the config.
        """
        family = _FAMILIES[config["model_type"]]
        shape = _shape(config, family, labels)
        wanted = list(_weights(family, shape, int(config.get(family.groups, 1))))
        missing = [item[0] for item in wanted if item and item[0] not in state]
        if missing:
            more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            raise ValueError(f"it has no weights for {', '.join(missing[:4])}{more}")
        for name, sizes in filter(None, wanted):
            if state[name].shape != sizes:
                raise ValueError(f"{name} has the shape {state[name].shape}, and its config.json says {sizes}")
        arrays = (np.ascontiguousarray(state[item[0]]) if item else None for item in wanted)
        return cls(shape, tuple(arrays), padding_before(config))

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.shape.layers)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.shape.vocabulary)


class CpuEncoder:
    """A classifier with its weights packed for this CPU. Threads may share it.

    Args:
        network: Its weights are copied.
        int8: (layer, product) pairs to run in int8, product one of PRODUCTS.
        largest: What `observe` found, to balance what inputs and weights lose in int8; None balances nothing.
    """

    def __init__(self, network: Network, int8: Iterable[tuple[int, str]] = (), largest: Floats | None = None) -> None:
        flags = np.zeros((network.layers, len(PRODUCTS)), np.uint8)
        for layer, product in int8:
            flags[layer, PRODUCTS.index(product)] = 1
        self._library = _library()
        self._handle = _create(self._library, network, flags, largest)
        weakref.finalize(self, self._library.encoder_free, self._handle)
        self._shape, self._padding = network.shape, network.padding

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
        return self._run(ids_T, offsets, threads, None)

    def observe(self, ids_T: Ids, offsets: Offsets, *, threads: int) -> tuple[Floats, Floats]:
        """Logits, and the largest absolute value that each input of each product had on the way, for `largest`."""
        largest = np.zeros(self._library.encoder_input_count(self._handle), np.float32)
        return self._run(ids_T, offsets, threads, largest), largest

    def _run(self, ids_T: Ids, offsets: Offsets, threads: int, largest: Floats | None) -> Floats:
        logits = np.empty((len(offsets) - 1, self._shape.labels), np.float32)
        if not len(logits):
            return logits
        ids, offsets = np.ascontiguousarray(ids_T, np.int32), np.ascontiguousarray(offsets, np.int64)
        places = np.ascontiguousarray(positions(ids, offsets, self._padding), np.int32)
        self._check(ids, offsets, places)
        pointers = (_address(array) for array in (ids, places, offsets))
        sizes = (ctypes.c_int64(len(logits)), _address(logits), max(1, threads), _address(largest))
        if self._library.encoder_run(self._handle, *pointers, *sizes):
            raise MemoryError(f"no memory for the activations of {len(ids)} tokens")
        return logits

    def _check(self, ids: Ids, offsets: Offsets, places: Ids) -> None:
        """The kernel trusts its arguments; nothing out of range may reach it."""
        if offsets[0] != 0 or offsets[-1] != len(ids) or np.diff(offsets).min() < 1:
            raise ValueError("offsets must rise from 0 to the number of ids, without empty sequences")
        if ids.min() < 0 or ids.max() >= self._shape.vocabulary:
            raise ValueError(f"token ids {ids.min()}..{ids.max()} are not all in 0..{self._shape.vocabulary - 1}")
        if places.max() >= self._shape.positions:
            raise ValueError(
                f"a sequence of {np.diff(offsets).max()} tokens needs position {places.max()}; "
                f"the model has {self._shape.positions}"
            )


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
    library: ctypes.CDLL, network: Network, flags: npt.NDArray[np.uint8], largest: Floats | None
) -> ctypes.c_void_p:
    pointers = (ctypes.c_void_p * len(network.arrays))(*(_address(array).value for array in network.arrays))
    handle = library.encoder_create(ctypes.byref(network.shape), pointers, _address(flags), _address(largest))
    if not handle:
        raise MemoryError("no memory for the packed weights")
    return ctypes.c_void_p(handle)


def _shape(config: Mapping[str, Any], family: _Family, labels: int) -> _Shape:
    sizes = {name: int(_said(config, names)) for name, names in _SIZES.items()}
    if sizes["hidden"] % sizes["heads"]:
        raise ValueError(f"its width of {sizes['hidden']} cannot be divided into {sizes['heads']} heads")
    outputs = [sizes["hidden"]] * (len(family.head) - 1) + [labels]
    shape = _Shape(
        **sizes,
        types=int(config.get("type_vocab_size", 2)) if family.has_types else 0,
        embedding=int(_said(config, ("embedding_size",)) or sizes["hidden"]),
        activation=_ACTIVATIONS[_said(config, _ACTIVATION)],
        head_layers=len(outputs),
        labels=labels,
        epsilon=config.get("layer_norm_eps", 1e-12),
    )
    shape.head_sizes[: len(outputs)] = outputs
    shape.head_activations[: len(outputs)] = [activation for _, activation in family.head]
    return shape


def _weights(family: _Family, shape: _Shape, groups: int) -> Iterator[tuple[str, tuple[int, ...]] | None]:
    """Name and shape of all weights in the order in which the kernel reads them; None where there is none.

    Args:
        groups: Layers that there are weights for, where layers share them.
    """
    hidden, wide, embedding = shape.hidden, shape.intermediate, shape.embedding
    embeddings = f"{family.body}.embeddings."
    yield f"{embeddings}word_embeddings.weight", (shape.vocabulary, embedding)
    yield f"{embeddings}position_embeddings.weight", (shape.positions, embedding)
    yield (f"{embeddings}token_type_embeddings.weight", (shape.types, embedding)) if family.has_types else None
    yield from _both(f"{embeddings}LayerNorm", embedding)
    yield from _both(f"{family.body}.{family.projection}", hidden, embedding) if embedding != hidden else (None, None)
    sizes = (*[(hidden, hidden)] * 4, (hidden,), (wide, hidden), (hidden, wide), (hidden,))
    for layer in range(shape.layers):
        place = f"{family.layers.format(layer * groups // shape.layers)}.{0 if family.groups else layer}"
        for part, size in zip(family.layer, sizes, strict=True):
            yield from _both(f"{family.body}.{place}.{part}", *size)
    for (name, _), outputs in zip(family.head, shape.head_sizes[:], strict=False):
        yield from _both(name, outputs, hidden)


def _both(name: str, *sizes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Weight and bias of a linear layer (outputs, inputs), or of a norm (width)."""
    yield f"{name}.weight", sizes
    yield f"{name}.bias", sizes[:1]
