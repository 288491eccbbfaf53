"""Transformers' own encoders, run on packed sequences.

The model code stays that of transformers. Four things are ours: position ids that start anew with each document,
an attention function that looks within documents only, a head that reads each document's first token (or mean), and
a last layer that goes on with first tokens alone once attention has seen the others, where nothing else is read. Where
transformers does not hand attention over, `relative.py` goes through the layers.

Shape suffixes: T tokens of all documents, S documents, H heads, D width of a head, L labels, C channels. A leading 1 is
the batch that transformers' code wants to see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from corpuscore.scoring.bert.relative import ENCODERS
from corpuscore.scoring.bert.within import Attend, GroupedAttention
from corpuscore.scoring.checkpoint import Checkpoint
from corpuscore.scoring.weights.transformers_model import load_model, probabilities

#: The name under which transformers finds the attention below; models are loaded with it.
ATTENTION = "corpuscore_packed"


#: Model types whose last layer is split after attention; in these its parts have the same names.
FIRST_TOKEN_LAYERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def _attention(
    module: nn.Module,  # noqa: ARG001  (the interface of transformers)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    scaling: float,
    attend: Attend,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer: hands over to the caller's own attention."""
    return attend(query, key, value, scaling, sliding_window), None


AttentionInterface.register(ATTENTION, _attention)


def load_packed(checkpoint: Checkpoint, precision: str, device: str, activation: str) -> PackedClassifier:
    """The classifier of a checkpoint, see load_model for arguments and errors."""
    attention = None if checkpoint.config.get("model_type") in ENCODERS else ATTENTION
    return PackedClassifier(load_model(checkpoint, precision, device, attention), activation)


class PackedClassifier(nn.Module):
    """A sequence classifier of transformers that takes documents end to end.

    Args:
        model: Loaded with attn_implementation=ATTENTION, but for those of ENCODERS.
        activation: How logits become probabilities.

    Attributes:
        needs_groups: Whether attention must be a GroupedAttention.
    """

    def __init__(self, model: Any, activation: str) -> None:
        super().__init__()
        self.model = model
        self.encoder = getattr(model, model.base_model_prefix)
        self.activation = activation
        self._head = _HEADS[model.config.model_type]
        self._means = getattr(model.config, "classifier_pooling", "cls") == "mean"
        own = ENCODERS.get(model.config.model_type)
        self._own = own(self.encoder) if own else None
        self.needs_groups = own is not None
        self.last_layer: Any = None
        if model.config.model_type in FIRST_TOKEN_LAYERS:
            layers = self.encoder.encoder.layer
            self.last_layer, self.encoder.encoder.layer = layers[-1], layers[:-1]

    def forward(
        self, ids_T: torch.Tensor, positions_T: torch.Tensor, offsets: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Probabilities float32 [S, L].

        Args:
            ids_T: int64 token ids.
            positions_T: int64 position of each token in its document, as the model counts them.
            offsets: int [S + 1] where documents begin and end; repeated ends are documents that are not there.
            attend: Attention within documents.
        """
        if self._own is not None:
            assert isinstance(attend, GroupedAttention)  # noqa: S101  (whoever calls has asked needs_groups)
            first_SC = self._own(ids_T, positions_T, _firsts(offsets, len(ids_T)), attend)
            return probabilities(self._head(self.model, first_SC), self.activation)
        hidden_TC = self.encoder(
            input_ids=ids_T[None], position_ids=positions_T[None], attend=attend
        ).last_hidden_state[0]
        pooled_SC = _means(hidden_TC, offsets) if self._means else self._first_tokens(hidden_TC, offsets, attend)
        return probabilities(self._head(self.model, pooled_SC), self.activation)

    def _first_tokens(self, hidden_TC: torch.Tensor, offsets: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Hidden state of each document's first token after the last layer: [S, C]."""
        firsts_S = _firsts(offsets, len(hidden_TC))
        if self.last_layer is None:
            return hidden_TC[firsts_S]
        attended_TC = self.last_layer.attention.self(hidden_TC[None], attend=attend)[0][0]
        first_SC = self.last_layer.attention.output(attended_TC[firsts_S], hidden_TC[firsts_S])
        return self.last_layer.feed_forward_chunk(first_SC)  # type: ignore[no-any-return]


def _firsts(offsets: torch.Tensor, tokens: int) -> torch.Tensor:
    """Index of each document's first token; documents that are not there point at the last token."""
    return offsets[:-1].clamp(max=tokens - 1)


def _means(hidden_TC: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    lengths = offsets.diff().clamp(min=1)
    sums_SC = torch.segment_reduce(hidden_TC.float(), "sum", offsets=offsets.long(), axis=0, unsafe=True)
    return (sums_SC / lengths[:, None]).to(hidden_TC.dtype)


def _albert_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.albert.pooler_activation(model.albert.pooler(first_SC)))  # type: ignore[no-any-return]


def _deberta_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.pooler(first_SC[:, None]))  # type: ignore[no-any-return]


def _bert_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.bert.pooler(first_SC[:, None]))  # type: ignore[no-any-return]


def _first_token_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(first_SC[:, None])  # type: ignore[no-any-return]


def _distilbert_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.pre_classifier(first_SC).relu())  # type: ignore[no-any-return]


def _modernbert_head(model: Any, pooled_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.head(pooled_SC))  # type: ignore[no-any-return]


_HEADS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "albert": _albert_head,
    "deberta-v2": _deberta_head,
    "mpnet": _first_token_head,
    "bert": _bert_head,
    "roberta": _first_token_head,
    "xlm-roberta": _first_token_head,
    "camembert": _first_token_head,
    "electra": _first_token_head,
    "distilbert": _distilbert_head,
    "modernbert": _modernbert_head,
}
