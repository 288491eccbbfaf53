"""A text classifier: embedding, SRU++ encoder, pooling, one linear head. No padding anywhere.

    model = SRUppClassifier(SRUppConfig(vocab_size=8000, labels=("joy", "fear")))
    logits_SL = model(ids_T, offsets)

Shape suffixes: T tokens of all documents end to end, S documents (sequences), C channels, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from pipeline.records import Activation
from pipeline.scoring.nn.srupp import SRUpp
from pipeline.scoring.nn.srupp_attention import Documents

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
    def pooled_size(self) -> int:
        """Width of a document's vector."""
        channels = self.hidden_size * (2 if self.bidirectional else 1)
        return 2 * channels if self.pooling == "mean_max" else channels

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
        id2label = {int(i): str(label) for i, label in value["id2label"].items()}
        known = {field.name for field in fields(cls)} - {"labels"}
        shape = {name: entry for name, entry in value.items() if name in known}
        return cls(labels=tuple(id2label[i] for i in range(len(id2label))), **shape)


class SRUppClassifier(nn.Module):
    """The network of a configuration, with its published starts; embeddings start with variance 1 / embedding_size."""

    def __init__(self, config: SRUppConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.encoder = SRUpp(
            config.embedding_size,
            config.hidden_size,
            config.proj_size,
            num_layers=config.num_layers,
            dropout=config.dropout,
            attn_dropout=config.attn_dropout,
            num_heads=config.num_heads,
            bidirectional=config.bidirectional,
            layer_norm=config.layer_norm,
            normalize_after=config.normalize_after,
            attn_layer_norm=config.attn_layer_norm,
            highway_bias=config.highway_bias,
            attention_every_n_layers=config.attention_every_n_layers,
            attention_last_n_layers=config.attention_last_n_layers,
            rescale=config.rescale,
            proj_input_to_hidden_first=True,
        )
        self.pool_score = nn.Linear(self.encoder.output_size, 1, bias=False) if config.pooling == "attention" else None
        self.dropout = nn.Dropout(config.head_dropout)
        self.head = nn.Linear(config.pooled_size, len(config.labels))
        nn.init.normal_(self.embedding.weight, std=config.embedding_size**-0.5)

    def forward(self, ids_T: Tensor, offsets: Tensor) -> Tensor:
        """Logits [S, L]; a document's logits don't depend on the others.

        Args:
            ids_T: int32 or int64, the tokens of all documents end to end.
            offsets: int64 [S + 1] on the CPU; document s is ids_T[offsets[s]:offsets[s + 1]], and may be empty.
        """
        given = Documents(offsets.cpu(), ids_T.device)
        if given.shortest_first is None:
            return self._logits(ids_T, given)
        order = torch.argsort(given.lengths, stable=True)
        documents = Documents(nn.functional.pad(given.lengths[order].cumsum(0), (1, 0)), ids_T.device)
        return self._logits(ids_T[given.shortest_first], documents)[torch.argsort(order).to(ids_T.device)]

    def _logits(self, ids_T: Tensor, documents: Documents) -> Tensor:
        hidden_TC = self.encoder.forward_packed(self.dropout(self.embedding(ids_T)), documents)
        pooled_SC = self._pool(hidden_TC, documents).to(hidden_TC.dtype)
        logits_SL: Tensor = self.head(self.dropout(pooled_SC))
        return logits_SL

    def _pool(self, hidden_TC: Tensor, documents: Documents) -> Tensor:
        """One vector a document, in fp32: sums over long documents need it."""
        if self.pool_score is not None:
            weights_T1 = _softmax(self.pool_score(hidden_TC).float(), documents)
            return _sum(hidden_TC.float() * weights_T1, documents)
        hidden_TC = hidden_TC.float()
        pooled = []
        if self.config.pooling in ("mean", "mean_max"):
            lengths = documents.on_device.diff().clamp(min=1)
            pooled.append(_sum(hidden_TC, documents) / lengths[:, None])
        if self.config.pooling in ("max", "mean_max"):
            pooled.append(_maximum(hidden_TC, documents))
        return torch.cat(pooled, dim=1)


def _sum(rows_TC: Tensor, documents: Documents) -> Tensor:
    """[S, C]; zero for an empty document."""
    return torch.segment_reduce(rows_TC, "sum", offsets=documents.on_device, initial=0.0)


def _maximum(rows_TC: Tensor, documents: Documents) -> Tensor:
    """[S, C]; zero for an empty document."""
    found = torch.segment_reduce(rows_TC, "max", offsets=documents.on_device)
    return torch.where((documents.on_device.diff() == 0)[:, None], 0.0, found)


def _softmax(scores_T1: Tensor, documents: Documents) -> Tensor:
    """Softmax over the tokens of each document, [T, 1]."""
    lengths = documents.on_device.diff()
    highest = _maximum(scores_T1.detach(), documents).repeat_interleave(lengths, dim=0)
    weights = torch.exp(scores_T1 - highest)
    return weights / _sum(weights, documents).repeat_interleave(lengths, dim=0)
