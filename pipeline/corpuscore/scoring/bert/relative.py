"""Encoders whose attention knows how far apart two tokens are, on packed sequences: DeBERTa-v2 (and v3), and MPNet.

Weights, embeddings and layers stay those of transformers; attention within documents is given a bias for each pair of
tokens. DeBERTa's depends on what the tokens say: it is computed for the distances that occur in a document, where
transformers computes it for all that the model tells apart.

Shape suffixes: T tokens of all documents, S documents, H heads, N tokens of one document, D width of a head,
C channels, R distances that the model tells apart, P = 2N - 1 distances between two tokens of a document.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from corpuscore.scoring.bert.within import GroupedAttention


class Encoder(Protocol):
    """A body of transformers, run on packed sequences."""

    def __call__(
        self, ids_T: torch.Tensor, positions_T: torch.Tensor, firsts_S: torch.Tensor, attend: GroupedAttention
    ) -> torch.Tensor:
        """Hidden state of each document's first token after the last layer: [S, C].

        Args:
            ids_T: int64 token ids.
            positions_T: int64 position of each token in its document.
            firsts_S: Index of each document's first token.
            attend: Attention within documents.
        """
        ...


class DebertaEncoder(nn.Module):
    """DeBERTa-v2: queries meet keys and the places of keys, and keys meet the places of queries.

    Args:
        body: DebertaV2Model of transformers.

    Source: DisentangledSelfAttention in transformers' modeling_deberta_v2.py; https://arxiv.org/abs/2006.03654
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self._body = body
        with torch.no_grad():
            embeddings_RC = body.encoder.get_rel_embedding()
            layers = body.encoder.layer
            self._attentions = nn.ModuleList(_Disentangled(layer.attention.self, embeddings_RC) for layer in layers)

    def forward(
        self, ids_T: torch.Tensor, positions_T: torch.Tensor, firsts_S: torch.Tensor, attend: GroupedAttention
    ) -> torch.Tensor:
        """See Encoder."""
        encoder = self._body.encoder
        hidden_TC: torch.Tensor = self._body.embeddings(input_ids=ids_T[None], position_ids=positions_T[None])[0]
        for number, (layer, attention) in enumerate(zip(encoder.layer, self._attentions, strict=True)):
            below_TC = hidden_TC
            attended_TC = layer.attention.output(attention(hidden_TC, attend), hidden_TC)
            hidden_TC = layer.output(layer.intermediate(attended_TC), attended_TC)
            if number == 0 and encoder.conv is not None:
                hidden_TC = _convolved(encoder.conv, below_TC, hidden_TC, attend)
        return hidden_TC[firsts_S]


class _Disentangled(nn.Module):
    """The attention of one layer.

    Args:
        weights: DisentangledSelfAttention of transformers.
        embeddings_RC: Of relative places; None where the model has none.
    """

    def __init__(self, weights: Any, embeddings_RC: torch.Tensor | None) -> None:
        super().__init__()
        self._weights = weights
        self._heads = weights.num_attention_heads
        kinds = [kind for kind in ("c2p", "p2c") if kind in weights.pos_att_type]
        self._scaling = (weights.attention_head_size * (1 + len(kinds))) ** -0.5
        self._places = embeddings_RC is not None and bool(kinds)
        keys_HRD = queries_HRD = None
        if embeddings_RC is not None:
            self._row_of = nn.Buffer(_rows(weights).to(embeddings_RC.device))
            span_RC = embeddings_RC[: 2 * weights.pos_ebd_size]
            shared = weights.share_att_key
            if "c2p" in kinds:
                keys_HRD = self._split(weights.key_proj if shared else weights.pos_key_proj, span_RC)
            if "p2c" in kinds:
                queries_HRD = self._split(weights.query_proj if shared else weights.pos_query_proj, span_RC)
        self._keys_HRD = nn.Buffer(keys_HRD) if keys_HRD is not None else None
        self._queries_HRD = nn.Buffer(queries_HRD) if queries_HRD is not None else None

    def forward(self, hidden_TC: torch.Tensor, attend: GroupedAttention) -> torch.Tensor:
        """[T, C] to [T, C]."""
        weights = self._weights
        parts = (weights.query_proj, weights.key_proj, weights.value_proj)
        query, key, value = (self._split(part, hidden_TC)[None] for part in parts)
        mixed_THD: torch.Tensor = attend(query, key, value, self._scaling, None, self._bias if self._places else None)[
            0
        ]
        return mixed_THD.flatten(1)

    def _split(self, part: Any, hidden_TC: torch.Tensor) -> torch.Tensor:
        """A projection by heads: [H, T, D]."""
        wide_TC: torch.Tensor = part(hidden_TC)
        return wide_TC.view(len(wide_TC), self._heads, -1).transpose(0, 1)

    def _bias(self, query_SHND: torch.Tensor, key_SHND: torch.Tensor) -> torch.Tensor:
        """The scaled products with places, [S, H, N, N] by query and key."""
        rows_P = self._rows(query_SHND.shape[2])
        found = torch.zeros((), dtype=query_SHND.dtype, device=query_SHND.device)
        if self._keys_HRD is not None:  # by query and how far the key lies behind it
            found = found + _diagonals(query_SHND @ self._keys_HRD[:, rows_P.flip(0)].mT)
        if self._queries_HRD is not None:  # by key and how far the query lies behind it
            found = found + _diagonals(key_SHND @ self._queries_HRD[:, rows_P].mT).mT
        bias: torch.Tensor = found * self._scaling
        return bias

    def _rows(self, count: int) -> torch.Tensor:
        """Rows of the embeddings for a query that lies -(N - 1) to N - 1 tokens behind a key: [P]."""
        reach = len(self._row_of) // 2
        behind_P = torch.arange(1 - count, count, device=self._row_of.device).clamp(-reach, reach)
        rows_P: torch.Tensor = self._row_of[behind_P + reach]
        return rows_P


def _rows(weights: Any) -> torch.Tensor:
    """Rows of the embeddings by how far a query lies behind a key, as far as that makes a difference, both ways."""
    reach, span = 2 * weights.max_relative_positions, weights.pos_ebd_size
    behind = torch.arange(-reach, reach + 1)
    if weights.position_buckets > 0:
        behind = make_log_bucket_position(behind, weights.position_buckets, weights.max_relative_positions).long()
    rows: torch.Tensor = (behind + span).clamp(0, 2 * span - 1)
    return rows


def _diagonals(products: torch.Tensor) -> torch.Tensor:
    """[S, H, N, P], with P the distance from -(N - 1) on, as [S, H, N, N]: element (n, m) has the distance m - n.

    It is a view: row n begins N - 1 - n places further on.
    """
    batch, heads, count, distances = products.contiguous().shape
    strides = (heads * count * distances, count * distances, distances - 1, 1)
    return products.contiguous().as_strided((batch, heads, count, count), strides, count - 1)


def _convolved(conv: Any, below_TC: torch.Tensor, hidden_TC: torch.Tensor, attend: GroupedAttention) -> torch.Tensor:
    """The convolution beside the first layer, within documents."""
    out_TC = torch.empty_like(hidden_TC)
    for start, count, length in attend.runs:
        span = slice(start, start + count * length)
        below_SNC, hidden_SNC = (one[span].view(count, length, -1) for one in (below_TC, hidden_TC))
        all_SN = torch.ones(count, length, dtype=torch.long, device=hidden_TC.device)
        out_TC[span] = conv(below_SNC, hidden_SNC, all_SN).flatten(0, 1)
    return out_TC


class MpnetEncoder(nn.Module):
    """MPNet: how far apart two tokens are has a value for each head, the same in all layers.

    Args:
        body: MPNetModel of transformers.

    Source: MPNetEncoder in transformers' modeling_mpnet.py
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self._body = body

    def forward(
        self, ids_T: torch.Tensor, positions_T: torch.Tensor, firsts_S: torch.Tensor, attend: GroupedAttention
    ) -> torch.Tensor:
        """See Encoder."""
        hidden_TC: torch.Tensor = self._body.embeddings(input_ids=ids_T[None], position_ids=positions_T[None])[0]
        bias = cache(partial(self._bias, hidden_TC[None]))
        for layer in self._body.encoder.layer:
            weights = layer.attention.attn
            query, key, value = (
                part(hidden_TC).unflatten(-1, (weights.num_attention_heads, -1)).transpose(0, 1)[None]
                for part in (weights.q, weights.k, weights.v)
            )
            scaling = weights.attention_head_size**-0.5
            mixed_TC = attend(query, key, value, scaling, None, lambda query, _: bias(query.shape[2]))[0].flatten(1)
            attended_TC = layer.attention.LayerNorm(weights.o(mixed_TC) + hidden_TC)
            hidden_TC = layer.output(layer.intermediate(attended_TC), attended_TC)
        return hidden_TC[firsts_S]

    def _bias(self, like: torch.Tensor, count: int) -> torch.Tensor:
        """[1, H, N, N] by query and key, for N = count."""
        return self._body.encoder.compute_position_bias(like[:, :count])  # type: ignore[no-any-return]


#: By model type, for those whose attention is not handed over by transformers.
ENCODERS: dict[str, Callable[[Any], Encoder]] = {"deberta-v2": DebertaEncoder, "mpnet": MpnetEncoder}
