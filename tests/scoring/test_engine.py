"""The engine, around a backend without torch: order, repeats, memory, failures and threads that end."""

from __future__ import annotations

import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.errors import CorpusError, JobError
from corpuscore.records import LongDocuments, Skipped
from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Meter, Tokens
from corpuscore.scoring.texts import REMEMBERED_TEXTS
from tests.scoring.letters import Letters, PipelinedLetters, letter_scores


def engine(
    backend: Letters | None = None, how: LongDocuments = "truncate", max_tokens: int = 32, budget: int = 64
) -> Engine:
    """An engine with a window of 30 letters."""
    return Engine(backend or Letters(), max_tokens=max_tokens, long_documents=how, token_budget=budget)


def engine_threads() -> list[str]:
    """Names of the engine's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("corpuscore-")]


@settings(deadline=None, max_examples=60)
@given(
    batches=st.lists(st.lists(st.text("abcde ", max_size=40), max_size=9), max_size=6),
    budget=st.integers(32, 300),
)
def test_one_scores_for_each_batch_in_order(batches: list[list[str]], budget: int) -> None:
    """Whatever the batches, empty ones too: rows, counts and flags stand where their texts stood."""
    results = list(engine(budget=budget).stream(batches))
    assert len(results) == len(batches)
    for batch, scores in zip(batches, results, strict=True):
        expected = np.array([letter_scores(text[:30]) for text in batch], np.float32).reshape(-1, 2)
        np.testing.assert_array_equal(scores.probabilities_DL, expected)
        assert scores.tokens_D.tolist() == [min(len(text), 30) + 2 for text in batch]
        assert scores.truncated_D.tolist() == [len(text) > 30 for text in batch]
        assert scores.failed == {}


def test_each_distinct_text_runs_once() -> None:
    """Repeats within a batch and across batches are copies."""
    backend, meter = Letters(), Meter()
    texts = [f"text {number % 7}" for number in range(100)]
    results = list(engine(backend).stream([texts[:50], texts[50:], texts[:3]], meter))
    assert backend.texts_seen == sum(backend.packs) == meter.unique_texts == 7
    assert meter.tokens == 7 * len("<text 0>")
    rows = np.concatenate([scores.probabilities_DL for scores in results])
    assert (rows == np.array([letter_scores(text) for text in texts + texts[:3]], np.float32)).all()


def test_the_steps_are_measured() -> None:
    """A stream says how long each step worked, reading included."""
    meter = Meter()

    def slow() -> Iterator[list[str]]:
        for _ in range(3):
            time.sleep(0.02)
            yield ["a", "b"]

    list(engine().stream(slow(), meter))
    assert meter.busy["read"] >= 0.06
    assert set(meter.busy) == {"read", "tokenize", "pack", "forward"}
    assert all(seconds >= 0 for seconds in meter.busy.values())


def test_packs_keep_their_budget() -> None:
    """No pack holds more tokens than its budget, and like lengths go together."""
    seen: list[Tokens] = []

    class Watched(Letters):
        def forward(self, tokens: Tokens) -> np.ndarray:
            seen.append(tokens)
            return super().forward(tokens)

    texts = ["abcde" * (number % 6) + str(number) for number in range(300)]
    engine(Watched(), budget=100).score(texts)
    assert max(len(tokens.ids) for tokens in seen) <= 100
    assert sum(len(tokens.lengths) for tokens in seen) == 300
    assert np.mean([np.ptp(tokens.lengths) for tokens in seen]) < 8


@pytest.mark.parametrize("how", ["mean", "max"])
def test_long_documents_are_scored_in_windows(how: LongDocuments) -> None:
    """A long text gets the mean or maximum over windows that cover all of it; short ones are as ever."""
    text = "".join("aeiou"[number % 5] if number % 3 else "x" for number in range(100))
    starts = [0, 27, 54, 70]
    windows = np.array([letter_scores(text[start : start + 30]) for start in starts])
    expected = windows.mean(axis=0) if how == "mean" else windows.max(axis=0)
    (scores,) = engine(how=how).stream([["short", text, text[:30]]])
    np.testing.assert_allclose(scores.probabilities_DL[1], expected, rtol=1e-6)
    np.testing.assert_allclose(scores.probabilities_DL[[0, 2]], [letter_scores("short"), letter_scores(text[:30])])
    assert scores.tokens_D.tolist() == [7, 102, 32]
    assert not scores.truncated_D.any()


def test_out_of_memory_halves_and_then_isolates() -> None:
    """Packs that are too large are halved; the one text that does not fit alone is named, with a row of NaN."""
    backend = Letters(memory=20)
    texts = ["a" * 30, *(f"number {number}" for number in range(40))]
    (scores,) = engine(backend, budget=200).stream([[*texts, texts[0]]])
    why = Skipped("out_of_memory", "out of memory at 32 tokens")
    assert scores.failed == {0: why, 41: why}
    assert np.isnan(scores.probabilities_DL[[0, 41]]).all()
    np.testing.assert_array_equal(
        scores.probabilities_DL[1:41], np.array([letter_scores(text) for text in texts[1:]], np.float32)
    )


def test_halving_has_the_memory_of_the_pass_that_failed() -> None:
    """Whatever the failed pass had taken by then is free again when its halves run, not held by its error."""
    held: list[weakref.ref[np.ndarray]] = []

    class Greedy(Letters):
        def forward(self, tokens: Tokens) -> np.ndarray:
            assert not any(one() is not None for one in held), "the error of an earlier pass holds its memory"
            activations = np.zeros(1_000)
            held.append(weakref.ref(activations))
            return super().forward(tokens)

    rows = engine(Greedy(memory=20), budget=200).score([f"number {number}" for number in range(40)])
    assert np.isfinite(rows).all()
    assert len(held) > 40


def test_an_accelerator_is_fed_ahead() -> None:
    """A backend that can start a pass without waiting has two under way, and the results keep their places."""
    backend = PipelinedLetters()
    texts = [f"text number {number}" for number in range(200)]
    rows = engine(backend, budget=50).score(texts)
    assert backend.most_under_way == 2
    np.testing.assert_array_equal(rows, np.array([letter_scores(text) for text in texts], np.float32))


class _Full(PipelinedLetters):
    """Refuses to start what does not fit, and forward passes must not disturb what is under way."""

    def submit(self, tokens: Tokens) -> Callable[[], np.ndarray]:
        if len(tokens.ids) > self.memory:
            raise MemoryError
        return super().submit(tokens)


def test_an_accelerator_that_cannot_start_a_pass() -> None:
    """Out of memory when a pass is started is halved as well, while its neighbours go on."""
    backend = _Full()
    backend.memory = 60
    texts = [f"text number {number}" + "!" * (number % 9) for number in range(90)]
    rows = engine(backend, budget=80).score([*texts, "a" * 30])
    np.testing.assert_array_equal(rows[:-1], np.array([letter_scores(text) for text in texts], np.float32))


def test_an_error_of_the_reader_reaches_the_caller() -> None:
    """A corpus that breaks in the middle breaks the stream with its own error."""

    def broken() -> Iterator[list[str]]:
        yield ["fine"]
        raise CorpusError("the object is corrupt")

    with pytest.raises(CorpusError, match="corrupt"):
        list(engine().stream(broken()))
    assert engine_threads() == []


def test_closing_early_ends_everything() -> None:
    """Closing the stream ends all threads and closes the source, which was read only a little ahead."""
    pulled, closed = [], threading.Event()

    def endless() -> Iterator[list[str]]:
        try:
            for number in range(10**9):
                pulled.append(number)
                yield [f"{number} {letter}" for letter in "abcdefgh"]
        finally:
            closed.set()

    stream = engine().stream(endless())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert engine_threads() == []
    assert len(pulled) < 2_000


def test_memory_does_not_grow_with_the_corpus() -> None:
    """After 70,000 distinct texts, 30,000 more take no more memory: what is remembered is bounded."""
    peaks = {}

    def texts() -> Iterator[list[str]]:
        for start in range(0, 100_000, 500):
            yield [str(number) for number in range(start, start + 500)]

    class Quick(Letters):
        def forward(self, tokens: Tokens) -> np.ndarray:
            return np.zeros((len(tokens.lengths), 2), np.float32)

    tracemalloc.start()
    try:
        for place, scores in enumerate(engine(Quick(), budget=4_000).stream(texts())):
            assert len(scores.tokens_D) == 500
            if place in (150, 199):
                peaks[place] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert REMEMBERED_TEXTS < 150 * 500
    assert peaks[199] < 1.1 * peaks[150]


def test_nothing_in_nothing_out() -> None:
    """No batches, an empty batch, an empty list: no scores, no rows, no error."""
    assert list(engine().stream([])) == []
    (scores,) = engine().stream([[]])
    assert scores.probabilities_DL.shape == (0, 2)
    assert engine().score([]).shape == (0, 2)


def test_a_window_must_leave_room_for_text() -> None:
    """Nothing but special tokens is the argument's fault."""
    with pytest.raises(JobError, match="special tokens"):
        engine(max_tokens=2)


@pytest.mark.parametrize("backend", [Letters, PipelinedLetters])
def test_streams_of_one_engine_do_not_mix(backend: type[Letters]) -> None:
    """Threads that score different texts with one engine at the same time get the scores that each would get alone."""
    shared = engine(backend())
    corpora = [[letter * at for at in range(1, 30)] for letter in "abcd"]
    alone = [shared.score(texts) for texts in corpora]
    with ThreadPoolExecutor(len(corpora)) as pool:
        together = list(pool.map(shared.score, corpora))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
