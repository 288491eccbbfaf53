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
from corpuscore.scoring.srupp.plain import SRU

INPUTS, STEPS, BATCH, MEMORY = 8, 7, 3, 4

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "defaults": {"hidden_size": 5},
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
    "projected first": {"hidden_size": 5, "proj_input_to_hidden_first": True, "bidirectional": True},
    "torch's state": {"hidden_size": 5, "bidirectional": True, "nn_rnn_compatible_return": True, "weight_c_init": 0.5},
}

PADDING = {
    "none": None,
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
    theirs, ours = published.SRUpp(INPUTS, **shape), SRUpp(INPUTS, **shape)
    for parameter in theirs.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def outputs_and_gradients(network: Any, input_LBI: Tensor, **arguments: Any) -> dict[str, Tensor]:
    """All that a call returns, and the gradients of a fixed function of it."""
    input_LBI = input_LBI.clone().requires_grad_()
    network.zero_grad()
    output, state, *extra = network(input_LBI, **arguments)
    valid = 1.0 if arguments.get("mask_pad") is None else (~arguments["mask_pad"]).float()[..., None]
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    ((output * weights * valid).sum() + state.square().sum()).backward()
    results = {"output": output, "state": state, "dinput": input_LBI.grad}
    results |= {f"saved {i}": saved for i, saved in enumerate(extra[0]["saved_inputs"] if extra else [])}
    return results | {f"d{name}": parameter.grad for name, parameter in network.named_parameters()}


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
    """Outputs, states, saved inputs and every gradient, wherever the padding is."""
    theirs, ours = both(published, configuration)
    arguments = {
        "mask_pad": PADDING[padding],
        "c0": torch.randn(ours.num_layers, BATCH, ours.output_size) if padding != "none" else None,
    }
    input_LBI = torch.randn(STEPS, BATCH, INPUTS)
    assert_same(
        outputs_and_gradients(theirs, input_LBI, **arguments), outputs_and_gradients(ours, input_LBI, **arguments)
    )


@pytest.mark.filterwarnings("ignore:Running SRU on CPU with grad_enabled")
@pytest.mark.parametrize("causal", [False, True])
def test_memory_and_attention_mask_are_the_published_ones(published: ModuleType, causal: bool) -> None:
    """Attention reaches into earlier inputs, and no further than the mask lets it."""
    theirs, ours = both(published, "same width")
    mask = torch.triu(torch.full((STEPS, MEMORY + STEPS), float("-inf")), MEMORY + 1)
    arguments = {
        "memory": [torch.randn(MEMORY, BATCH, INPUTS) for _ in range(ours.num_layers)],
        "memory_mask_pad": torch.tensor([[1, 0, 1]] * 2 + [[0, 0, 1]] * 2).bool(),
        "mask_pad": PADDING["right"],
        "attn_mask": mask if causal else None,
    }
    input_LBI = torch.randn(STEPS, BATCH, INPUTS)
    assert_same(
        outputs_and_gradients(theirs, input_LBI, **arguments), outputs_and_gradients(ours, input_LBI, **arguments)
    )


PLAIN: dict[str, dict[str, Any]] = {
    "whole projection": {"hidden_size": 8},
    "factorised": {"hidden_size": 5, "projection_size": 3, "bidirectional": True, "rescale": True},
    "no highway": {"hidden_size": 8, "has_skip_term": False, "rescale": True, "nn_rnn_compatible_return": True},
    "pre-norm": {"hidden_size": 4, "layer_norm": True, "bidirectional": True, "highway_bias": -1.0},
    "post-norm": {"hidden_size": 6, "layer_norm": True, "normalize_after": True, "proj_input_to_hidden_first": True},
}


@pytest.mark.filterwarnings("ignore:Running SRU on CPU with grad_enabled")
@pytest.mark.parametrize("padding", ["none", "inside"])
@pytest.mark.parametrize("configuration", PLAIN)
def test_plain_sru_is_the_published_one(published: ModuleType, configuration: str, padding: str) -> None:
    """Outputs, states and every gradient of the stack without attention."""
    torch.manual_seed(7)
    theirs, ours = published.SRU(INPUTS, **PLAIN[configuration]), SRU(INPUTS, **PLAIN[configuration])
    ours.load_state_dict(theirs.state_dict())
    input_LBI, arguments = torch.randn(STEPS, BATCH, INPUTS), {"mask_pad": PADDING[padding]}
    assert_same(
        outputs_and_gradients(theirs, input_LBI, **arguments), outputs_and_gradients(ours, input_LBI, **arguments)
    )


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


def test_a_row_that_is_all_padding_is_zero_and_keeps_its_state() -> None:
    """No NaN forward or backward, with or without an attention mask, and neighbours as if it were not there."""
    network = SRUpp(INPUTS, 4, 6, bidirectional=True)
    input_LBI, mask = torch.randn(STEPS, BATCH, INPUTS), torch.zeros(STEPS, BATCH, dtype=torch.bool)
    mask[:, 1] = True
    for attn_mask in (None, torch.zeros(STEPS, STEPS)):
        state = torch.randn(2, BATCH, 8)
        results = outputs_and_gradients(network, input_LBI, mask_pad=mask, c0=state, attn_mask=attn_mask)
        assert all(tensor.isfinite().all() for tensor in results.values())
        assert not results["output"][:, 1].any()
        assert torch.equal(results["state"][:, 1], state[:, 1])
    with torch.no_grad():
        others, _, _ = network(input_LBI[:, [0, 2]], c0=state[:, [0, 2]])
    torch.testing.assert_close(results["output"][:, [0, 2]], others)


def test_packed_documents_give_what_padded_ones_give() -> None:
    """Documents end to end, in any order of length, equal the rows of a padded batch."""
    network = SRUpp(INPUTS, 8, 6, bidirectional=True, num_heads=2).eval()
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    lengths = [3, 7, 1, 3, 0, 5]
    texts = [torch.randn(length, INPUTS) for length in lengths]
    mask = torch.arange(7)[:, None] >= torch.tensor(lengths)
    padded, _, _ = network(torch.nn.utils.rnn.pad_sequence(texts), mask_pad=mask)
    documents = Documents(torch.tensor([0, *lengths]).cumsum(0), torch.device("cpu"))
    packed = network.forward_packed(torch.cat(texts), documents)
    torch.testing.assert_close(packed, padded.transpose(0, 1)[~mask.t()])


def test_dropout_has_one_mask_for_all_tokens_of_a_document() -> None:
    """In training a dropped channel of h - x is dropped from a document's first token to its last."""
    network = SRUpp(INPUTS, INPUTS, 6, num_layers=2, dropout=0.5).train()
    input_LBI = torch.randn(STEPS, BATCH, INPUTS)
    _, _, extra = network(input_LBI)
    dropped_LBC = extra["saved_inputs"][1] == input_LBI
    assert dropped_LBC.any()
    assert not dropped_LBC.all()
    assert torch.equal(dropped_LBC.any(0), dropped_LBC.all(0))


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": torch.zeros(STEPS, INPUTS)}, r"input has shape \[7, 8\]"),
        ({"c0": torch.zeros(1, BATCH, 8)}, r"c0 has shape \[1, 3, 8\]; it must be \[2, 3, 8\]"),
        ({"mask_pad": torch.zeros(BATCH, STEPS)}, r"mask_pad has shape \[3, 7\]; it must be \[7, 3\]"),
        ({"memory": [None]}, "memory has 1 entries"),
    ],
)
def test_arguments_of_another_shape_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The error states the shape that was found and the one that is right."""
    with pytest.raises(ValueError, match=message):
        SRUpp(INPUTS, 8, 6)(**{"input": torch.zeros(STEPS, BATCH, INPUTS), **arguments})
