"""Finding and checking checkpoints: what is refused, how, and what the fingerprint depends on."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from corpuscore.errors import CorpuscoreError, ModelError
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.kernels import build, levels
from tests.scoring.backends.test_srupp import folder as small_srupp
from tests.scoring.checkpoints import LABELS, MAX_POSITIONS, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return write_checkpoint(tmp_path / "model")


def reconfigure(folder: Path, **changes: object) -> None:
    """Change config.json; None deletes a key."""
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def refusal(folder: Path, **options: Any) -> str:
    """What describe_scorer and load_scorer both say of a checkpoint that they refuse."""
    said = []
    for function in (describe_scorer, load_scorer):
        with pytest.raises(CorpuscoreError) as caught:
            function(str(folder), device="cpu", **options)
        pickle.loads(pickle.dumps(caught.value))  # noqa: S301  (our own)
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def test_description_and_scorer_agree(folder: Path) -> None:
    """The info of a loaded scorer is the one that was described without its weights."""
    described = describe_scorer(str(folder), device="cpu")
    assert load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS).info == described
    assert described.labels == LABELS
    assert (described.activation, described.backend, described.precision) == ("sigmoid", "bert", "fp32")
    assert described.parameters == sum(
        value.numel()
        for value in load_scorer(str(folder), device="cpu", backend="transformers", max_tokens=MAX_POSITIONS)
        ._backend._model.state_dict()  # type: ignore[attr-defined]
        .values()
    )


def test_describing_needs_neither_torch_nor_transformers(folder: Path) -> None:
    """A plan for CPU workers can be made in an image without them."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from corpuscore.scoring import describe_scorer\n"
        f"print(describe_scorer({str(folder)!r}, device='cpu').fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == describe_scorer(str(folder), device="cpu").fingerprint


@pytest.mark.parametrize("model", ["bundled", "bert"])
def test_the_fingerprint_is_of_the_arithmetic(model: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels with and without multiply-adds, mended kernels and torch give other bits, and so other fingerprints."""

    def described() -> str:
        build._load.cache_clear()
        return describe_scorer(model if model == "bundled" else str(folder), device="cpu").fingerprint

    seen = [described()]
    monkeypatch.setattr(build, "KERNEL_REVISION", build.KERNEL_REVISION + 1)
    seen.append(described())
    monkeypatch.setenv("CORPUSCORE_CPU", "plain")
    seen.append(described())
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "nothing built"))
    seen.append(described())
    build._load.cache_clear()
    assert len(set(seen)) == len(seen) - (levels.of_cpu() == ("plain",))


def test_int8_where_it_does_not_pay_is_fp32(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The name is that of what runs; the reason is said."""
    monkeypatch.setenv("CORPUSCORE_CPU", "plain")
    build._load.cache_clear()
    with caplog.at_level(logging.WARNING):
        asked, exact = (describe_scorer(str(folder), device="cpu", precision=name) for name in ("int8", "fp32"))
    scorer = load_scorer(str(folder), device="cpu", precision="int8", max_tokens=MAX_POSITIONS)
    build._load.cache_clear()
    assert (asked, scorer.info.precision) == (exact, "fp32")
    assert "int8 runs as fp32 here" in caplog.text


def test_the_fingerprint_is_of_everything_that_changes_a_score(folder: Path, tmp_path: Path) -> None:
    """Weights, config, tokenizer and backend change it; another path does not."""
    first = describe_scorer(str(folder), device="cpu").fingerprint
    same = write_checkpoint(tmp_path / "elsewhere")
    assert describe_scorer(str(same), device="cpu").fingerprint == first
    seen = {first, describe_scorer(str(folder), device="cpu", backend="transformers").fingerprint}
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        seen.add(describe_scorer(str(folder), device="cpu").fingerprint)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    seen.add(describe_scorer(str(folder), device="cpu").fingerprint)
    assert len(seen) == 5
    assert all(len(fingerprint) == 16 for fingerprint in seen)


@pytest.mark.parametrize(("family", "backend"), [("bert", "auto"), ("roberta", "auto"), ("roberta", "transformers")])
def test_more_tokens_than_positions_are_refused_before_anything_is_loaded(
    tmp_path: Path, family: str, backend: str
) -> None:
    """At plan as on the worker; RoBERTa's first positions are no token's."""
    folder = write_checkpoint(tmp_path, family)
    assert f"the model has {MAX_POSITIONS} positions" in refusal(folder, max_tokens=MAX_POSITIONS + 1, backend=backend)
    describe_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS, backend=backend)


def test_a_path_without_a_model(tmp_path: Path) -> None:
    """An empty folder, a file and a missing path are named as such."""
    (tmp_path / "file").write_text("no model")
    assert "no config.json" in refusal(tmp_path)
    assert "is not a folder" in refusal(tmp_path / "file")
    assert "is not a folder" in refusal(tmp_path / "nothing")


def test_a_hub_name_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error says that the name could not be fetched, and what to do."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="could not be fetched") as caught:
        describe_scorer("nobody/no-such-model", device="cpu")
    assert "give the folder" in str(caught.value)


def test_a_revision_of_a_hub_model_is_pinned(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME@REVISION is that branch, tag or commit, and no other; a revision may hold slashes."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--name"
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40), ("refs/pr/1", "c" * 40)):
        shutil.copytree(folder, cached / "snapshots" / commit)
        reconfigure(cached / "snapshots" / commit, id2label={"0": revision})
        (cached / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (cached / "refs" / revision).write_text(commit)
    for name, label in (("", "main"), ("@v1", "v1"), ("@refs/pr/1", "refs/pr/1"), (f"@{'b' * 40}", "v1")):
        assert describe_scorer(f"owner/name{name}", device="cpu").labels == (label,)
    with pytest.raises(ModelError, match="could not be fetched"):
        describe_scorer("owner/name@v2", device="cpu")


def test_labels_may_be_a_list(folder: Path) -> None:
    """As some tools write id2label: the same labels in this order, and the same scores."""
    names = list(json.loads((folder / "config.json").read_text())["id2label"].values())
    expected = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)
    reconfigure(folder, id2label=names)
    found = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)
    assert found.info.labels == expected.info.labels == tuple(names)
    assert (found.score(["a text"]) == expected.score(["a text"])).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": None, "architectures": ["BertModel"]}, "no labels"),
        ({"problem_type": "regression"}, "regression"),
        ({"auto_map": {"AutoModel": "modeling.Custom"}}, "its own code"),
        ({"id2label": {"0": "a", "2": "b"}}, "count from 0"),
        ({"id2label": {"0": "a", "1": "a"}}, "repeat"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
    ],
)
def test_a_config_that_is_no_classifier(folder: Path, changes: dict[str, object], message: str) -> None:
    """Each kind is refused with its reason."""
    reconfigure(folder, **changes)
    assert message in refusal(folder)


def test_labels_by_the_rules_of_transformers(folder: Path) -> None:
    """Unnamed labels of a classifier are two; without a problem type one label is sigmoid, more are softmax."""
    reconfigure(folder, id2label=None, problem_type=None)
    info = describe_scorer(str(folder), device="cpu")
    assert (info.labels, info.activation) == (("LABEL_0", "LABEL_1"), "softmax")
    reconfigure(folder, id2label={"0": "only"})
    assert describe_scorer(str(folder), device="cpu").activation == "sigmoid"


def test_columns_follow_the_ids(folder: Path) -> None:
    """Labels are ordered by id, not by where they stand in the file."""
    reconfigure(folder, id2label={str(index): f"label {index}" for index in reversed(range(11))})
    assert describe_scorer(str(folder), device="cpu").labels == tuple(f"label {index}" for index in range(11))


def test_weights_with_other_labels_than_the_config(folder: Path) -> None:
    """A head of five outputs with a config of two labels cannot be loaded."""
    reconfigure(folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(ModelError):
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)


@pytest.mark.parametrize("spoil", [lambda data: data[:-7], lambda data: b"\xff" * 8 + data[8:], lambda _: b""])
def test_corrupt_weights(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Cut short, a broken header or an empty file: corrupt, before anything is loaded."""
    path = folder / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    assert "corrupt" in refusal(folder)


def test_a_random_head_is_refused(folder: Path) -> None:
    """A checkpoint without weights for its head is not scored with random ones."""
    from safetensors.torch import load_file, save_file

    kept = {name: value for name, value in load_file(folder / "model.safetensors").items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="no weights for classifier"):
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)


def test_pickled_weights_only_on_demand(folder: Path) -> None:
    """pytorch_model.bin is refused by default; allowed, it gives the same scores."""
    from safetensors.torch import load_file

    expected = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS).score(["a storm"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "--allow-pickle" in refusal(folder)
    scorer = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS, allow_pickle=True)
    assert scorer.info.parameters == 0
    assert abs(scorer.score(["a storm"]) - expected).max() < 1e-6


def test_a_missing_or_broken_tokenizer(folder: Path) -> None:
    """Without a tokenizer there is no scorer; with a broken one neither."""
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer" in refusal(folder)


@pytest.mark.parametrize("backend", ["bert", "transformers", "srupp"])
def test_a_vocabulary_larger_than_the_embedding(tmp_path: Path, backend: str) -> None:
    """Whichever backend would run it: said with both numbers when it is described, before such a token comes."""
    folder = small_srupp(tmp_path) if backend == "srupp" else write_checkpoint(tmp_path)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["vocab"] |= {"stormy": rows, "soupy": rows + 1}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    said = refusal(folder, backend=backend)
    assert f"ids up to {rows + 1}" in said
    assert f"{rows} rows" in said


@pytest.mark.parametrize("where", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
def test_an_added_token_without_a_row(folder: Path, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """Named when the model is described; a text that holds it is refused, in whichever case, and no other is."""
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    if where == "tokenizer.json":
        state = json.loads((folder / where).read_text())
        state["added_tokens"].append({"id": rows, "content": "stormy", **flags})
        (folder / where).write_text(json.dumps(state))
    elif where == "tokenizer_config.json":
        (folder / where).write_text(json.dumps({"added_tokens_decoder": {rows: {"content": "stormy", **flags}}}))
    else:
        (folder / where).write_text(json.dumps({"stormy": rows}))
    with caplog.at_level(logging.WARNING):
        describe_scorer(str(folder), device="cpu")
    assert f"{rows} rows and none for 'stormy'" in caplog.text
    tokenizer = find_checkpoint(str(folder)).tokenizer()
    assert len(tokenizer.encode(["a soup", "a storm", "", "y"], 20).lengths) == 4
    for text in ("a stormy soup", "A Stormy soup " * 9):
        with pytest.raises(ValueError, match=f"token 'stormy' has id {rows}, and the embedding {rows} rows"):
            tokenizer.encode(["a soup", text], 20)


def test_a_vocabulary_in_a_list_is_counted(tmp_path: Path) -> None:
    """Unigram tokenizers number their pieces by their places."""
    folder = write_checkpoint(tmp_path, "xlm-roberta")
    reconfigure(folder, vocab_size=50)
    assert "50 rows" in refusal(folder)


def test_a_vocabulary_that_has_to_be_converted_is_counted_when_it_is_loaded(tmp_path: Path) -> None:
    """Converting takes transformers, which a plan goes without."""
    folder = write_checkpoint(tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words) + "stormy\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=f"ids up to {len(words)}.*{len(words)} rows"):
        load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS)


def test_a_broken_srupp_config_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """The shape of the network is checked when the scorer is described."""
    folder = small_srupp(tmp_path)
    reconfigure(folder, pooling="median")
    assert "pooling 'median' is unknown" in refusal(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "nosuch"}, "a backend is auto or one of"),
        ({"precision": "fp8"}, "it can do fp32"),
        ({"precision": "double"}, "it can do fp32"),
    ],
)
def test_options_that_cannot_be(folder: Path, options: dict[str, str], message: str) -> None:
    """Unknown backends and precisions, and those that the device cannot do, are the argument's fault."""
    assert message in refusal(folder, **options)


def test_sharded_weights(folder: Path) -> None:
    """Shards are found by their index; a missing one is named."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS).score(["a storm"])
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    got = load_scorer(str(folder), device="cpu", max_tokens=MAX_POSITIONS).score(["a storm"])
    assert abs(got - expected).max() < 1e-6
    shards[-1].unlink()
    assert shards[-1].name in refusal(folder)
