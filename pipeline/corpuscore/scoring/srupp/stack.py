"""What SRU and SRU++ have in common: a layer around the recurrence, and a stack of layers.

A stack takes padded batches, as the published implementation does and with its parameter names, so that its state dicts
load; inside, and in `Stack.forward_packed`, documents lie end to end and no padding is computed.

Source: Lei et al. 2018, arXiv 1709.02755; layout and names of sru 3.0.0.dev6.

Shape suffixes: T tokens of all documents end to end, D documents, C channels of all directions, I input features,
P inputs of W^o, K matrices of U, N layers, L steps and B sequences of a padded batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from corpuscore.scoring.srupp.attention import Context, Documents
from corpuscore.scoring.srupp.recurrence.choice import recurrence
from corpuscore.scoring.srupp.recurrence.gates import Gates


class Transform(nn.Module):
    """What makes U of a layer's input: U = transform(input) * out_weight."""

    @property
    @abstractmethod
    def out_weight(self) -> Tensor:
        """W^o [C * K, P], rows of a channel's matrices together."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """The published start of every parameter."""

    @abstractmethod
    def forward(self, input_TI: Tensor, context: Context) -> Tensor:
        """The input of W^o, [T, P]."""


class SRUCell(nn.Module):
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
        has_skip_term: Whether there is a highway.
    """

    scale_x: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        transform_module: Transform,
        dropout: float,
        bidirectional: bool,
        layer_norm: bool,
        normalize_after: bool,
        highway_bias: float,
        rescale: bool,
        weight_c_init: float,
        has_skip_term: bool = True,
    ) -> None:
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.directions
        self.dropout, self.normalize_after, self.has_skip_term = dropout, normalize_after, has_skip_term
        self.highway_bias, self.rescale, self.weight_c_init = highway_bias, rescale, weight_c_init
        self.transform_module = transform_module
        self.weight_c = nn.Parameter(torch.empty(2 * self.output_size))
        self.bias = nn.Parameter(torch.empty(2 * self.output_size))
        self.register_buffer("scale_x", torch.ones(1))
        self.layer_norm = nn.LayerNorm(self.output_size if normalize_after else input_size) if layer_norm else None
        self.register_load_state_dict_post_hook(SRUCell._read_scale)  # type: ignore[no-untyped-call]
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
        skip_TC = input_TI if self.has_skip_term and u_TKC.shape[1] == 3 else None
        h_TC, last_DC = recurrence(u_TKC, skip_TC, gates, context.documents.on_device)
        return norm(h_TC) if norm and self.normalize_after else h_TC, last_DC

    def padding_output(self) -> Tensor | None:
        """What the layer gives for h = 0, [C]; None where that is zero."""
        return self.layer_norm.bias if self.layer_norm and self.normalize_after else None

    def _reset_gates(self) -> None:
        forget_bias, reset_bias = self.bias.data.chunk(2)
        nn.init.zeros_(forget_bias)
        nn.init.constant_(reset_bias, self.highway_bias)
        nn.init.uniform_(self.weight_c, -self.weight_c_init, self.weight_c_init)
        nn.init.constant_(self.scale_x, self._published_scale())
        self._read_scale()

    def _published_scale(self) -> float:
        return math.sqrt(1 + 2 * math.exp(self.highway_bias)) if self.rescale and self.has_skip_term else 1.0

    def _read_scale(self, _: object = None) -> None:
        """Keep s as a number, so that no forward pass waits for a GPU to read it."""
        self.scale = float(self.scale_x) if self.rescale else 1.0

    def _dropout_mask(self, documents: int, like: Tensor) -> Tensor | None:
        if not (self.training and self.dropout):
            return None
        keep = 1 - self.dropout
        return like.new_empty(documents, self.output_size, dtype=torch.float32).bernoulli_(keep).div_(keep)


class Stack(nn.Module):
    """Layers one after the other, with the published parameter names.

    Args:
        input_size: Features of the input.
        hidden_size: Channels of each direction.
        num_layers: Layers.
        make_cell: Layer by index and number of its input features.
        bidirectional: Whether the output is twice as wide.
        proj_input_to_hidden_first: Whether an input of another width is first projected.
        nn_rnn_compatible_return: Whether the state has the shape of torch's RNNs, [layers * directions, B, hidden].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        make_cell: Callable[[int, int], SRUCell],
        *,
        bidirectional: bool,
        proj_input_to_hidden_first: bool,
        nn_rnn_compatible_return: bool,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.num_directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.num_directions
        self.nn_rnn_compatible_return = nn_rnn_compatible_return
        project_first = proj_input_to_hidden_first and input_size != self.output_size
        first = self.output_size if project_first else input_size
        cells = [make_cell(index, self.output_size if index else first) for index in range(num_layers)]
        self.rnn_lst = nn.ModuleList(cells)
        self.input_to_hidden = nn.Linear(input_size, self.output_size, bias=False) if project_first else None
        if self.input_to_hidden is not None:
            nn.init.xavier_uniform_(self.input_to_hidden.weight)

    def __getitem__(self, index: int) -> SRUCell:
        cell = self.rnn_lst[index]
        assert isinstance(cell, SRUCell)  # noqa: S101  (for the type checker)
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

    def _run(
        self,
        input: Tensor,
        c0: Tensor | None,
        mask_pad: Tensor | None,
        attn_mask: Tensor | None = None,
        memory: list[Tensor | None] | None = None,
        memory_mask_pad: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """A padded batch through all layers: the output, the states, and each layer's input."""
        self._check(input, c0, mask_pad)
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
        return input, self._stacked(states), saved

    def _stacked(self, states: list[Tensor]) -> Tensor:
        state_NBC = torch.stack(states)
        if not self.nn_rnn_compatible_return:
            return state_NBC
        return state_NBC.view(*state_NBC.shape[:2], self.num_directions, -1).transpose(1, 2).flatten(0, 1)

    def _check(self, input: Tensor, c0: Tensor | None, mask_pad: Tensor | None) -> None:
        if input.dim() != 3 or input.shape[2] != self.input_size:
            raise ValueError(f"input has shape {list(input.shape)}; it must be [steps, batch, {self.input_size}]")
        if c0 is not None and c0.shape != (self.num_layers, input.shape[1], self.output_size):
            expected = [self.num_layers, input.shape[1], self.output_size]
            raise ValueError(f"c0 has shape {list(c0.shape)}; it must be {expected}")
        if mask_pad is not None and mask_pad.shape != input.shape[:2]:
            raise ValueError(f"mask_pad has shape {list(mask_pad.shape)}; it must be {list(input.shape[:2])}")


def _padded(h_TC: Tensor, place_T: Tensor, batch_steps: tuple[int, int], fill_C: Tensor | None) -> Tensor:
    """[B, L, C] with the packed rows in their places and fill_C, or zero, elsewhere."""
    rows = batch_steps[0] * batch_steps[1]
    base = h_TC.new_zeros(rows, h_TC.shape[1]) if fill_C is None else fill_C.to(h_TC.dtype).expand(rows, -1)
    return base.index_copy(0, place_T, h_TC).view(*batch_steps, -1)


def matrices(in_features: int, output_size: int, has_skip_term: bool = True) -> int:
    """K: three, and a fourth for the highway where the input has another width than the output."""
    return 4 if has_skip_term and in_features != output_size else 3
