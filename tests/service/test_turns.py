"""Who goes next, without threads and without a model: passes are taken one after the other."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.scoring.scorer import Tokens
from corpuscore.service.requests import Part, Request
from corpuscore.service.turns import SHARES, Turns

BUDGET = 4096
NOBODY: Any = None


def _request(lengths: list[int]) -> Part:
    """A request with texts of so many tokens."""
    request = Request([f"{number}" for number in range(len(lengths))], 1, 0, 0.0, None, NOBODY)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = Tokens(np.zeros(offsets[-1], np.int32), offsets)
    return Part(request, np.arange(len(lengths)), tokens, np.arange(len(lengths) + 1), 1)


def _pass(turns: Turns) -> dict[Request, int]:
    """The tokens of each request in the next pass."""
    found: dict[Request, int] = {}
    for share in turns.take(0.0):
        found[share.part.request] = found.get(share.part.request, 0) + share.tokens
    return found


def _is_done(part: Part) -> bool:
    return part.taken == len(part.order_S)


@pytest.mark.parametrize("texts", [1, 8, 32])
def test_at_full_load_nobody_waits_much_longer_than_the_others(texts: int) -> None:
    """64 clients, each of whom asks again when it is answered: no request takes many more passes than most do."""
    rng = random.Random(texts)
    turns = Turns(BUDGET)
    clients: dict[Part, int] = {}

    def ask(at: int) -> None:
        part = _request([rng.randint(10, 130) for _ in range(texts)])
        clients[part] = at
        turns.ready(part)

    for _ in range(64):
        ask(0)
    waited: list[int] = []
    for number in range(1, 400):
        assert sum(_pass(turns).values()) > BUDGET * 0.9 or texts == 1
        for part in [part for part in clients if _is_done(part)]:
            waited.append(number - clients.pop(part))
            ask(number)
    longest_open = 400 - min(clients.values())
    usual = np.median(waited)
    assert max(*waited, longest_open) <= 2.5 * usual + 2


def test_a_pass_is_shared_by_halves() -> None:
    """Large ones that have begun get half of it, however many small ones come, and these get the other half."""
    turns = Turns(BUDGET)
    large = [_request([100] * 500) for _ in range(10)]
    for part in large:
        turns.ready(part)
    for _ in range(2):  # all of them have begun
        _pass(turns)
    for _ in range(5):
        for _ in range(100):
            turns.ready(_request([100]))
        found = _pass(turns)
        begun = sum(found.get(part.request, 0) for part in large)
        assert BUDGET / 2 - 100 <= begun <= BUDGET / 2 + BUDGET / SHARES
        assert sum(found.values()) > BUDGET - 100


def test_passes_that_may_begin_share_what_is_ready() -> None:
    """By tokens, and one that has begun has its turn in each; a sequence is not divided, and none is left."""
    turns = Turns(BUDGET)
    large = _request([100] * 12)
    turns.ready(large)
    assert sum(share.tokens for share in turns.take(0.0, passes=3)) == 400
    small = [_request([100]) for _ in range(8)]
    for part in small:
        turns.ready(part)
    first = turns.take(0.0, passes=2)
    assert sum(share.tokens for share in first) == 800
    assert sum(share.tokens for share in first if share.part is large) == 800 // SHARES
    assert sum(share.tokens for share in turns.take(0.0, passes=1)) == 800
    turns.ready(_request([500]))
    assert sum(share.tokens for share in turns.take(0.0, passes=64)) == 500
    assert turns.tokens == turns.sequences == 0


def test_a_half_that_nobody_asks_for_goes_to_the_others() -> None:
    """A pass has no room left while anything waits."""
    turns = Turns(BUDGET)
    turns.ready(_request([100] * 500))
    assert sum(_pass(turns).values()) > BUDGET - 100
    small = _request([100])
    turns.ready(small)
    found = _pass(turns)
    assert found[small.request] == 100
    assert sum(found.values()) > BUDGET - 100


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(1, 512), min_size=1, max_size=30), max_size=30), st.integers(512, 5000))
def test_all_is_taken_once_in_passes_that_are_full(requests: list[list[int]], budget: int) -> None:
    """Whatever comes, in the order in which it may: no sequence is left, none is taken twice, no pass is too large."""
    turns = Turns(budget)
    parts = [_request(lengths) for lengths in requests]
    waiting, taken = list(parts), 0
    while waiting or turns.sequences:
        for _ in range(3):
            if waiting:
                turns.ready(waiting.pop())
        left = turns.tokens
        found = _pass(turns)
        taken += sum(found.values())
        assert 0 < sum(found.values()) <= budget
        assert turns.tokens == left - sum(found.values())
    assert taken == sum(map(sum, requests))
    assert all(_is_done(part) for part in parts)
