"""Every family against transformers' own padded fp32 forward, and against itself in other company."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpuscore.scoring import describe_scorer, load_scorer
from corpuscore.scoring.bert.torch_cpu import CpuBackend
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Scorer
from tests.scoring.checkpoints import FAMILIES, MAX_POSITIONS, SAMPLE, write_checkpoint

TEXTS = [
    "",
    "soup",
    SAMPLE[0],
    SAMPLE[3],
    "the " * (MAX_POSITIONS - 2),
    "the " * (MAX_POSITIONS - 1),
    " ".join(SAMPLE[:5]),
    SAMPLE[0],
    "salt \t\n  storm! \u00e9t\u00e9 \u65e5\u672c <pad> [SEP] \U0001f600",
]


def reference(folder: Path, texts: list[str], max_tokens: int = MAX_POSITIONS) -> npt.NDArray[np.float32]:
    """Probabilities of transformers' padded forward in fp32, all texts in one rectangle."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))  # type: ignore[no-untyped-call]
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    multi = model.config.problem_type == "multi_label_classification"
    return (logits.sigmoid() if multi else logits.softmax(-1)).numpy()  # type: ignore[no-any-return]


def scorer_of(folder: Path, **options: object) -> Scorer:
    """A scorer on the CPU with the window of the tiny checkpoints."""
    return load_scorer(str(folder), device="cpu", **{"max_tokens": MAX_POSITIONS, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_transformers(family: str, checkpoint: Callable[[str], Path]) -> None:
    """Empty, one-token, full, overlong and repeated texts, stray special tokens: within 1e-5 of the padded forward."""
    expected = reference(checkpoint(family), TEXTS)
    got = scorer_of(checkpoint(family)).score(TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.05, "the checkpoint says the same of every text, and proves nothing"
    assert np.abs(got - expected).max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_does_not_see_its_neighbours(family: str, checkpoint: Callable[[str], Path]) -> None:
    """Alone, in a batch, in the other order and under another token budget: the same scores.

    Within 4e-6, since torch's products round otherwise for other shapes.
    """
    scorer = scorer_of(checkpoint(family))
    together = scorer.score(TEXTS)
    alone = np.concatenate([scorer.score([text]) for text in TEXTS])
    backwards = scorer.score(TEXTS[::-1])[::-1]
    narrow = scorer_of(checkpoint(family), token_budget=MAX_POSITIONS).score(TEXTS)
    for other in (alone, backwards, narrow):
        assert np.abs(other - together).max() < 4e-6


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta-v3"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_company_gives_the_same_scores(family: str, checkpoint: Callable[[str], Path], data: st.DataObject) -> None:
    """Whatever texts and whatever budget: each text scores as it does alone."""
    texts = data.draw(st.lists(st.text(max_size=120), min_size=1, max_size=8))
    budget = data.draw(st.integers(MAX_POSITIONS, 400))
    scorer = scorer_of(checkpoint(family), token_budget=budget)
    alone = np.concatenate([scorer.score([text]) for text in texts])
    assert np.abs(scorer.score(texts) - alone).max() < 4e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_path_is_exact_too(family: str, checkpoint: Callable[[str], Path]) -> None:
    """Where there are no compiled kernels, torch gives the same scores from packed tokens."""
    path = checkpoint(family)
    backend = CpuBackend(find_checkpoint(str(path)), describe_scorer(str(path), device="cpu"), threads=None)
    plain = Engine(backend, max_tokens=MAX_POSITIONS, long_documents="truncate", token_budget=200)
    assert np.abs(plain.score(TEXTS) - reference(path, TEXTS)).max() < 1e-5


def test_a_real_checkpoint() -> None:
    """A trained classifier on real comments: within 1e-5 of transformers, alone as in company within 1e-6."""
    if "CORPUSCORE_DATA" not in os.environ:
        pytest.skip("needs CORPUSCORE_DATA, the folder of the development data")
    data = Path(os.environ["CORPUSCORE_DATA"])
    with gzip.open(data / "reddit-10k.csv.gz", "rt", newline="") as file:
        texts = [row["body"] for row in itertools.islice(csv.DictReader(file), 24)]
    folder = data.parent / "models" / "minilm-goemotions"
    scorer = load_scorer(str(folder), device="cpu", max_tokens=128)
    rows = scorer.score(texts)
    assert np.abs(rows - reference(folder, texts, 128)).max() < 1e-5
    assert np.abs(np.concatenate([scorer.score([text]) for text in texts]) - rows).max() < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_runs_unpadded(family: str, checkpoint: Callable[[str], Path]) -> None:
    """The families that were promised the fast path get it by default."""
    assert scorer_of(checkpoint(family)).info.backend == "bert"


def test_softmax_where_one_label_is_right(tmp_path: Path) -> None:
    """A single-label checkpoint gives rows that sum to 1, in the order of id2label."""
    folder = write_checkpoint(tmp_path, "distilbert", problem_type="single_label_classification")
    scorer = scorer_of(folder)
    got = scorer.score(TEXTS)
    assert scorer.info.activation == "softmax"
    assert np.abs(got.sum(axis=1) - 1).max() < 1e-5
    assert np.abs(got - reference(folder, TEXTS)).max() < 1e-5
