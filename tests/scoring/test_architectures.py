"""Every architecture that transformers classifies texts with: as its own pipeline, one text at a time, or refused."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

from corpuscore.errors import ModelError
from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.families import GROUPED, NATIVE, PACKED, REFUSED
from corpuscore.scoring.packing import concatenate
from corpuscore.scoring.scorer import Tokens
from tests.scoring.pipelines import compare, pipeline_scores
from tests.scoring.tiny import TEXTS, write_tiny

MODELS_PAGE = Path(__file__).parents[2] / "docs" / "models.md"

#: One of each kind; `python -m tests.benchmarks.architectures` goes through all.
KINDS = (
    # without torch's own attention
    "big_bird", "bigbird_pegasus", "bloom", "canine", "convbert", "deberta", "flaubert", "fnet", "funnel", "gemma2",
    "gpt_oss", "ibert", "longformer", "luke", "megatron-bert", "mpt", "nystromformer", "openai-gpt", "perceiver",
    "reformer", "rembert", "roformer", "squeezebert", "t5", "xlm", "xlnet", "xmod", "yoso",
    # whose head reads the last token, with and without a padding token
    "gemma", "gpt2", "llama", "qwen3_5_text", "zamba2",
    # the others: end tokens, images that a text has not, experts
    "bart", "data2vec-text", "gemma3", "jamba", "mixtral", "layoutlm",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_pipeline(kind: str, tmp_path: Path) -> None:
    """Texts of many lengths, some of one, with end and padding tokens written in them: within 1e-5, alone and not."""
    found = compare(write_tiny(tmp_path, kind))
    assert found.spread > 1e-3, "the checkpoint says the same of every text, and proves nothing"
    assert found.beside_the_pipeline < 1e-5
    assert found.beside_itself_alone < 1e-5
    assert found.failed == {}


@pytest.mark.parametrize("pad", [None, -1, 2, 40])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_decoders_pool_what_the_pipeline_pools(kind: str, pad: int | None, tmp_path: Path) -> None:
    """Without a padding token, with -1, with the end token or a token of the text for it."""
    found = compare(write_tiny(tmp_path, kind, pad_token_id=pad))
    assert found.beside_the_pipeline < 1e-5
    assert found.failed == {}


def test_type_ids_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    """XLNet's last token has a type of its own, which the tokenizer gives and the ids do not say."""
    folder = write_tiny(tmp_path, "xlnet")
    state = json.loads((folder / "tokenizer.json").read_text())
    for item in state["post_processor"]["single"]:
        item.get("SpecialToken", item.get("Sequence"))["type_id"] = 2 if "SpecialToken" in item else 0
    (folder / "tokenizer.json").write_text(json.dumps(state))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    saved = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
    plain = pipeline_scores(folder, TEXTS)
    (folder / "tokenizer_config.json").write_text(json.dumps(saved))
    assert np.abs(pipeline_scores(folder, TEXTS) - plain).max() > 1e-3, "types change nothing, and prove nothing"
    assert compare(folder).beside_the_pipeline < 1e-5


def test_nothing_is_remembered_of_other_texts(tmp_path: Path) -> None:
    """BigBird's sparse attention after a short text, and frequencies that grow with the longest one."""
    sparse = write_tiny(tmp_path / "sparse", "big_bird", num_random_blocks=1, block_size=2)
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    growing = write_tiny(tmp_path / "growing", "llama", max_position_embeddings=8, rope_parameters=rope)
    for folder in (sparse, growing):
        scorer = load_scorer(str(folder), device="cpu", max_tokens=8 if folder == growing else 60)
        backend: Any = scorer._backend  # type: ignore[attr-defined]
        whole = backend.tokenize([TEXTS[1], "soup", TEXTS[2], TEXTS[3][:40], TEXTS[1][:30]], None)
        together = backend.forward(whole)
        fresh: Any = [
            load_scorer(str(folder), device="cpu", max_tokens=8)._backend.forward(_one(whole, at))  # type: ignore[attr-defined]
            for at in range(5)
        ]
        assert np.abs(together - np.concatenate(fresh)).max() < 1e-5
        again = np.concatenate([backend.forward(_one(whole, at)) for at in (1, 3, 0)])
        assert np.abs(again - together[[1, 3, 0]]).max() < 1e-5


def _one(tokens: Tokens, at: int) -> Tokens:
    start, stop = tokens.offsets[at : at + 2]
    return concatenate([Tokens(tokens.ids[start:stop], np.array([0, stop - start]))])


def test_an_id_without_a_row_is_one_reject(tmp_path: Path) -> None:
    """A token beyond the embedding costs its document alone, and nothing reaches a device that it would break."""
    folder = write_tiny(tmp_path, "ernie")
    scorer = load_scorer(str(folder), device="cpu", max_tokens=60)
    backend: Any = scorer._backend  # type: ignore[attr-defined]
    whole = backend.tokenize

    def odd(texts: list[str], limit: int | None) -> Tokens:
        tokens = whole(texts, limit)
        for at, text in enumerate(texts):
            if "keeper" in text:
                tokens.ids[tokens.offsets[at] + 1] = 5_000
        return tokens  # type: ignore[no-any-return]

    backend.tokenize = odd
    (scores,) = scorer.stream([TEXTS])
    assert {at: why.reason for at, why in scores.failed.items()} == {1: "failed"}
    assert "token 5000 has no row in the embedding" in scores.failed[1].detail


def test_every_type_of_transformers_has_its_path() -> None:
    """The table of families is that of the installed transformers, each type once."""
    ours = [*NATIVE, *PACKED, *GROUPED, *REFUSED]
    assert sorted(ours) == sorted(KNOWN)


@pytest.mark.parametrize("kind", [*REFUSED, "whisper", None])
def test_what_is_no_text_classifier_is_refused_at_plan(kind: str | None, checkpoint: Callable[[str], Path]) -> None:
    """With the reason, before anything is loaded."""
    folder = checkpoint("bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": kind, "architectures": ["OddForSequenceClassification"]}
    with _swapped(folder / "config.json", config), pytest.raises(ModelError, match="cannot be scored: its? "):
        describe_scorer(str(folder), device="cpu")


class _swapped:  # noqa: N801  (used as a function)
    """The file has other contents within the block."""

    def __init__(self, path: Path, value: object) -> None:
        self._path, self._value, self._body = path, value, path.read_text()

    def __enter__(self) -> None:
        self._path.write_text(json.dumps(self._value))

    def __exit__(self, *_: object) -> None:
        self._path.write_text(self._body)


def test_the_slower_path_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An architecture without an unpadded path is announced."""
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(str(write_tiny(tmp_path, "ernie")), device="cpu", max_tokens=60)
    assert scorer.info.backend == "transformers"
    assert "groups of texts of equal length, which is slower" in caplog.text


def test_the_page_of_models_says_what_the_code_does() -> None:
    """docs/models.md names each model type, in the row of its path."""
    rows = re.findall(r"^\| \*\*(.+?)\*\*.*\|(.+)\|$", MODELS_PAGE.read_text(), re.MULTILINE)
    said = {path: set(re.findall(r"`([^`]+)`", types)) for path, types in rows}
    expected = {
        "unpadded, native": set(NATIVE),
        "unpadded": set(PACKED),
        "grouped": set(GROUPED),
        "refused": set(REFUSED),
    }
    assert said == expected
