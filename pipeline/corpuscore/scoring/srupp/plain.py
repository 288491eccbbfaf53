"""Plain SRU: the recurrence over a projection of the input alone, without attention.

`SRU` takes the published implementation's arguments by name and loads its state dicts; what is deprecated there
(rnn_dropout, use_tanh, v1) and custom transforms are left out.

Source: Lei et al. 2018, arXiv 1709.02755; layout and names of sru 3.0.0.dev6.
"""

from __future__ import annotations

from torch import Tensor, nn

from corpuscore.scoring.srupp.attention import Context
from corpuscore.scoring.srupp.stack import SRUCell, Stack, Transform, matrices


class _Projection(Transform):
    """U = W X."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Linear(in_features, out_features, bias=False).weight
        self.reset_parameters()

    @property
    def out_weight(self) -> Tensor:
        """W."""
        return self.weight

    def reset_parameters(self) -> None:
        """Xavier uniform."""
        nn.init.xavier_uniform_(self.weight)

    def forward(self, input_TI: Tensor, context: Context) -> Tensor:
        """The input itself; nothing of the context is used."""
        return input_TI


class _FactorisedProjection(Transform):
    """U = W2 W1 X; the factors are named 0 and 1."""

    def __init__(self, in_features: int, out_features: int, projection_size: int) -> None:
        super().__init__()
        self._factors = nn.Linear(in_features, projection_size, False), nn.Linear(projection_size, out_features, False)
        for name, factor in enumerate(self._factors):
            self.add_module(str(name), factor)
        self.reset_parameters()

    @property
    def out_weight(self) -> Tensor:
        """W2."""
        return self._factors[1].weight

    def reset_parameters(self) -> None:
        """Xavier uniform."""
        for factor in self._factors:
            nn.init.xavier_uniform_(factor.weight)

    def forward(self, input_TI: Tensor, context: Context) -> Tensor:
        """W1 X; nothing of the context is used."""
        projected_TP: Tensor = self._factors[0](input_TI)
        return projected_TP


class SRU(Stack):
    """A stack of SRU layers.

    Args:
        input_size: Features of the input.
        hidden_size: Channels of each direction.
        num_layers: Layers.
        dropout: Of h - x, between layers.
        bidirectional: Whether the output is twice as wide, its second half running backward.
        projection_size: Width of a factorised projection; 0 for a whole one.
        highway_bias: First value of the reset gate's bias.
        layer_norm: Whether each layer has a LayerNorm.
        normalize_after: Whether that one takes the layer's output rather than its input.
        has_skip_term: Whether there is a highway.
        rescale: Whether x is scaled in the highway.
        nn_rnn_compatible_return: Whether the state has the shape of torch's RNNs, [layers * directions, B, hidden].
        proj_input_to_hidden_first: Whether an input of another width is first projected.
        weight_c_init: Range of the first v.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 2,
        dropout: float = 0.0,
        bidirectional: bool = False,
        projection_size: int = 0,
        highway_bias: float = 0.0,
        layer_norm: bool = False,
        normalize_after: bool = False,
        has_skip_term: bool = True,
        rescale: bool = False,
        nn_rnn_compatible_return: bool = False,
        proj_input_to_hidden_first: bool = False,
        weight_c_init: float = 1.0,
    ) -> None:
        output_size = hidden_size * (2 if bidirectional else 1)

        def cell(index: int, in_features: int) -> SRUCell:
            out_features = output_size * matrices(in_features, output_size, has_skip_term)
            transform = (
                _FactorisedProjection(in_features, out_features, projection_size)
                if projection_size
                else _Projection(in_features, out_features)
            )
            return SRUCell(
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
                has_skip_term,
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

    def forward(self, input: Tensor, c0: Tensor | None = None, mask_pad: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A padded batch, wherever its padding is; a row that is all padding gives h = 0 and keeps its state.

        Args:
            input: [L, B, I].
            c0: [N, B, C], the states before the first token; zero where None.
            mask_pad: [L, B], non-zero where the input is padding.

        Returns:
            The output [L, B, C] and the states after the last token [N, B, C].

        Raises:
            ValueError: An argument of another shape.
        """
        output, states, _ = self._run(input, c0, mask_pad)
        return output, states
