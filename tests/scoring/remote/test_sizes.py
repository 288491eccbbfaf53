"""What goes into one request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.scoring.remote.sizes import BYTES, TEXTS, Sizes
from tests.servers.inference import CARD

_FREE = replace(CARD, max_tokens=0, max_texts=0, max_bytes=0)


@given(st.lists(st.text(max_size=400), max_size=80), st.integers(1, 600))
def test_each_text_is_in_one_request_within_the_bounds(texts: list[str], tokens: int) -> None:
    """Only a text that is too long by itself goes beyond them, alone."""
    sizes = Sizes(replace(_FREE, max_texts=20), tokens)
    groups = list(sizes.cut(texts))
    assert sorted(at for group in groups for at in group) == list(range(len(texts)))
    for group in groups:
        assert 1 <= len(group) <= 20
        assert len(group) == 1 or sum(sizes.estimate(texts[at]) for at in group) <= tokens


def test_like_lengths_are_together() -> None:
    """A server that pads has little to pad."""
    texts = ["a " * number for number in (90, 1, 80, 2, 85, 3)]
    assert list(Sizes(_FREE, 60).cut(texts)) == [[1, 3, 5, 2], [4], [0]]


def test_bytes_are_counted_as_they_are_sent() -> None:
    """Three bytes a letter, a lone surrogate too; what a server says of its messages holds."""
    sizes = Sizes(replace(_FREE, max_bytes=2**18), 10**9)
    wide = "\u4e16" * 2**14
    assert [len(group) for group in sizes.cut([wide] * 9)] == [3, 3, 3]
    assert [len(group) for group in sizes.cut(["\ud800" * 2**14] * 4)] == [3, 1]
    assert sizes.document_bytes == 2**18 - 2**16


def test_nothing_is_known_of_a_server_that_says_nothing() -> None:
    """Then gRPC's own bound holds, and a document has none of its own."""
    sizes = Sizes(_FREE, 10**9)
    assert sizes.document_bytes == 0
    megabyte = "a" * 2**20
    assert [len(group) for group in sizes.cut([megabyte] * 4)] == [BYTES // 2**20 - 1, 1]
    assert [len(group) for group in sizes.cut([""] * (TEXTS + 1))] == [TEXTS, 1]


def test_estimates_come_near_what_the_service_counts() -> None:
    """Two letters a token there: after some answers, here too; what was cut tells nothing."""
    sizes = Sizes(replace(_FREE, max_tokens=50, long_documents="truncate"))
    text = "ab" * 30
    assert sizes.estimate(text) == 17
    for _ in range(60):
        sizes.learn([text], 30)
    assert 30 <= sizes.estimate(text) <= 32
    assert sizes.estimate(text * 9) == 50
    sizes.learn([text * 9], 50)
    assert 30 <= sizes.estimate(text) <= 32


def test_requests_that_are_too_slow_get_smaller_and_grow_again() -> None:
    """Down to a bound, up to where they began."""
    sizes = Sizes(_FREE, 4000)
    sizes.too_slow()
    assert sizes.tokens == 2000
    for _ in range(20):
        sizes.too_slow()
    assert sizes.tokens == 64
    sizes.answered()
    assert sizes.tokens == 65
    for _ in range(1000):
        sizes.answered()
    assert sizes.tokens == 4000


@pytest.mark.parametrize("texts", [[], [""], ["\ud800"]])
def test_nothing_is_no_request_and_little_is_one(texts: list[str]) -> None:
    """An empty text is asked for as any."""
    assert len(list(Sizes(_FREE).cut(texts))) == len(texts)
