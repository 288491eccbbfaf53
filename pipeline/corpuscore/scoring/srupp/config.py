"""The shape of an SRU++ classifier: what its config.json holds. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from corpuscore.records import Activation
from corpuscore.scoring.configuration import labels_by_id

Pooling = Literal["mean", "max", "mean_max", "attention"]
ProblemType = Literal["multi_label_classification", "single_label_classification"]

MODEL_TYPE = "srupp"


@dataclass(frozen=True, slots=True, kw_only=True)
class SRUppConfig:
    """The shape of a classifier; what config.json holds.

    Attributes:
        vocab_size: Rows of the embedding.
        labels: Names in column order.
        problem_type: Several labels a text (sigmoid) or one (softmax).
        embedding_size: Width of the embedding; a projection to the encoder's width follows where they differ.
        pooling: How a document's tokens become one vector; mean_max is both, side by side.
        head_dropout: Of embeddings and of the pooled vector, in training.
        hidden_size, proj_size, ...: As in SRUpp.
    """

    vocab_size: int
    labels: tuple[str, ...]
    problem_type: ProblemType = "multi_label_classification"
    embedding_size: int = 128
    hidden_size: int = 128
    proj_size: int = 64
    num_layers: int = 2
    num_heads: int = 1
    bidirectional: bool = True
    layer_norm: bool = True
    normalize_after: bool = False
    attn_layer_norm: bool = True
    attention_every_n_layers: int = 1
    attention_last_n_layers: int = -1
    highway_bias: float = -2.0
    rescale: bool = False
    pooling: Pooling = "mean_max"
    dropout: float = 0.1
    attn_dropout: float = 0.0
    head_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling {self.pooling!r} is unknown; it is one of {', '.join(get_args(Pooling))}")
        if self.problem_type not in get_args(ProblemType):
            raise ValueError(f"problem_type {self.problem_type!r} is unknown; {' or '.join(get_args(ProblemType))}")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels {self.labels} must be one or more different names")

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""
        return "softmax" if self.problem_type == "single_label_classification" else "sigmoid"

    @property
    def channels(self) -> int:
        """Width of a token's vector in the encoder."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    @property
    def pooled_size(self) -> int:
        """Width of a document's vector."""
        return 2 * self.channels if self.pooling == "mean_max" else self.channels

    def attends(self, layer: int) -> bool:
        """Whether a layer has attention."""
        return attends(layer, self.num_layers, self.attention_every_n_layers, self.attention_last_n_layers)

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it: the attributes, with model_type, and labels as id2label and label2id."""
        shape = {name: value for name, value in asdict(self).items() if name != "labels"}
        id2label = {str(i): label for i, label in enumerate(self.labels)}
        label2id = {label: i for i, label in enumerate(self.labels)}
        return {"model_type": MODEL_TYPE, "id2label": id2label, "label2id": label2id, **shape}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse; what else the file holds is left alone.

        Raises:
            KeyError, TypeError, ValueError: The file does not describe an SRU++ classifier.
        """
        id2label = {int(i): str(label) for i, label in labels_by_id(value).items()}
        known = {field.name for field in fields(cls)} - {"labels"}
        shape = {name: entry for name, entry in value.items() if name in known and entry is not None}
        return cls(labels=tuple(id2label[i] for i in range(len(id2label))), **shape)


def attends(layer: int, layers: int, every: int, last: int) -> bool:
    """Whether a layer has attention: each `every`th, or where `last` is not -1, the `last` ones at the end."""
    return layers - layer <= last if last != -1 else (layer + 1) % every == 0
