"""A text classifier: embedding, SRU++ encoder, pooling, one linear head. No padding anywhere.

    model = SRUppClassifier(SRUppConfig(vocab_size=8000, labels=("joy", "fear")))
    logits_SL = model(ids_T, offsets)

Shape suffixes: T tokens of all documents end to end, S documents (sequences), C channels, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corpuscore.scoring.srupp.attention import Documents
from corpuscore.scoring.srupp.config import SRUppConfig
from corpuscore.scoring.srupp.layers import SRUpp

#: Of offsets, which are ours: checking them would wait for the device.
_TRUSTED = True


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
            return self.shortest_first(ids_T, given)
        order = torch.argsort(given.lengths, stable=True)
        documents = Documents(nn.functional.pad(given.lengths[order].cumsum(0), (1, 0)), ids_T.device)
        return self.shortest_first(ids_T[given.shortest_first], documents)[torch.argsort(order).to(ids_T.device)]

    def shortest_first(self, ids_T: Tensor, documents: Documents) -> Tensor:
        """Logits [S, L] of documents that lie in the order of their lengths; no value is waited for on a GPU.

        Args:
            ids_T: As for `forward`.
            documents: Where they lie.
        """
        hidden_TC = self.encoder(self.dropout(self.embedding(ids_T)), documents)
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
    return torch.segment_reduce(rows_TC, "sum", offsets=documents.on_device, initial=0.0, unsafe=_TRUSTED)


def _maximum(rows_TC: Tensor, documents: Documents) -> Tensor:
    """[S, C]; zero for an empty document."""
    found = torch.segment_reduce(rows_TC, "max", offsets=documents.on_device, unsafe=_TRUSTED)
    return torch.where((documents.on_device.diff() == 0)[:, None], 0.0, found)


def _softmax(scores_T1: Tensor, documents: Documents) -> Tensor:
    """Softmax over the tokens of each document, [T, 1]."""
    lengths = documents.on_device.diff()
    tokens = len(scores_T1)  # given, since repeat_interleave would wait for the device to count them
    highest = _maximum(scores_T1.detach(), documents).repeat_interleave(lengths, dim=0, output_size=tokens)
    weights = torch.exp(scores_T1 - highest)
    return weights / _sum(weights, documents).repeat_interleave(lengths, dim=0, output_size=tokens)
