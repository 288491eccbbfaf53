"""transformers is asked once, and what is missing for its answer is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpuscore.errors import ModelError
from corpuscore.scoring.tokenization import asking, source
from corpuscore.scoring.tokenizer import TextTokenizer
from tests.scoring.tokenization.folders import TEXTS, spm, write_tokenizer
from tests.scoring.tokenization.test_agreement import assert_same_tokens, auto_tokenizer, split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One of which tokenizer.json does not say all."""
    found = write_tokenizer(tmp_path / "it", "cased", 0)
    (found / "tokenizer_config.json").write_text('{"strip_accents": false, "truncation_side": "left"}')
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that transformers has been asked for."""
    found: list[Path] = []

    def noted(folder: Path, answer: Callable[[Path], Any] = asking._auto_tokenizer) -> Any:
        found.append(folder)
        return answer(folder)

    monkeypatch.setattr(asking, "_auto_tokenizer", noted)
    return found


def ids_in_another_process(folder: Path) -> list[list[int]]:
    """As of one that remembers nothing."""
    source._find.cache_clear()
    return split(TextTokenizer.load(folder, "it").encode(TEXTS, 12))


def test_one_process_asks_for_all(folder: Path, asked: list[Path], answers: Path) -> None:
    """The answer is kept, until a file changes; the model's folder stays as it was."""
    before = sorted(path.name for path in folder.iterdir())
    first = ids_in_another_process(folder)
    assert ids_in_another_process(folder) == first
    assert len(asked) == 1
    (folder / "tokenizer_config.json").write_text('{"strip_accents": true}')
    assert ids_in_another_process(folder) != first
    assert (len(asked), len(list(answers.iterdir()))) == (2, 2)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_an_answer_that_was_damaged_is_asked_for_again(folder: Path, asked: list[Path], answers: Path) -> None:
    """Half of it, or something else in its place."""
    first = ids_in_another_process(folder)
    for body in ("", "{", "[]", '{"state": ""}'):
        (kept,) = answers.iterdir()
        kept.write_text(body)
        assert ids_in_another_process(folder) == first
    assert len(asked) == 5


def test_nothing_need_be_kept(folder: Path, asked: list[Path], answers: Path) -> None:
    """Where nothing can be written, each process asks for itself, and once."""
    answers.parent.write_text("a file in the folder's place")
    first = ids_in_another_process(folder)
    assert split(TextTokenizer.load(folder, "it").encode(TEXTS, 12)) == first
    assert len(asked) == 1


@pytest.mark.parametrize(("missing", "said"), [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")])
def test_the_package_for_a_vocabulary_is_named(
    missing: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SentencePiece vocabulary needs two packages, which are an extra."""
    folder = write_tokenizer(tmp_path / "it", "deberta-spm", 0)
    monkeypatch.setattr(asking, "_is_installed", lambda name: name != missing)
    with pytest.raises(ModelError, match=rf"spm\.model, and .*{said} is not installed.*corpuscore\[sentencepiece\]"):
        TextTokenizer.load(folder, "it")


def test_without_transformers_the_reason_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, only what tokenizer.json says alone can be used."""
    monkeypatch.setattr(asking, "_is_installed", lambda name: name != "transformers")
    with pytest.raises(ModelError, match="only transformers knows"):
        TextTokenizer.load(folder, "it")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert len(TextTokenizer.load(folder, "it").encode(["a storm"], 12).ids) > 2


def _bertweet(folder: Path) -> None:
    words = ["a", "storm", "so@@", "up", "s@@", "t@@", "o@@", "r@@", "m", "u@@", "p"]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words))
    (folder / "bpe.codes").write_text("u p</w> 9\ns o 8\ns t 7\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertweetTokenizer"}')


def _ctrl(folder: Path) -> None:
    letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz.," for end in ("", "@@")]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(["<unk>", *letters])}))
    (folder / "merges.txt").write_text("#version: 0.2\ns t\n")


def _nothing(folder: Path) -> None:
    """Bytes need no vocabulary."""


@pytest.mark.parametrize("model_type, write", [("roberta", _bertweet), ("ctrl", _ctrl), ("perceiver", _nothing)])  # noqa: PT006  (a pair)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.filterwarnings("ignore")
def test_tokenizers_that_are_written_in_python(
    model_type: str, write: Callable[[Path], None], side: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They work as well, and say that they are slower."""
    write(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    said = json.loads(settings.read_text()) if settings.exists() else {}
    settings.write_text(json.dumps({**said, "truncation_side": side}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert_same_tokens(tmp_path)
    assert "written in Python" in caplog.text


def test_a_vocabulary_that_only_has_a_name_of_its_own(tmp_path: Path) -> None:
    """SentencePiece files of every name that transformers knows are found."""
    folder = write_tokenizer(tmp_path / "it", "deberta-spm", 0)
    assert_same_tokens(folder)
    (folder / "spm.model").write_bytes(spm("unigram")[:100])
    with pytest.raises(ModelError, match="transformers makes no tokenizer"):
        TextTokenizer.load(folder, "it")


def test_a_literal_token_that_is_split(tmp_path: Path) -> None:
    """split_special_tokens is no part of tokenizer.json, and is kept with the answer all the same."""
    folder = write_tokenizer(tmp_path / "it", "bert", 0)
    (folder / "tokenizer_config.json").write_text('{"split_special_tokens": true}')
    want = auto_tokenizer(folder)("soup [SEP]")["input_ids"]
    for _ in range(2):
        source._find.cache_clear()
        assert TextTokenizer.load(folder, "it").encode(["soup [SEP]"], None).ids.tolist() == want
    assert np.count_nonzero(np.array(want) == 3) == 1
