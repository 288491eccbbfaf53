"""One layer of SRU++ around the recurrence: what makes U of the layer's input is a module of its own.

Source: Lei et al. 2018, arXiv 1709.02755; layout and names of sru 3.0.0.dev6.

Shape suffixes: T tokens of all documents end to end, D documents, C channels of all directions and features of a
layer's input, P inputs of W^o, K matrices of U.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from corpuscore.scoring.srupp.attention import Documents
from corpuscore.scoring.srupp.recurrence.choice import recurrence
from corpuscore.scoring.srupp.recurrence.gates import Gates

#: Of U: candidate, forget and reset. The skip needs none, since a layer's input is as wide as its output.
MATRICES = 3


class Transform(nn.Module):
    """What makes U of a layer's input: U = transform(input) * out_weight."""

    @property
    @abstractmethod
    def out_weight(self) -> Tensor:
        """W^o [C * K, P], rows of a channel's matrices together."""

    @abstractmethod
    def forward(self, input_TC: Tensor, documents: Documents) -> Tensor:
        """The input of W^o, [T, P]."""


class SRUCell(nn.Module):
    """One layer: a projection, the recurrence with its highway, LayerNorm before or after.

    Args:
        hidden_size: Channels of each direction.
        transform_module: Its output times its `out_weight` is U.
        dropout: Of h - x, with one mask for all tokens of a document.
        bidirectional: Whether a second half of the channels runs backward, with the same projection.
        layer_norm: Whether there is a LayerNorm at all.
        normalize_after: Whether it takes the output; else the input of the projection (the highway stays as it is).
        highway_bias: First value of the reset gate's bias.
        rescale: Whether x is scaled in the highway, by sqrt(1 + 2*exp(highway_bias)).
    """

    scale_x: Tensor

    def __init__(
        self,
        hidden_size: int,
        transform_module: Transform,
        dropout: float,
        bidirectional: bool,
        layer_norm: bool,
        normalize_after: bool,
        highway_bias: float,
        rescale: bool,
    ) -> None:
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.directions
        self.dropout, self.normalize_after, self.rescale = dropout, normalize_after, rescale
        self.transform_module = transform_module
        self.weight_c = nn.Parameter(torch.empty(2 * self.output_size))
        self.bias = nn.Parameter(torch.empty(2 * self.output_size))
        scale = math.sqrt(1 + 2 * math.exp(highway_bias)) if rescale else 1.0
        self.register_buffer("scale_x", torch.full((1,), scale))
        self.layer_norm = nn.LayerNorm(self.output_size) if layer_norm else None
        self.register_load_state_dict_post_hook(SRUCell._read_scale)  # type: ignore[no-untyped-call]
        self._read_scale()
        forget_bias, reset_bias = self.bias.data.chunk(2)
        nn.init.zeros_(forget_bias)
        nn.init.constant_(reset_bias, highway_bias)
        nn.init.uniform_(self.weight_c, -1, 1)

    def forward(self, input_TC: Tensor, documents: Documents) -> Tensor:
        """The layer's output, [T, C]."""
        norm = self.layer_norm
        z_TP = self.transform_module(norm(input_TC) if norm and not self.normalize_after else input_TC, documents)
        planar_KCP = self.transform_module.out_weight.view(self.output_size, MATRICES, -1).transpose(0, 1)
        u_TKC = nn.functional.linear(z_TP, planar_KCP.flatten(0, 1)).view(len(z_TP), MATRICES, self.output_size)
        keep_DC = self._dropout_mask(len(documents), u_TKC)
        gates = Gates(self.weight_c, self.bias, self.directions, self.scale, keep_DC=keep_DC)
        h_TC, _ = recurrence(u_TKC, input_TC, gates, documents.on_device)
        return norm(h_TC) if norm and self.normalize_after else h_TC

    def _read_scale(self, _: object = None) -> None:
        """Keep s as a number, so that no forward pass waits for a GPU to read it."""
        self.scale = float(self.scale_x) if self.rescale else 1.0

    def _dropout_mask(self, documents: int, like: Tensor) -> Tensor | None:
        if not (self.training and self.dropout):
            return None
        keep = 1 - self.dropout
        return like.new_empty(documents, self.output_size, dtype=torch.float32).bernoulli_(keep).div_(keep)
