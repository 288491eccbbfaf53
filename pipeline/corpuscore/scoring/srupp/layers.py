"""SRU++: the SRU recurrence over an input that projected attention has seen.

    Q = W^q X        K, V = W^k Q, W^v Q        A = softmax(Q K' / sqrt(d' / heads)) V
    U = W^o LayerNorm(Q + alpha*A)              h, c = recurrence(U, X)

`SRUpp` takes padded batches, as the published implementation does and with its argument and parameter names, so that
its state dicts load; inside, and in `SRUpp.forward_packed`, documents lie end to end and no padding is computed.

Source: Lei 2021, arXiv 2102.12459, section 3; layout and names of sru 3.0.0.dev6.

Shape suffixes: T tokens of all documents end to end, D documents, C channels of all directions, I input features,
P projected features, K matrices of U, N layers, L steps and B sequences of a padded batch, M steps of memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from corpuscore.scoring.srupp.attention import Context, attend
from corpuscore.scoring.srupp.config import attends
from corpuscore.scoring.srupp.stack import SRUCell, Stack, Transform, matrices


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
        self.reset_parameters()

    @property
    def out_weight(self) -> Tensor:
        """W^o [C * K, P]."""
        return self.linear2.weight

    def reset_parameters(self) -> None:
        """Xavier uniform; W^o shrunk by what dropout adds to its input."""
        _reset_projections(self.linear1, self.linear2, dropout=self.dropout.p)

    def forward(self, input_TI: Tensor, context: Context) -> Tensor:
        """The input of W^o, [T, P]; nothing of the context is used."""
        q_TP = self.linear1(input_TI)
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
        self.reset_parameters()

    @property
    def out_weight(self) -> Tensor:
        """W^o [C * K, P]."""
        return self.linear3.weight

    def reset_parameters(self) -> None:
        """Xavier uniform, alpha = 0; W^o shrunk by what dropout adds to its input."""
        _reset_projections(self.linear1, self.linear2, self.linear3, dropout=self.dropout.p)
        nn.init.zeros_(self.alpha)

    def forward(self, input_TI: Tensor, context: Context) -> Tensor:
        """The input of W^o, [T, P]."""
        q_TP = self.linear1(input_TI)
        k_TP, v_TP = self.linear2(q_TP).chunk(2, dim=-1)
        memory = None if context.memory_MBI is None else self.linear2(self.linear1(context.memory_MBI))
        dropout = self.attn_dropout if self.training else 0.0
        mixed_TP = q_TP + self.alpha * attend(q_TP, k_TP, v_TP, self.num_heads, context, memory, dropout)
        z_TP: Tensor = self.dropout(self.layer_norm(mixed_TP) if self.layer_norm else mixed_TP)
        return z_TP


class SRUpp(Stack):
    """A stack of SRU++ layers.

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
        nn_rnn_compatible_return: Whether the state has the shape of torch's RNNs, [layers * directions, B, hidden].
        proj_input_to_hidden_first: Whether an input of another width is first projected, so that no layer needs a
            fourth matrix.
        weight_c_init: Range of the first v.

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
        nn_rnn_compatible_return: bool = False,
        proj_input_to_hidden_first: bool = False,
        weight_c_init: float = 1.0,
    ) -> None:
        if attention_every_n_layers != 1 and attention_last_n_layers != -1:
            raise ValueError("attention_every_n_layers and attention_last_n_layers exclude each other; set one")
        output_size = hidden_size * (2 if bidirectional else 1)

        def transform(index: int, in_features: int) -> Transform:
            shape = (in_features, output_size * matrices(in_features, output_size), proj_size)
            if attends(index, num_layers, attention_every_n_layers, attention_last_n_layers):
                return SRUppAttention(*shape, num_heads, dropout, attn_dropout, attn_layer_norm)
            return SRUppProjectedLinear(*shape, dropout, attn_layer_norm)

        def cell(index: int, in_features: int) -> SRUCell:
            return SRUCell(
                in_features,
                hidden_size,
                transform(index, in_features),
                dropout if index + 1 < num_layers else 0.0,
                bidirectional,
                layer_norm,
                normalize_after,
                highway_bias,
                rescale,
                weight_c_init,
            )

        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            cell,
            bidirectional=bidirectional,
            proj_input_to_hidden_first=proj_input_to_hidden_first,
            nn_rnn_compatible_return=nn_rnn_compatible_return,
        )

    def forward(
        self,
        input: Tensor,
        c0: Tensor | None = None,
        mask_pad: Tensor | None = None,
        attn_mask: Tensor | None = None,
        memory: list[Tensor | None] | None = None,
        memory_mask_pad: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, list[Tensor]]]:
        """A padded batch, wherever its padding is; a row that is all padding gives h = 0 and keeps its state.

        Args:
            input: [L, B, I].
            c0: [N, B, C], the states before the first token; zero where None.
            mask_pad: [L, B], non-zero where the input is padding.
            attn_mask: [L, M + L], added to the attention scores.
            memory: For each layer [M, B, I or C], earlier inputs that attention sees as well, or None.
            memory_mask_pad: [M, B], non-zero where memory is padding.

        Returns:
            The output [L, B, C]; the states after the last token [N, B, C]; each layer's input under "saved_inputs".

        Raises:
            ValueError: An argument of another shape.
        """
        if memory is not None and len(memory) != self.num_layers:
            raise ValueError(f"memory has {len(memory)} entries; it must have one for each of {self.num_layers} layers")
        output, states, saved = self._run(input, c0, mask_pad, attn_mask, memory, memory_mask_pad)
        return output, states, {"saved_inputs": saved}


def _reset_projections(*linears: nn.Linear, dropout: float) -> None:
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
    linears[-1].weight.data.mul_(math.sqrt(1 - dropout))
