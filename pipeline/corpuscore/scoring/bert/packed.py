"""Transformers' own encoders, run on packed sequences.

The model code stays that of transformers. Four things are ours: position ids that start anew with each document,
an attention function that looks within documents only, a head that reads each document's first token (or mean), and
a last layer that goes on with first tokens alone once attention has seen the others, where nothing else is read.

Shape suffixes: T tokens of all documents, S documents, H heads, N tokens of one document, D width of a head, L labels,
C channels. A leading 1 is the batch that transformers' code wants to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from corpuscore.scoring.weights.transformers_model import probabilities

#: The name under which transformers finds the attention below; models are loaded with it.
ATTENTION = "corpuscore_packed"


#: Model types whose last layer is split after attention; in these its parts have the same names.
FIRST_TOKEN_LAYERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")

#: query, key, value [1, H, T, D], scaling, window -> [1, T, H, D]
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, int | None], torch.Tensor]


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


class PackedClassifier(nn.Module):
    """A sequence classifier of transformers that takes documents end to end.

    Args:
        model: Loaded with attn_implementation=ATTENTION.
        activation: How logits become probabilities.
    """

    def __init__(self, model: Any, activation: str) -> None:
        super().__init__()
        self.model = model
        self.encoder = getattr(model, model.base_model_prefix)
        self.activation = activation
        self._head = _HEADS[model.config.model_type]
        self._means = getattr(model.config, "classifier_pooling", "cls") == "mean"
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


def _bert_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.bert.pooler(first_SC[:, None]))  # type: ignore[no-any-return]


def _first_token_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(first_SC[:, None])  # type: ignore[no-any-return]


def _distilbert_head(model: Any, first_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.pre_classifier(first_SC).relu())  # type: ignore[no-any-return]


def _modernbert_head(model: Any, pooled_SC: torch.Tensor) -> torch.Tensor:
    return model.classifier(model.head(pooled_SC))  # type: ignore[no-any-return]


_HEADS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "bert": _bert_head,
    "roberta": _first_token_head,
    "xlm-roberta": _first_token_head,
    "camembert": _first_token_head,
    "electra": _first_token_head,
    "distilbert": _distilbert_head,
    "modernbert": _modernbert_head,
}


def grouped_attention(lengths_S: Sequence[int]) -> Attend:
    """Exact attention within documents: neighbours of one length form a batch for torch's own kernel.

    The engine sorts documents by length, so that there are few groups.

    Args:
        lengths_S: Tokens of each document.
    """
    groups = _runs(lengths_S)

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        heads, _, width = query.shape[1:]
        out_THD = query.new_empty(query.shape[2], heads, width)
        for start, count, length in groups:
            span = slice(start, start + count * length)
            q_SHND, k_SHND, v_SHND = (
                one[0, :, span].view(heads, count, length, width).transpose(0, 1) for one in (query, key, value)
            )
            mask = _window_mask(length, window, query.device)
            out_SHND = scaled_dot_product_attention(q_SHND, k_SHND, v_SHND, attn_mask=mask, scale=scaling)
            out_THD[span] = out_SHND.transpose(1, 2).flatten(0, 1)
        return out_THD[None]

    return attend


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first token, documents, length) of each run of equal lengths."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, length)
        else:
            runs.append((start, 1, length))
        start += length
    return runs


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """True where a token may look: nearer than `window`; None where that is everywhere."""
    if window is None or length <= window:
        return None
    place = torch.arange(length, device=device)
    return (place[:, None] - place[None, :]).abs() < window
