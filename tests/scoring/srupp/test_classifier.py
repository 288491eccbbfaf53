import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from corpuscore.errors import ModelError
from corpuscore.scoring import load_scorer
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.srupp.classifier import SRUppClassifier
from corpuscore.scoring.srupp.config import Pooling, SRUppConfig
from corpuscore.scoring.srupp.folder import Storage, load_network, save_classifier
from corpuscore.scoring.srupp.native import NativeClassifier, weight_shapes
from corpuscore.scoring.srupp.recurrence.native import missing

LABELS = ("joy", "fear", "none")
LENGTHS = [4, 1, 0, 9, 4]
WORDS = {"[UNK]": 0, "a": 1, "storm": 2, "passed": 3}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other over a few numbers cost more than they help, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def classifier(pooling: Pooling = "mean_max", vocab_size: int = 30) -> SRUppClassifier:
    """A small network with weights that matter everywhere."""
    torch.manual_seed(3)
    config = SRUppConfig(
        vocab_size=vocab_size, labels=LABELS, embedding_size=12, hidden_size=10, proj_size=8, pooling=pooling
    )
    model = SRUppClassifier(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.data.fill_(0.5)
    return model


def tokenizer() -> Tokenizer:
    """Words of a fixed list, and one for all others."""
    made = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def documents() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and offsets of a few documents, one of them empty."""
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    return torch.arange(int(offsets[-1])) % 30, offsets


@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max", "attention"])
def test_a_document_scores_the_same_alone(pooling: Pooling) -> None:
    """Neighbours and their order don't matter, and an empty document has finite logits."""
    model, (ids_T, offsets) = classifier(pooling), documents()
    together = model(ids_T, offsets)
    for s, length in enumerate(LENGTHS):
        first = int(offsets[s])
        alone = model(ids_T[first : first + length], torch.tensor([0, length]))
        torch.testing.assert_close(together[s : s + 1], alone)
    assert together.isfinite().all()
    assert together.std(0).min() > 1e-3, "all documents score alike, which proves nothing"


@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max", "attention"])
def test_training_reaches_every_parameter(pooling: Pooling) -> None:
    """Each parameter gets a finite gradient that is not zero throughout."""
    model, (ids_T, offsets) = classifier(pooling).train(), documents()
    model(ids_T, offsets).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_small_network_learns_a_small_task() -> None:
    """Forty steps tell documents that hold word 7 from those that don't."""
    generator = torch.Generator().manual_seed(1)
    model = SRUppClassifier(
        SRUppConfig(vocab_size=20, labels=("seven",), embedding_size=16, hidden_size=16, proj_size=8, dropout=0.0)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        lengths = torch.randint(2, 9, (32,), generator=generator)
        ids_T = torch.randint(0, 20, (int(lengths.sum()),), generator=generator)
        target = torch.tensor([[float(7 in text)] for text in torch.split(ids_T, lengths.tolist())])
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(ids_T, offsets), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.15


NATIVE: dict[str, dict[str, Any]] = {
    "defaults": {},
    "attention pooling, heads": {"pooling": "attention", "num_heads": 2},
    "post-norm, mean": {"pooling": "mean", "normalize_after": True},
    "no norms, rescaled, max": {"pooling": "max", "layer_norm": False, "attn_layer_norm": False, "rescale": True},
    "projected input": {"embedding_size": 36, "hidden_size": 20, "num_heads": 3, "attention_last_n_layers": 1},
    "wide, one direction": {"bidirectional": False, "hidden_size": 70, "proj_size": 70, "num_layers": 3},
}


def native_of(model: SRUppClassifier, threads: int) -> NativeClassifier:
    """The same network without torch."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return NativeClassifier(model.config, state, threads)


@pytest.mark.usefixtures("kernel_level")
@pytest.mark.parametrize("shape", NATIVE)
def test_the_native_classifier_does_what_the_network_does(shape: str) -> None:
    """Probabilities agree for every kind of part; neighbours and threads change no bit of them."""
    if reason := missing():
        pytest.skip(reason)
    torch.manual_seed(4)
    small = {"embedding_size": 20, "hidden_size": 24, "proj_size": 12, **NATIVE[shape]}
    model = SRUppClassifier(SRUppConfig(vocab_size=50, labels=LABELS, **small)).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    lengths = [0, 40, 1, 150, 3, 17, 90, 0]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    ids_T = torch.randint(0, 50, (int(offsets[-1]),), dtype=torch.int32)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == dict(
        weight_shapes(model.config)
    )
    native = native_of(model, threads=2)
    got = native(Tokens(ids_T.numpy(), offsets.numpy()))
    difference = (model(ids_T, offsets).sigmoid() - torch.from_numpy(got)).abs().max().item()
    assert difference < 5e-6, f"probabilities differ by {difference:.1e}"
    for s, length in enumerate(lengths):
        text = ids_T[offsets[s] : offsets[s] + length].numpy()
        assert np.array_equal(native(Tokens(text, np.array([0, length])))[0], got[s])


@pytest.mark.usefixtures("kernel_level")
@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max", "attention"])
def test_nan_reaches_its_own_documents_probabilities_natively(pooling: Pooling) -> None:
    """As in torch: a text with a broken token has no scores, and no other text is touched."""
    if reason := missing():
        pytest.skip(reason)
    model, (ids_T, offsets) = classifier(pooling), documents()
    model.embedding.weight.data[6] = float("nan")  # in the middle of a document: its neighbours are finite
    got = native_of(model, threads=1)(Tokens(ids_T.numpy().astype(np.int32), offsets.numpy()))
    expected = model(ids_T, offsets).sigmoid().detach().numpy()
    assert np.isnan(expected).any()
    np.testing.assert_allclose(got, expected, atol=5e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 31}, "embedding.weight has the shape"),
        ({"pooling": "attention"}, "head.weight has the shape"),
        ({"attention_last_n_layers": 1}, "encoder.rnn_lst.0.transform_module.alpha has the shape"),
        ({"num_layers": 3}, "encoder.rnn_lst.2.bias is missing"),
        ({"num_heads": 3}, "heads must divide proj_size"),
        ({"num_layers": 0}, "there must be a layer"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused_natively(changes: dict[str, Any], message: str) -> None:
    """The kernel trusts sizes, so all are checked before."""
    if reason := missing():
        pytest.skip(reason)
    model = classifier()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        NativeClassifier(replace(model.config, **changes), state, threads=1)


def test_an_id_outside_the_vocabulary_is_refused_natively() -> None:
    """It would read memory that is not the model's."""
    if reason := missing():
        pytest.skip(reason)
    native = native_of(classifier(), threads=1)
    with pytest.raises(IndexError, match="token ids from 3 to 30 for a vocabulary of 30"):
        native(Tokens(np.array([3, 30], np.int32), np.array([0, 2])))


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0.0), ("fp16", 2e-3), ("int8", 2e-2)])
def test_a_saved_model_loads_as_it_was(tmp_path: Path, storage: Storage, tolerance: float) -> None:
    """Configuration, tokenizer and logits survive, within what the storage rounds away."""
    model, (ids_T, offsets) = classifier(), documents()
    save_classifier(tmp_path / "model", model, tokenizer(), storage)
    loaded = load_network(tmp_path / "model")
    assert loaded.config == model.config
    assert Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode("a storm passed").ids == [1, 2, 3]
    difference = (loaded(ids_T, offsets) - model(ids_T, offsets)).abs().max().item()
    assert difference <= tolerance
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_int8_takes_a_quarter_of_the_space(tmp_path: Path) -> None:
    """Matrices are one byte a weight and four a row."""
    sizes = {}
    for storage in ("fp32", "int8"):
        save_classifier(tmp_path / storage, classifier(vocab_size=5000), tokenizer(), storage)
        sizes[storage] = (tmp_path / storage / "model.safetensors").stat().st_size
    assert sizes["int8"] < 0.4 * sizes["fp32"]


def test_a_config_reads_as_transformers_writes_labels(tmp_path: Path) -> None:
    """config.json has model_type, id2label by number and problem_type, and comes back equal."""
    config = classifier().config
    value = json.loads(json.dumps(config.to_json()))
    assert value["model_type"] == "srupp"
    assert value["id2label"] == {"0": "joy", "1": "fear", "2": "none"}
    assert SRUppConfig.from_json({**value, "transformers_version": "5"}) == config


@pytest.mark.parametrize(
    "wrong", [{"pooling": "sum"}, {"problem_type": "regression"}, {"labels": ()}, {"labels": ("a", "a")}]
)
def test_impossible_configurations_are_refused(wrong: dict[str, object]) -> None:
    """Pooling, problem type and labels are checked where they are given."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SRUppConfig(**{"vocab_size": 5, "labels": LABELS, **wrong})  # type: ignore[arg-type]


def broken(folder: Path, damage: str) -> None:
    """Do one kind of damage to a saved model."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    match damage:
        case "no weights":
            weights.unlink()
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:-40])
        case "a missing tensor":
            save_file({k: v for k, v in load_file(weights).items() if k != "head.bias"}, weights)
        case "a missing scale":
            save_file({k: v for k, v in load_file(weights).items() if k != "head.weight.scale"}, weights)
        case "another shape":
            config.write_text(config.read_text().replace('"hidden_size": 10', '"hidden_size": 11'))
        case "another type":
            config.write_text(config.read_text().replace('"srupp"', '"bert"'))
        case "no labels":
            config.write_text(config.read_text().replace('"id2label"', '"names"'))
        case "no JSON":
            config.write_text("{")
        case "no tokenizer":
            (folder / "tokenizer.json").write_text("{}")
        case "a tokenizer of another model":
            config.write_text(config.read_text().replace('"vocab_size": 30', '"vocab_size": 3'))
            save_file({**load_file(weights), "embedding.weight": torch.zeros(3, 12)}, weights)


@pytest.mark.parametrize(
    "damage",
    [
        "no weights", "cut weights", "a missing tensor", "a missing scale", "another shape", "another type",
        "no labels", "no JSON", "no tokenizer", "a tokenizer of another model",
    ],
)  # fmt: skip
def test_a_broken_folder_is_a_model_error(tmp_path: Path, damage: str) -> None:
    """It names the file or what does not fit, and is never a KeyError or a RuntimeError from some library."""
    save_classifier(tmp_path, classifier(), tokenizer(), "int8")
    broken(tmp_path, damage)
    said = r"model\.safetensors|config\.json|tokenizer\.json|takes no such model|each token needs a row"
    with pytest.raises(ModelError, match=said):
        load_scorer(str(tmp_path), device="cpu")
