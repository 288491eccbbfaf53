"""SRU++: the SRU recurrence over an input that projected attention has seen.

    Q = W^q X        K, V = W^k Q, W^v Q        A = softmax(Q K' / sqrt(d' / heads)) V
    U = W^o LayerNorm(Q + alpha*A)              h, c = recurrence(U, X)

`SRUpp` has the argument and parameter names of the published implementation, so that its state dicts load; but
documents lie end to end, and no padding is computed.

Source: Lei 2021, arXiv 2102.12459, section 3; layout and names of sru 3.0.0.dev6.

Shape suffixes: T tokens of all documents end to end, C channels of all directions and features of a layer's input,
I input features of the stack, P projected features, K matrices of U.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from corpuscore.scoring.srupp.attention import Documents, attend
from corpuscore.scoring.srupp.cell import MATRICES, SRUCell, Transform
from corpuscore.scoring.srupp.config import attends


class SRUppProjectedLinear(Transform):
    """LayerNorm(W^q X): what a layer without attention feeds to W^o."""

    def __init__(
        self, in_features: int, out_features: int, proj_features: int, dropout: float, layer_norm: bool
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_features, proj_features, bias=False)
        self.linear2 = nn.Linear(proj_features, out_features, bias=False)
        self.layer_norm = nn.LayerNorm(proj_features) if layer_norm else None
        self.dropout = nn.Dropout(dropout)
        _reset_projections(self.linear1, self.linear2, dropout=dropout)

    @property
    def out_weight(self) -> Tensor:
        """W^o [C * K, P]."""
        return self.linear2.weight

    def forward(self, input_TC: Tensor, documents: Documents) -> Tensor:
        """The input of W^o, [T, P]; a token sees itself alone."""
        q_TP = self.linear1(input_TC)
        z_TP: Tensor = self.dropout(self.layer_norm(q_TP) if self.layer_norm else q_TP)
        return z_TP


class SRUppAttention(Transform):
    """LayerNorm(Q + alpha*A): what a layer with attention feeds to W^o. alpha is learned and starts at 0."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        proj_features: int,
        num_heads: int,
        dropout: float,
        attn_dropout: float,
        layer_norm: bool,
    ) -> None:
        if proj_features % num_heads:
            raise ValueError(f"proj_size {proj_features} cannot be divided into {num_heads} heads")
        super().__init__()
        self.num_heads, self.attn_dropout = num_heads, attn_dropout
        self.linear1 = nn.Linear(in_features, proj_features, bias=False)
        self.linear2 = nn.Linear(proj_features, 2 * proj_features, bias=False)
        self.linear3 = nn.Linear(proj_features, out_features, bias=False)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.layer_norm = nn.LayerNorm(proj_features) if layer_norm else None
        self.dropout = nn.Dropout(dropout)
        _reset_projections(self.linear1, self.linear2, self.linear3, dropout=dropout)

    @property
    def out_weight(self) -> Tensor:
        """W^o [C * K, P]."""
        return self.linear3.weight

    def forward(self, input_TC: Tensor, documents: Documents) -> Tensor:
        """The input of W^o, [T, P]."""
        q_TP = self.linear1(input_TC)
        k_TP, v_TP = self.linear2(q_TP).chunk(2, dim=-1)
        dropout = self.attn_dropout if self.training else 0.0
        mixed_TP = q_TP + self.alpha * attend(q_TP, k_TP, v_TP, self.num_heads, documents, dropout)
        z_TP: Tensor = self.dropout(self.layer_norm(mixed_TP) if self.layer_norm else mixed_TP)
        return z_TP


class SRUpp(nn.Module):
    """A stack of SRU++ layers, after a projection where the input is not as wide as they are.

    Args:
        input_size: Features of the input.
        hidden_size: Channels of each direction.
        proj_size: Features that attention works on.
        num_layers: Layers.
        dropout: Between sub-layers.
        attn_dropout: Of the attention weights.
        num_heads: Attention heads; they divide proj_size.
        bidirectional: Whether the output is twice as wide, its second half running backward.
        layer_norm: Whether each layer has a LayerNorm besides the one in its projection.
        normalize_after: Whether that one takes the layer's output rather than its input.
        attn_layer_norm: Whether there is a LayerNorm in the projected space.
        highway_bias: First value of the reset gate's bias.
        attention_every_n_layers: Attention in layer i where this divides i + 1.
        attention_last_n_layers: Attention in this many last layers only; -1 where the other argument decides.
        rescale: Whether x is scaled in the highway.

    Raises:
        ValueError: Both ways to place attention are used, or the heads don't divide proj_size.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        num_layers: int = 2,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        num_heads: int = 1,
        bidirectional: bool = False,
        layer_norm: bool = False,
        normalize_after: bool = False,
        attn_layer_norm: bool = True,
        highway_bias: float = -2.0,
        attention_every_n_layers: int = 1,
        attention_last_n_layers: int = -1,
        rescale: bool = False,
    ) -> None:
        if attention_every_n_layers != 1 and attention_last_n_layers != -1:
            raise ValueError("attention_every_n_layers and attention_last_n_layers exclude each other; set one")
        super().__init__()
        self.output_size = hidden_size * (2 if bidirectional else 1)

        def transform(layer: int) -> Transform:
            shape = (self.output_size, self.output_size * MATRICES, proj_size)
            if attends(layer, num_layers, attention_every_n_layers, attention_last_n_layers):
                return SRUppAttention(*shape, num_heads, dropout, attn_dropout, attn_layer_norm)
            return SRUppProjectedLinear(*shape, dropout, attn_layer_norm)

        def cell(layer: int) -> SRUCell:
            between = dropout if layer + 1 < num_layers else 0.0
            norms = (layer_norm, normalize_after)
            return SRUCell(hidden_size, transform(layer), between, bidirectional, *norms, highway_bias, rescale)

        self.rnn_lst = nn.ModuleList(map(cell, range(num_layers)))
        self.input_to_hidden = None
        if input_size != self.output_size:
            self.input_to_hidden = nn.Linear(input_size, self.output_size, bias=False)
            nn.init.xavier_uniform_(self.input_to_hidden.weight)

    def forward(self, input_TI: Tensor, documents: Documents) -> Tensor:
        """The last layer's output [T, C]; each document is computed as if it were alone."""
        x_TC = input_TI if self.input_to_hidden is None else self.input_to_hidden(input_TI)
        for cell in self.rnn_lst:
            x_TC = cell(x_TC, documents)
        return x_TC


def _reset_projections(*linears: nn.Linear, dropout: float) -> None:
    """The published start: Xavier uniform; W^o, the last, shrunk by what dropout adds to its input."""
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
    linears[-1].weight.data.mul_(math.sqrt(1 - dropout))
