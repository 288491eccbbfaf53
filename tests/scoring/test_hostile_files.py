"""Files of a checkpoint as nobody writes them by mistake: a ModelError, or a model that works; never anything else."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corpuscore.errors import CorpuscoreError, ModelError
from corpuscore.scoring import describe_scorer, load_scorer
from tests.scoring.backends.test_srupp import folder as small_srupp
from tests.scoring.checkpoints import MAX_POSITIONS, write_checkpoint
from tests.scoring.tiny import write_tiny

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HUGE = [0, -1, 1, 2, 10**6, 2**31, 2**31 - 1, 2**32 + 32, 2**63, 10**30, 1e308, float("nan"), float("inf"), -0.0]
DEEP = st.recursive(
    st.integers(-1, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.sampled_from(HUGE), st.text(max_size=9), st.just("x" * 10**5), st.just("\0"),
    DEEP,
    st.just({"0": "a", "1": ["b"]}), st.just({"-1": "a"}), st.just({"1e3": "a"}), st.just({"9" * 30: "a"}),
    st.just([["BertForSequenceClassification"]]), st.just(["GPT2ForSequenceClassification"]),
)  # fmt: skip
NAMES = ("architectures", "id2label", "label2id", "num_labels", "model_type", "problem_type", "hidden_size",
         "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings",
         "type_vocab_size", "layer_norm_eps", "hidden_act", "pad_token_id", "auto_map", "is_decoder", "dtype",
         "position_embedding_type", "torch_dtype", "transformers_version", "hidden_dropout_prob", "quantization_config",
         "rope_scaling", "tie_word_embeddings", "proj_size", "num_layers", "pooling", "embedding_size")  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint for each backend."""
    folder = tmp_path_factory.mktemp("models")
    made = {"bert": write_checkpoint(folder / "bert"), "transformers": write_tiny(folder / "ernie", "ernie")}
    (folder / "srupp").mkdir()
    return {**made, "srupp": small_srupp(folder / "srupp")}


@contextmanager
def spoilt(folder: Path, name: str, body: bytes) -> Iterator[Path]:
    """A copy of a checkpoint in which one file has other bytes."""
    with tempfile.TemporaryDirectory() as made:
        for path in folder.iterdir():
            if path.name != name:
                (Path(made) / path.name).symlink_to(path)
        (Path(made) / name).write_bytes(body)
        yield Path(made)


def use(folder: Path) -> None:
    """Describe, load and score; nothing but errors of our own may come of it."""
    with suppress(CorpuscoreError):
        described = describe_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)
        scorer = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS, threads=1)
        assert scorer.score(["a storm", ""]).shape == (2, len(described.labels))


@pytest.mark.parametrize("backend", ["bert", "transformers", "srupp"])
@FEW
@given(changes=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3))
@example({"num_hidden_layers": 10**9})
@example({"hidden_size": 2**32 + 32})
@example({"num_attention_heads": 0})
@example({"num_hidden_layers": 0})
@example({"id2label": {"0": "a", "1": {"b": []}}})
@example({"architectures": "BertForSequenceClassification"})
@example({"model_type": ["bert"]})
@example({"pad_token_id": "x"})
@example({"num_labels": 2**63, "id2label": None})
def test_a_config_of_any_values(models: dict[str, Path], backend: str, changes: dict[str, Any]) -> None:
    """Wrong types, huge and negative sizes, NaN, missing labels, other architectures."""
    config = json.loads((models[backend] / "config.json").read_text(encoding="utf-8"))
    with spoilt(models[backend], "config.json", json.dumps({**config, **changes}).encode()) as folder:
        use(folder)


@pytest.mark.parametrize("backend", ["bert", "transformers"])
@pytest.mark.parametrize("changes", [{"hidden_size": 2**15, "intermediate_size": 2**16}, {"vocab_size": 2**30}])
def test_a_network_that_its_weights_do_not_fill(models: dict[str, Path], backend: str, changes: dict[str, int]) -> None:
    """It is refused with both numbers, or the first weight that does not fit, before its memory is taken."""
    config = json.loads((models[backend] / "config.json").read_text(encoding="utf-8"))
    with spoilt(models[backend], "config.json", json.dumps({**config, **changes}).encode()) as folder:
        with pytest.raises(ModelError, match=r"describes a network of [\d,]+ weights|its config\.json says"):
            load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert int(peak) < 6 * 2**20


def header(tensors: dict[str, Any] | str, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    said = (tensors if isinstance(tensors, str) else json.dumps(tensors)).encode()
    return len(said).to_bytes(8, "little") + said + data


def tensor(shape: Any, dtype: Any = "F32", offsets: Any = (0, 4)) -> dict[str, Any]:
    """An entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ENTRY = json.dumps(tensor([1]))
HEADERS = {
    "no tensors": header({}, b"1234"),
    "a header of 2**63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a negative size": header({"a": tensor([-1])}, b"1234"),
    "a size of 2**63": header({"a": tensor([2**63])}, b"1234"),
    "sizes whose product overflows": header({"a": tensor([2**32, 2**32])}, b"1234"),
    "a size that is no number": header({"a": tensor(["1"])}, b"1234"),
    "offsets that overlap": header({"a": tensor([1]), "b": tensor([1])}, b"1234"),
    "offsets the wrong way round": header({"a": tensor([1], offsets=[4, 0])}, b"1234"),
    "an offset far outside": header({"a": tensor([1], offsets=[2**62, 2**62 + 4])}, b"1234"),
    "an unknown type": header({"a": tensor([1], dtype="F128")}, b"1234"),
    "a type that is none": header({"a": tensor([1], dtype=None)}, b"1234"),
    "a name that comes twice": header(f'{{"a": {ENTRY}, "a": {ENTRY}}}', b"1234"),
    "a name of a megabyte": header({"a" * 2**20: tensor([1])}, b"1234"),
    "a header a hundred thousand deep": header("[" * 100_000 + "]" * 100_000),
    "a thousand dimensions": header({"a": tensor([1] * 1000)}, b"1234"),
    "no numbers at all": header({"a": tensor([0, 2**40], offsets=[0, 0])}),
    "a header that is a list": header("[1, 2]"),
    "not UTF-8": (4).to_bytes(8, "little") + b'{"\xff"',
    "bytes that nobody owns": header({"a": tensor([1])}, b"12345678"),
}


@pytest.mark.parametrize("damage", HEADERS)
@pytest.mark.parametrize("backend", ["bert", "transformers", "srupp"])
def test_a_header_of_weights_that_lies(models: dict[str, Path], backend: str, damage: str) -> None:
    """Whatever it says of sizes, types and places, the model is refused."""
    with spoilt(models[backend], "model.safetensors", HEADERS[damage]) as folder, pytest.raises(ModelError):
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)


PARTS = ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens", "truncation", "padding")


@pytest.mark.parametrize("backend", ["bert", "transformers"])
@FEW
@given(part=st.sampled_from(PARTS), inner=st.text(max_size=3) | st.none(), value=VALUES)
@example("post_processor", None, None)
def test_a_tokenizer_of_any_values(
    models: dict[str, Path], backend: str, part: str, inner: str | None, value: Any
) -> None:
    """Each part of tokenizer.json replaced, or given one more entry."""
    state = json.loads((models[backend] / "tokenizer.json").read_text(encoding="utf-8"))
    changed = {**state[part], inner: value} if inner is not None and isinstance(state[part], dict) else value
    with spoilt(models[backend], "tokenizer.json", json.dumps({**state, part: changed}).encode()) as folder:
        use(folder)


@pytest.mark.parametrize("change", [{"ids": [10**6]}, {"ids": [2**32 - 1]}])
def test_a_special_token_without_a_row_in_the_embedding(models: dict[str, Path], change: dict[str, Any]) -> None:
    """The ids that a template puts around each text need be no tokens of the vocabulary: said when it is loaded."""
    state = json.loads((models["bert"] / "tokenizer.json").read_text(encoding="utf-8"))
    state["post_processor"]["special_tokens"]["[CLS]"].update(change)
    refused = pytest.raises(ModelError, match=f"ids up to {change['ids'][0]}")
    with spoilt(models["bert"], "tokenizer.json", json.dumps(state).encode()) as folder, refused:
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_file_that_is_none(models: dict[str, Path], name: str) -> None:
    """A folder, a device that never ends and too deep a nest in place of a file are refused."""
    with spoilt(models["bert"], name, b"[" * 200_000 + b"]" * 200_000) as folder:
        (folder / "model.safetensors").unlink() if "index" in name else None
        with pytest.raises(ModelError):
            describe_scorer(str(folder), device="cpu")
        for target in ("/dev/zero", "/"):
            (folder / name).unlink()
            (folder / name).symlink_to(target)
            with pytest.raises(ModelError):
                describe_scorer(str(folder), device="cpu")
