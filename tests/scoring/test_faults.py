"""What is raised for a pack: followed down to the documents that it is raised for, or to the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import numpy as np
import pytest

from corpuscore.errors import BrokenProcess, CorpuscoreError, ModelError, unforeseen
from corpuscore.records import Skipped
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.faults import LONE_FAILURES, words_of
from corpuscore.scoring.scorer import Tokens
from tests.scoring.letters import Letters, PipelinedLetters, letter_scores


class PanicException(BaseException):
    """What a panic of the Rust tokenizer is in Python: no Exception."""


class Picky(Letters):
    """Raises for texts with a letter: Q when it is tokenized, P in a panic, X in the forward pass."""

    passes = 0

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """As Letters, but for those."""
        if any("Q" in text for text in texts):
            raise TypeError("TextEncodeInput must be Union[TextInputSequence, ...]")
        if any("P" in text for text in texts):
            raise PanicException("called `Option::unwrap()` on a `None` value")
        return super().tokenize(texts, max_tokens)

    def forward(self, tokens: Tokens) -> np.ndarray:
        """As Letters, but for those."""
        self.passes += 1
        if (tokens.ids == ord("X")).any():
            raise ValueError(f"All examples must have the same number\n of <eos> tokens, {object()}")
        return super().forward(tokens)


class QueuedPicky(PipelinedLetters, Picky):
    """The same where passes are queued, and half of them fail when they are queued."""

    def submit(self, tokens: Tokens) -> Callable[[], np.ndarray]:
        """As PipelinedLetters, but for those."""
        if (tokens.ids == ord("X")).sum() == 1:
            raise IndexError("index out of range in self")
        return super().submit(tokens)


def engine(backend: Letters) -> Engine:
    """An engine with a window of 30 letters, and packs of a few texts."""
    return Engine(backend, max_tokens=32, long_documents="truncate", token_budget=100)


@pytest.mark.parametrize("backend", [Picky, QueuedPicky])
def test_one_document_costs_itself_alone(backend: type[Letters]) -> None:
    """Whatever is raised for it, when it is tokenized or scored: it is a reject, and all others have their scores."""
    texts = [f"number {number}" * (1 + number % 4) for number in range(300)]
    bad = {7: "Q", 8: "X", 120: "P", 121: "XX", 299: "X and Q"}
    texts = [bad.get(number, text) for number, text in enumerate(texts)]
    (scores,) = engine(backend()).stream([texts])
    assert sorted(scores.failed) == sorted(bad)
    words = "ValueError: All examples must have the same number of <eos> tokens, <object object at 0x...>"
    assert scores.failed[8] == scores.failed[121] == Skipped("failed", words)
    assert scores.failed[7] == scores.failed[299]
    assert scores.failed[7].detail.startswith("TypeError: TextEncodeInput must be")
    assert scores.failed[120].detail.startswith("PanicException: called `Option")
    good = [number for number in range(300) if number not in bad]
    expected = np.array([letter_scores(texts[number][:30]) for number in good], np.float32)
    np.testing.assert_array_equal(scores.probabilities_DL[good], expected)
    assert scores.truncated_D[good].tolist() == [len(texts[number]) > 30 for number in good]
    assert np.isnan(scores.probabilities_DL[sorted(bad)]).all()


def test_a_text_that_failed_is_not_tried_again() -> None:
    """Its copies have its reason, in later batches too."""
    backend = Picky()
    first, second = engine(backend).stream([["a", "Q", "X"], ["X", "b", "Q"]])
    assert (sorted(first.failed), sorted(second.failed)) == ([1, 2], [0, 2])
    assert first.failed[2] == second.failed[0]


def test_long_documents_fail_as_a_whole() -> None:
    """One window that fails makes its document a reject, and no other."""
    (scores,) = Engine(Picky(), max_tokens=12, long_documents="mean", token_budget=60).stream(
        [["a" * 50, "b" * 40 + "X" + "b" * 40, "c"]]
    )
    assert sorted(scores.failed) == [1]


class Broken(Letters):
    """Fails for every text."""

    calls = 0

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def tokenize(self, texts: Sequence[str], max_tokens: int | None) -> Tokens:
        """Fails, or does not."""
        if self.step == "tokenize":
            self._fails()
        return super().tokenize(texts, max_tokens)

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Fails, or does not."""
        if self.step == "forward":
            self._fails()
        return super().forward(tokens)

    def _fails(self) -> NoReturn:
        self.calls += 1
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied in {self.step}")


@pytest.mark.parametrize(("step", "said"), [("tokenize", "The tokenizer"), ("forward", "The forward pass")])
def test_a_broken_model_ends_the_stream_soon(step: str, said: str) -> None:
    """A fault that all documents share is one message after a few passes, and no thread stays behind."""
    backend = Broken(step)
    endless: Iterator[list[str]] = ([f"text {number} {at}" for at in range(400)] for number in range(10**9))
    with pytest.raises(ModelError, match=rf"{said} of letters fails for every text.*RuntimeError: .* in {step}"):
        list(engine(backend).stream(endless))
    assert backend.calls < 4 * LONE_FAILURES + 40
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("corpuscore-")]


def test_many_bad_documents_are_not_a_broken_model() -> None:
    """While other texts can be scored, any number in a row may fail by themselves."""
    backend = Picky()
    texts = [f"X{number}" for number in range(1_000)]
    (scores,) = engine(backend).stream([[*texts, "fine"]])
    assert len(scores.failed) == 1_000
    assert np.isfinite(scores.probabilities_DL[-1]).all()
    assert backend.passes < 2_500


@pytest.mark.parametrize("error", [ModelError("no such head"), BrokenProcess("CUDA failed for good")])
def test_errors_of_ours_concern_all(error: CorpuscoreError) -> None:
    """What is raised on purpose is nobody's fault, and is not tried again."""

    class Ours(Letters):
        calls = 0

        def forward(self, tokens: Tokens) -> np.ndarray:
            self.calls += 1
            raise error

    backend = Ours()
    with pytest.raises(type(error), match=error.value):
        engine(backend).score(["a", "b"])
    assert backend.calls == 1


def test_words_are_the_same_in_every_run() -> None:
    """One line, of bounded length, without addresses."""
    assert words_of(KeyError()) == "KeyError"
    assert words_of(ValueError(f"a\n  b {object()}")) == "ValueError: a b <object object at 0x...>"
    assert len(words_of(ValueError("a" * 5_000))) < 400


def test_what_nobody_foresaw_says_where() -> None:
    """Type, words and place of somebody else's error are in ours."""
    try:
        np.zeros(2).reshape(3)
    except ValueError as error:
        ours = unforeseen(ModelError, "Loading it", error)
    assert isinstance(ours, ModelError)
    assert str(ours).startswith("Loading it failed at test_faults.py:")
    assert "(ValueError: cannot reshape array" in str(ours)
