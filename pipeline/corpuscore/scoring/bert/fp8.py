"""FP8 linear layers: e4m3 with a scale for each token and each output channel, for GPUs that multiply it.

Shape suffixes: T tokens, I input channels, O output channels.
"""

from __future__ import annotations

import torch
from torch import nn

from corpuscore.errors import JobError

E4M3 = torch.float8_e4m3fn
_LARGEST = torch.finfo(E4M3).max
#: The first capability whose tensor cores multiply FP8 (Ada); Hopper is 9.0.
CAPABILITY = (8, 9)
#: The product wants channels in multiples of this.
_MULTIPLE = 16
#: Names of heads in transformers; they are small, and decide.
_HEADS = ("pooler", "classifier", "head.")


def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row to e4m3 with a float32 scale of its own: values [.., I], scales [.., 1]; value * scale gives it back."""
    scale = rows.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / _LARGEST
    return (rows.float() / scale).clamp(-_LARGEST, _LARGEST).to(E4M3), scale


class Fp8Linear(nn.Module):
    """A linear layer whose product is FP8; activations are quantised for each token as they come.

    Args:
        linear: The layer to replace.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_OI, scale_O1 = quantise(linear.weight.detach())
        self.weight_OI = nn.Buffer(weight_OI)
        self.scale_1O = nn.Buffer(scale_O1.T.contiguous())
        self.bias_O = linear.bias

    def forward(self, input_TI: torch.Tensor) -> torch.Tensor:
        """input [.., I] -> output [.., O] in the input's dtype."""
        rows_TI, scale_T1 = quantise(input_TI.reshape(-1, input_TI.shape[-1]))
        output_TO = torch._scaled_mm(
            rows_TI,
            self.weight_OI.T,
            scale_a=scale_T1,
            scale_b=self.scale_1O,
            out_dtype=torch.bfloat16,
        )
        if self.bias_O is not None:
            output_TO = output_TO + self.bias_O
        return output_TO.to(input_TI.dtype).view(*input_TI.shape[:-1], -1)


def _fits(linear: nn.Linear) -> bool:
    return linear.in_features % _MULTIPLE == 0 and linear.out_features % _MULTIPLE == 0


def use_fp8(classifier: nn.Module, device: str) -> None:
    """Replace the linear layers of a classifier, in place; its head stays as it is.

    Raises:
        JobError: The GPU has no FP8 product.
    """
    if device == "cuda" and torch.cuda.get_device_capability() < CAPABILITY:
        raise JobError(
            f"--precision fp8 on {torch.cuda.get_device_name()}",
            rule="FP8 products need an NVIDIA GPU of capability 8.9 or higher",
            next_step="use --precision bf16",
        )
    for name, module in list(classifier.named_modules()):
        if isinstance(module, nn.Linear) and _fits(module) and not any(part in name for part in _HEADS):
            parent, _, leaf = name.rpartition(".")
            setattr(classifier.get_submodule(parent), leaf, Fp8Linear(module))
