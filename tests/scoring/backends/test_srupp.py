from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from corpuscore.scoring import load_scorer
from corpuscore.scoring.kernels import build
from corpuscore.scoring.srupp.classifier import SRUppClassifier
from corpuscore.scoring.srupp.config import ProblemType, SRUppConfig
from corpuscore.scoring.srupp.folder import load_network, save_classifier
from tests.scoring.bare_machine import score_on_bare_machine
from tests.scoring.checkpoints import LABELS, SAMPLE, wordpiece

TEXTS = ["", "soup", *SAMPLE[:5], " ".join(SAMPLE), "salt \t\n storm \u00e9t\u00e9 \u65e5\u672c \U0001f600"]


def folder(path: Path, problem_type: ProblemType = "multi_label_classification") -> Path:
    """A small model with random weights."""
    torch.manual_seed(5)
    tokenizer = wordpiece()
    config = SRUppConfig(
        vocab_size=tokenizer.get_vocab_size(),
        labels=LABELS,
        problem_type=problem_type,
        embedding_size=16,
        hidden_size=24,
        proj_size=12,
    )
    model = SRUppClassifier(config)
    for cell in model.encoder.rnn_lst:
        cell.transform_module.alpha.data.fill_(0.7)  # type: ignore[union-attr, operator]
    model.head.weight.data *= 4
    save_classifier(path, model, tokenizer)
    return path


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification"])
def test_scores_are_those_of_the_network(tmp_path: Path, problem_type: ProblemType) -> None:
    """What load_scorer gives is the network's own logits through its activation."""
    scorer = load_scorer(str(folder(tmp_path, problem_type)), device="cpu", max_tokens=2048)
    got = scorer.score(TEXTS)
    model, tokenizer = load_network(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert scorer.info.backend == "srupp"
    assert scorer.info.labels == LABELS
    for text, row in zip(TEXTS, got, strict=True):
        ids = torch.tensor(tokenizer.encode(text).ids)
        logits = model(ids, torch.tensor([0, len(ids)]))[0]
        expected = logits.sigmoid() if problem_type.startswith("multi") else logits.softmax(-1)
        assert np.abs(expected.detach().numpy() - row).max() < 1e-5
    assert np.ptp(got, axis=0).max() > 0.05, "the model says the same of every text, and proves nothing"


@pytest.mark.usefixtures("kernel_level")
def test_scores_do_not_depend_on_neighbours(tmp_path: Path) -> None:
    """Alone, in a batch and in the reverse order: the same bits."""
    if reason := build.why_missing("sru.cpp"):
        pytest.skip(reason)
    scorer = load_scorer(str(folder(tmp_path)), device="cpu")
    together = scorer.score(TEXTS)
    assert np.array_equal(scorer.score(TEXTS[::-1])[::-1], together)
    for text, row in zip(TEXTS, together, strict=True):
        assert np.array_equal(scorer.score([text])[0], row)


def test_without_a_compiler_torch_scores_the_same(tmp_path: Path) -> None:
    """The announced fallback and the native classifier agree."""
    fast = load_scorer(str(folder(tmp_path / "model")), device="cpu").score(TEXTS)
    slow, said = score_on_bare_machine(tmp_path / "model", TEXTS, tmp_path / "cache", device="cpu")
    assert "no C++ compiler" in said
    assert np.abs(fast - slow).max() < 1e-5


def test_there_is_no_longest_text(tmp_path: Path) -> None:
    """Thousands of tokens are scored whole; no position runs out."""
    scorer = load_scorer(str(folder(tmp_path)), device="cpu", max_tokens=20_000)
    (scores,) = scorer.stream([["storm soup " * 1000]])
    assert scores.tokens_D[0] > 2000
    assert not scores.truncated_D[0]
    assert np.isfinite(scores.probabilities_DL).all()
