"""The native encoder against transformers' own padded forward, on tiny random checkpoints of every family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from corpuscore.scoring.bert.encoder import PRODUCTS, CpuEncoder, Network, why_not
from corpuscore.scoring.kernels.build import load_library, why_missing
from tests.scoring.checkpoints import config_of, network_of

pytestmark = [
    pytest.mark.usefixtures("kernel_level"),
    pytest.mark.skipif(load_library("encoder.cpp") is None, reason=f"no native kernel: {why_missing('encoder.cpp')}"),
]

_VOCABULARY = 97
_LENGTHS = (1, 2, 11, 12, 13, 16, 31, 32, 33, 57, 130, 300)
Sequences = list[npt.NDArray[np.int32]]


def _model(family: str, **changes: Any) -> Any:
    """A tiny classifier whose scores differ between sequences: weights ten times wider than before training."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 520,
        "vocab_size": _VOCABULARY,
        "num_labels": 5,
        "initializer_range": 0.2,
        **changes,
    }
    if family == "Electra":
        sizes = {"embedding_size": 48, **sizes}
    if family == "DistilBert":
        names = {"hidden_size": "dim", "intermediate_size": "hidden_dim", "num_hidden_layers": "n_layers"}
        names |= {"num_attention_heads": "n_heads", "hidden_act": "activation"}
        sizes = {names.get(name, name): value for name, value in sizes.items()}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    for name, parameter in model.named_parameters():  # fresh norms and biases would hide a mix-up
        if name.endswith("bias") or "norm" in name.lower():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def _sequences(lengths: tuple[int, ...] = _LENGTHS, seed: int = 0) -> Sequences:
    generator = np.random.default_rng(seed)
    return [generator.integers(3, _VOCABULARY, length, dtype=np.int32) for length in lengths]


def _logits(encoder: CpuEncoder, sequences: Sequences, threads: int = 1) -> npt.NDArray[np.float32]:
    offsets = np.cumsum([0, *(len(sequence) for sequence in sequences)])
    return encoder.logits(np.concatenate([np.empty(0, np.int32), *sequences]), offsets, threads=threads)


def _padded(model: Any, sequences: Sequences) -> npt.NDArray[np.float32]:
    """What transformers says, padded to the longest."""
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width), model.config.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
    return np.asarray(logits.numpy())


def _probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _largest_change(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    return float(np.abs(_probabilities(first) - _probabilities(second)).max())


def _everything(model: Any) -> Iterator[tuple[int, str]]:
    return ((layer, product) for layer in range(model.config.num_hidden_layers) for product in PRODUCTS)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta", "Electra", "DistilBert"])
def test_every_family_gives_transformers_probabilities(family: str) -> None:
    """fp32 is within 1e-5 of the padded forward, for lengths around every tile's edge."""
    model, sequences = _model(family), _sequences()
    assert why_not(config_of(model)) == ""
    expected = _padded(model, sequences)
    assert np.ptp(_probabilities(expected), axis=0).min() > 0.01, "the scores of this model tell nothing"
    assert _largest_change(_logits(CpuEncoder(network_of(model)), sequences), expected) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 60, "num_attention_heads": 3, "intermediate_size": 50},  # nothing is a multiple of 16
        {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256},  # heads of 64
        {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 1},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"layer_norm_eps": 0.1, "num_labels": 37, "type_vocab_size": 1},
    ],
)
def test_sizes_and_options_of_the_config_are_kept(changes: dict[str, Any]) -> None:
    """Odd sizes, heads of 20, 32 and 64, other activations and epsilons are within 1e-5 too."""
    model, sequences = _model("Bert", **changes), _sequences()
    assert _largest_change(_logits(CpuEncoder(network_of(model)), sequences), _padded(model, sequences)) < 1e-5


def test_the_padding_token_inside_a_text_keeps_its_odd_position() -> None:
    """RoBERTa does not count padding tokens, even where a text spells one out."""
    model, sequences = _model("Roberta"), _sequences((9, 20))
    for sequence in sequences:
        sequence[[3, 5]] = model.config.pad_token_id
    ids = torch.from_numpy(sequences[1].astype(np.int64))[None]
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()
    assert _largest_change(_logits(CpuEncoder(network_of(model)), sequences)[1:], expected) < 1e-5


@pytest.mark.parametrize("said", [{}, {"pad_token_id": None}])
def test_a_padding_token_that_is_not_said_is_the_familys(said: dict[str, None]) -> None:
    """RoBERTa's is 1, and BERT's positions count from no padding."""
    for family, padding in (("Roberta", 1), ("Bert", None)):
        model = _model(family)
        config = {name: value for name, value in config_of(model).items() if name != "pad_token_id"}
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        assert Network.of({**config, **said}, 5, state).padding == padding


@pytest.mark.parametrize("int8", [False, True])
def test_a_sequence_scores_the_same_alone_and_in_any_company(int8: bool) -> None:
    """Bit for bit: alone, in any order, in any number, on one thread or more."""
    model = _model("Bert")
    encoder = CpuEncoder(network_of(model), _everything(model) if int8 else ())
    sequences = _sequences((*_LENGTHS, 512, *range(20, 60)))
    together = _logits(encoder, sequences)
    alone = np.concatenate([_logits(encoder, [sequence]) for sequence in sequences])
    backwards = _logits(encoder, sequences[::-1], threads=2)[::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, _logits(encoder, sequences, threads=3))


@pytest.mark.parametrize("family", ["Bert", "DistilBert"])
def test_int8_stays_near_fp32(family: str) -> None:
    """int8 moves probabilities of a random network by little, and it does run in int8."""
    model, sequences = _model(family), _sequences()
    exact, rounded = (
        _logits(CpuEncoder(network_of(model)), sequences),
        _logits(CpuEncoder(network_of(model), _everything(model)), sequences),
    )
    assert 0 < _largest_change(exact, rounded) < 0.05


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_a_nan_weight_gives_nan_as_in_torch(activation: str, int8: bool) -> None:
    """No activation and no quantisation may turn it into scores that look real."""
    model, sequences = _model("Bert", hidden_act=activation), _sequences((5, 40))
    model.bert.encoder.layer[1].intermediate.dense.weight.data[7] = float("nan")
    encoder = CpuEncoder(network_of(model), _everything(model) if int8 else ())
    assert np.isnan(_padded(model, sequences)).all()
    assert np.isnan(_logits(encoder, sequences)).all()


@pytest.mark.parametrize("int8", [False, True])
def test_a_nan_embedding_reaches_its_own_sequences_only(int8: bool) -> None:
    """A sequence with the broken token has no scores; its neighbours keep theirs."""
    model = _model("Bert")
    sequences = [np.full(9, 20, np.int32), np.array([4, 5, 30, 6], np.int32), np.full(50, 21, np.int32)]
    products = list(_everything(model)) if int8 else []
    whole = _logits(CpuEncoder(network_of(model), products), sequences)
    model.bert.embeddings.word_embeddings.weight.data[30] = float("nan")
    broken = _logits(CpuEncoder(network_of(model), products), sequences)
    assert np.isnan(broken[1]).all()
    np.testing.assert_array_equal(broken[[0, 2]], whole[[0, 2]])


def test_no_sequences_give_no_rows() -> None:
    """An empty batch is no error."""
    assert _logits(CpuEncoder(network_of(_model("Bert"))), []).shape == (0, 5)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([np.array([5, _VOCABULARY], np.int32)], "token ids 5..97"),
        ([np.array([-1], np.int32)], "token ids -1"),
        ([np.full(521, 5, np.int32)], "position 520"),
        ([np.array([5], np.int32), np.empty(0, np.int32)], "without empty sequences"),
    ],
)
def test_what_the_embeddings_do_not_have_is_refused(sequences: Sequences, message: str) -> None:
    """The kernel reads no memory that is not its own."""
    with pytest.raises(ValueError, match=message):
        _logits(CpuEncoder(network_of(_model("Bert"))), sequences)


def test_models_without_a_kernel_are_told_apart() -> None:
    """Other architectures and activations have a reason in words."""
    assert "silu" in why_not(config_of(_model("Bert", hidden_act="silu")))
    config = transformers.BertConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, vocab_size=9)
    assert "BertForTokenClassification" in why_not(config_of(transformers.BertForTokenClassification(config)))


def test_a_config_that_leaves_sizes_unsaid_has_a_reason() -> None:
    """Defaults are not guessed; the plain path knows them."""
    config = config_of(_model("Bert"))
    del config["num_attention_heads"]
    assert why_not(config) == "config.json does not give num_attention_heads"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 98}, r"word_embeddings.weight has the shape \(97, 64\), and its config.json says \(98, 64\)"),
        ({"num_hidden_layers": 4}, "no weights for bert.encoder.layer.3.attention.self.query.weight, .* and 12 more"),
        ({"num_attention_heads": 5}, "64 cannot be divided into 5 heads"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(changes: dict[str, int], message: str) -> None:
    """The kernel trusts sizes, so all are checked before."""
    model = _model("Bert")
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        Network.of({**config_of(model), **changes}, 5, state)
