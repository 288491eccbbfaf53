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

from pipeline.scoring.nn.sru import Gates, recurrence
from pipeline.scoring.nn.srupp_attention import Context, Documents, attend


class SRUppProjectedLinear(nn.Module):
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


class SRUppAttention(nn.Module):
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


class SRUppCell(nn.Module):
    """One layer: a projection, the recurrence with its highway, LayerNorm before or after.

    Args:
        input_size: Features in.
        hidden_size: Channels of each direction.
        transform_module: Its output times its `out_weight` is U.
        dropout: Of h - x, with one mask for all tokens of a document.
        bidirectional: Whether a second half of the channels runs backward, with the same projection.
        layer_norm: Whether there is a LayerNorm at all.
        normalize_after: Whether it takes the output; else the input of the projection (the highway stays as it is).
        highway_bias: First value of the reset gate's bias.
        rescale: Whether x is scaled in the highway, by sqrt(1 + 2*exp(highway_bias)).
        weight_c_init: v starts uniform in [-this, this].
    """

    scale_x: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        transform_module: SRUppProjectedLinear | SRUppAttention,
        dropout: float,
        bidirectional: bool,
        layer_norm: bool,
        normalize_after: bool,
        highway_bias: float,
        rescale: bool,
        weight_c_init: float,
    ) -> None:
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.directions
        self.dropout, self.normalize_after = dropout, normalize_after
        self.highway_bias, self.rescale, self.weight_c_init = highway_bias, rescale, weight_c_init
        self.transform_module = transform_module
        self.weight_c = nn.Parameter(torch.empty(2 * self.output_size))
        self.bias = nn.Parameter(torch.empty(2 * self.output_size))
        self.register_buffer("scale_x", torch.ones(1))
        self.layer_norm = nn.LayerNorm(self.output_size if normalize_after else input_size) if layer_norm else None
        self.register_load_state_dict_post_hook(SRUppCell._read_scale)  # type: ignore[no-untyped-call]
        self._reset_gates()

    def reset_parameters(self) -> None:
        """The published start of every parameter."""
        self.transform_module.reset_parameters()
        self._reset_gates()

    def forward(self, input_TI: Tensor, context: Context, start_DC: Tensor | None) -> tuple[Tensor, Tensor]:
        """h_TC and last_DC of the layer."""
        norm = self.layer_norm
        z_TP = self.transform_module(norm(input_TI) if norm and not self.normalize_after else input_TI, context)
        planar_KCP = self.transform_module.out_weight.view(self.output_size, -1, z_TP.shape[1]).transpose(0, 1)
        u_TKC = nn.functional.linear(z_TP, planar_KCP.flatten(0, 1)).view(len(z_TP), *planar_KCP.shape[:2])
        keep_DC = self._dropout_mask(len(context.documents), u_TKC)
        gates = Gates(self.weight_c, self.bias, self.directions, self.scale, start_DC, keep_DC)
        h_TC, last_DC = recurrence(u_TKC, input_TI if u_TKC.shape[1] == 3 else None, gates, context.documents.on_device)
        return norm(h_TC) if norm and self.normalize_after else h_TC, last_DC

    def padding_output(self) -> Tensor | None:
        """What the layer gives for h = 0, [C]; None where that is zero."""
        return self.layer_norm.bias if self.layer_norm and self.normalize_after else None

    def _reset_gates(self) -> None:
        forget_bias, reset_bias = self.bias.data.chunk(2)
        nn.init.zeros_(forget_bias)
        nn.init.constant_(reset_bias, self.highway_bias)
        nn.init.uniform_(self.weight_c, -self.weight_c_init, self.weight_c_init)
        nn.init.constant_(self.scale_x, math.sqrt(1 + 2 * math.exp(self.highway_bias)) if self.rescale else 1.0)
        self._read_scale()

    def _read_scale(self, _: object = None) -> None:
        """Keep s as a number, so that no forward pass waits for a GPU to read it."""
        self.scale = float(self.scale_x) if self.rescale else 1.0

    def _dropout_mask(self, documents: int, like: Tensor) -> Tensor | None:
        if not (self.training and self.dropout):
            return None
        keep = 1 - self.dropout
        return like.new_empty(documents, self.output_size, dtype=torch.float32).bernoulli_(keep).div_(keep)


class SRUpp(nn.Module):
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
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.num_directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.num_directions
        self.nn_rnn_compatible_return = nn_rnn_compatible_return
        project_first = proj_input_to_hidden_first and input_size != self.output_size
        self.rnn_lst = nn.ModuleList()
        self.input_to_hidden = nn.Linear(input_size, self.output_size, bias=False) if project_first else None
        for index in range(num_layers):
            in_features = input_size if index == 0 and not project_first else self.output_size
            out_features = self.output_size * (3 if in_features == self.output_size else 4)
            shape = (in_features, out_features, proj_size)
            if attention_last_n_layers != -1:
                attends = num_layers - index <= attention_last_n_layers
            else:
                attends = (index + 1) % attention_every_n_layers == 0
            transform: SRUppAttention | SRUppProjectedLinear
            if attends:
                transform = SRUppAttention(*shape, num_heads, dropout, attn_dropout, attn_layer_norm)
            else:
                transform = SRUppProjectedLinear(*shape, dropout, attn_layer_norm)
            self.rnn_lst.append(
                SRUppCell(
                    in_features,
                    hidden_size,
                    transform,
                    dropout if index + 1 < num_layers else 0.0,
                    bidirectional,
                    layer_norm,
                    normalize_after,
                    highway_bias,
                    rescale,
                    weight_c_init,
                )
            )
        if self.input_to_hidden is not None:
            nn.init.xavier_uniform_(self.input_to_hidden.weight)

    def __getitem__(self, index: int) -> SRUppCell:
        cell = self.rnn_lst[index]
        assert isinstance(cell, SRUppCell)  # noqa: S101  (for the type checker)
        return cell

    def reset_parameters(self) -> None:
        """The published start of every parameter."""
        for index in range(self.num_layers):
            self[index].reset_parameters()
        if self.input_to_hidden is not None:
            nn.init.xavier_uniform_(self.input_to_hidden.weight)

    def forward_packed(self, input_TI: Tensor, documents: Documents) -> Tensor:
        """The last layer's output [T, C] for documents end to end; each is computed as if it were alone."""
        x_TC = input_TI if self.input_to_hidden is None else self.input_to_hidden(input_TI)
        context = Context(documents)
        for index in range(self.num_layers):
            x_TC, _ = self[index](x_TC, context, None)
        return x_TC

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
        self._check(input, c0, mask_pad, memory)
        steps, batch, _ = input.shape
        valid_LB = input.new_ones(steps, batch, dtype=torch.bool) if mask_pad is None else ~mask_pad.bool()
        place_T = valid_LB.t().flatten().nonzero().squeeze(1)  # batch-major: a document's tokens lie together
        offsets = nn.functional.pad(valid_LB.sum(0).cumsum(0), (1, 0)).cpu()
        documents = Documents(offsets, input.device)
        if self.input_to_hidden is not None:
            input = self.input_to_hidden(input)
        saved, states = [], []
        for index in range(self.num_layers):
            saved.append(input)
            extra = (attn_mask, memory[index] if memory else None, memory_mask_pad)
            context = Context(documents, valid_LB, *extra) if any(e is not None for e in extra) else Context(documents)
            x_TI = input.transpose(0, 1).flatten(0, 1)[place_T]
            h_TC, last_BC = self[index](x_TI, context, None if c0 is None else c0[index])
            input = _padded(h_TC, place_T, (batch, steps), self[index].padding_output()).transpose(0, 1).contiguous()
            states.append(last_BC)
        return input, self._stacked(states), {"saved_inputs": saved}

    def _stacked(self, states: list[Tensor]) -> Tensor:
        state_NBC = torch.stack(states)
        if not self.nn_rnn_compatible_return:
            return state_NBC
        return state_NBC.view(*state_NBC.shape[:2], self.num_directions, -1).transpose(1, 2).flatten(0, 1)

    def _check(
        self, input: Tensor, c0: Tensor | None, mask_pad: Tensor | None, memory: list[Tensor | None] | None
    ) -> None:
        if input.dim() != 3 or input.shape[2] != self.input_size:
            raise ValueError(f"input has shape {list(input.shape)}; it must be [steps, batch, {self.input_size}]")
        if c0 is not None and c0.shape != (self.num_layers, input.shape[1], self.output_size):
            expected = [self.num_layers, input.shape[1], self.output_size]
            raise ValueError(f"c0 has shape {list(c0.shape)}; it must be {expected}")
        if mask_pad is not None and mask_pad.shape != input.shape[:2]:
            raise ValueError(f"mask_pad has shape {list(mask_pad.shape)}; it must be {list(input.shape[:2])}")
        if memory is not None and len(memory) != self.num_layers:
            raise ValueError(f"memory has {len(memory)} entries; it must have one for each of {self.num_layers} layers")


def _padded(h_TC: Tensor, place_T: Tensor, batch_steps: tuple[int, int], fill_C: Tensor | None) -> Tensor:
    """[B, L, C] with the packed rows in their places and fill_C, or zero, elsewhere."""
    rows = batch_steps[0] * batch_steps[1]
    base = h_TC.new_zeros(rows, h_TC.shape[1]) if fill_C is None else fill_C.to(h_TC.dtype).expand(rows, -1)
    return base.index_copy(0, place_T, h_TC).view(*batch_steps, -1)


def _reset_projections(*linears: nn.Linear, dropout: float) -> None:
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
    linears[-1].weight.data.mul_(math.sqrt(1 - dropout))
