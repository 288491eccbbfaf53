import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.utils.cpp_extension
from torch import Tensor

from corpuscore.scoring.srupp.attention import Documents
from corpuscore.scoring.srupp.layers import SRUpp

INPUTS, STEPS, BATCH = 8, 7, 3

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "projected first": {"hidden_size": 5},
    "same width": {"hidden_size": 8},
    "bidirectional": {"hidden_size": 4, "bidirectional": True},
    "pre-norm, heads": {"hidden_size": 5, "bidirectional": True, "layer_norm": True, "num_heads": 2},
    "post-norm, rescaled": {
        "hidden_size": 4,
        "bidirectional": True,
        "layer_norm": True,
        "normalize_after": True,
        "rescale": True,
    },
    "attention in every second layer": {
        "hidden_size": 8,
        "num_layers": 4,
        "attention_every_n_layers": 2,
        "rescale": True,
    },
    "attention in the last layer": {
        "hidden_size": 4,
        "num_layers": 3,
        "attention_last_n_layers": 1,
        "highway_bias": -1.0,
    },
    "no attention": {"hidden_size": 8, "attention_last_n_layers": 0, "attn_layer_norm": False},
}

PADDING = {
    "none": torch.zeros(STEPS, BATCH, dtype=torch.bool),
    "right": torch.arange(STEPS)[:, None] >= torch.tensor([7, 3, 5]),
    "left": torch.arange(STEPS)[:, None] < torch.tensor([0, 4, 2]),
    "inside": torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]).bool(),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other over a few numbers cost more than they help, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def published() -> Iterator[ModuleType]:
    """The published implementation without its compiled inference kernels: only its Python path has gradients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.cpp_extension, "load", lambda **_: None)
        patch.setattr(torch.jit, "script", lambda function: function)
        patch.setattr(torch.jit, "unused", lambda function: function)
        yield pytest.importorskip("sru")
    for name in [name for name in sys.modules if name.split(".")[0] == "sru"]:
        del sys.modules[name]


def both(published: ModuleType, configuration: str) -> tuple[Any, SRUpp]:
    """Two networks with the same parameters, none of them at its first value; ours has loaded the other's."""
    torch.manual_seed(7)
    shape = {"proj_size": 6, **CONFIGURATIONS[configuration]}
    theirs, ours = published.SRUpp(INPUTS, **shape, proj_input_to_hidden_first=True), SRUpp(INPUTS, **shape)
    for parameter in theirs.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def packed(rows_LBX: Tensor, valid_LB: Tensor) -> Tensor:
    """The valid rows of a padded batch, [T, X], one sequence after the other."""
    return rows_LBX.transpose(0, 1)[valid_LB.t()]


def lying(lengths: Tensor) -> Documents:
    """Documents of these lengths, end to end."""
    return Documents(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), torch.device("cpu"))


def outputs_and_gradients(network: torch.nn.Module, input: Tensor, output_TC: Tensor) -> dict[str, Tensor]:
    """The output, and the gradients of a fixed function of it."""
    network.zero_grad()
    (output_TC * torch.linspace(-1, 1, output_TC.numel()).view(output_TC.shape)).sum().backward()  # type: ignore[no-untyped-call]
    assert input.grad is not None
    gradients = {f"d{name}": parameter.grad for name, parameter in network.named_parameters()}
    return {"output": output_TC, "dinput": input.grad, **{k: g for k, g in gradients.items() if g is not None}}


def assert_same(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    """Every entry within 2e-5, and the difference in the message."""
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert tensor.shape == got[name].shape, name
        difference = (tensor - got[name]).abs().max().item()
        assert difference < 2e-5 * max(1.0, tensor.abs().max().item()), f"{name} differs by {difference:.1e}"


@pytest.mark.filterwarnings("ignore:Running SRU on CPU with grad_enabled")
@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_forward_and_gradients_are_the_published_ones(published: ModuleType, configuration: str, padding: str) -> None:
    """Outputs and every gradient: documents end to end give what a padded batch gives, wherever its padding is."""
    theirs, ours = both(published, configuration)
    valid_LB = ~PADDING[padding]
    input_LBI = torch.randn(STEPS, BATCH, INPUTS, requires_grad=True)
    input_TI = packed(input_LBI.detach(), valid_LB).requires_grad_()
    output_LBC, *_ = theirs(input_LBI, mask_pad=PADDING[padding])
    expected = outputs_and_gradients(theirs, input_LBI, packed(output_LBC, valid_LB))
    expected["dinput"] = packed(expected["dinput"], valid_LB)
    assert_same(expected, outputs_and_gradients(ours, input_TI, ours(input_TI, lying(valid_LB.sum(0)))))


@pytest.mark.filterwarnings("ignore:Running SRU on CPU with grad_enabled")
def test_first_values_are_drawn_as_published(published: ModuleType) -> None:
    """The same parameter names in the same order; constants equal, ranges of random ones alike."""
    shape: dict[str, Any] = {"hidden_size": 256, "proj_size": 32, "dropout": 0.5, "rescale": True, "layer_norm": True}
    theirs, ours = (network(256, **shape).state_dict() for network in (published.SRUpp, SRUpp))
    assert list(theirs) == list(ours)
    for name, tensor in theirs.items():
        assert tensor.shape == ours[name].shape
        assert ours[name].std(correction=0).item() == pytest.approx(
            tensor.std(correction=0).item(), rel=0.15, abs=1e-6
        ), name
        assert ours[name].mean().item() == pytest.approx(tensor.mean().item(), abs=0.3), name


def test_documents_are_computed_as_if_alone() -> None:
    """In any order of length, an empty one among them, and no NaN on the way back."""
    network = SRUpp(INPUTS, 8, 6, bidirectional=True, num_heads=2)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    lengths = torch.tensor([3, 7, 1, 3, 0, 5])
    texts = [torch.randn(length, INPUTS) for length in lengths.tolist()]
    together = network(torch.cat(texts), lying(lengths))
    alone = [network(text, lying(torch.tensor([len(text)]))) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone))
    together.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_dropout_has_one_mask_for_all_tokens_of_a_document() -> None:
    """In training a dropped channel of h - x is dropped from a document's first token to its last."""
    network = SRUpp(INPUTS, INPUTS, 6, num_layers=2, dropout=0.5).train()
    input_TC = torch.randn(BATCH * STEPS, INPUTS)
    output_TC = network.rnn_lst[0](input_TC, lying(torch.full((BATCH,), STEPS)))
    dropped_BLC = (output_TC == input_TC).view(BATCH, STEPS, INPUTS)
    assert dropped_BLC.any()
    assert not dropped_BLC.all()
    assert torch.equal(dropped_BLC.any(1), dropped_BLC.all(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention_every_n_layers": 2, "attention_last_n_layers": 1}, "exclude each other"),
        ({"num_heads": 4}, "proj_size 6 cannot be divided into 4 heads"),
    ],
)
def test_impossible_shapes_are_refused(arguments: dict[str, int], message: str) -> None:
    """The error names the arguments."""
    with pytest.raises(ValueError, match=message):
        SRUpp(INPUTS, 8, 6, **arguments)  # type: ignore[arg-type]
