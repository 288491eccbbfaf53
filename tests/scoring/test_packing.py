"""Packing, as properties of lengths."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.scoring.packing import TOKENS_A_SEQUENCE, concatenate, pack, pool, take, window_starts, windows
from corpuscore.scoring.scorer import Tokens

LENGTHS = st.lists(st.integers(1, 60), max_size=50)


def numbered(lengths: list[int]) -> Tokens:
    """Sequences of those lengths whose ids count on."""
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return Tokens(np.arange(offsets[-1], dtype=np.int32), offsets)


@given(LENGTHS, st.integers(60, 500))
def test_every_sequence_is_packed_once_within_the_budget(lengths: list[int], budget: int) -> None:
    """Each index once, no pack above its tokens or places, the longest first."""
    packs = pack(np.array(lengths, np.int64), budget)
    assert sorted(index for group in packs for index in group.tolist()) == list(range(len(lengths)))
    for group in packs:
        assert sum(lengths[index] for index in group) <= budget
        assert len(group) <= max(1, budget // TOKENS_A_SEQUENCE)
    flat = [lengths[index] for group in packs for index in group]
    assert flat == sorted(lengths, reverse=True)


@given(LENGTHS, st.data())
def test_taking_gives_the_named_sequences(lengths: list[int], data: st.DataObject) -> None:
    """In the order of the names, token by token."""
    tokens = numbered(lengths)
    names = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=20)) if lengths else []
    taken = take(tokens, np.array(names, np.int64))
    expected = [tokens.ids[tokens.offsets[name] : tokens.offsets[name + 1]].tolist() for name in names]
    assert [piece.tolist() for piece in np.split(taken.ids, taken.offsets[1:-1])][: len(names)] == expected


@given(st.lists(LENGTHS, max_size=4))
def test_pieces_join_end_to_end(many: list[list[int]]) -> None:
    """Lengths and ids of all pieces, one after the other."""
    pieces = [numbered(lengths) for lengths in many]
    whole = concatenate(pieces)
    assert whole.lengths.tolist() == [length for lengths in many for length in lengths]
    assert whole.ids.tolist() == [token for piece in pieces for token in piece.ids.tolist()]


@given(st.integers(0, 400), st.integers(1, 50))
def test_windows_cover_the_whole_text(length: int, room: int) -> None:
    """Every token is in a window, no window is too long, and the last one ends where the text ends."""
    starts = window_starts(length, room)
    covered = {token for start in starts for token in range(start, min(length, start + room))}
    assert covered == set(range(length))
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, length - room)


@given(LENGTHS, st.integers(4, 30))
def test_windows_carry_the_special_tokens(lengths: list[int], max_tokens: int) -> None:
    """Each window begins and ends as the document does, and is at most as long as the model's window."""
    tokens = numbered([length + 2 for length in lengths])
    pieces, offsets = windows(tokens, max_tokens, (1, 1))
    assert pieces.lengths.max(initial=0) <= max_tokens
    for document in range(len(lengths)):
        first, last = tokens.ids[tokens.offsets[document]], tokens.ids[tokens.offsets[document + 1] - 1]
        for window in range(offsets[document], offsets[document + 1]):
            ids = pieces.ids[pieces.offsets[window] : pieces.offsets[window + 1]]
            assert (ids[0], ids[-1]) == (first, last)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=10), st.integers(0, 2**31))
def test_pooling_looks_at_a_documents_own_windows(counts: list[int], seed: int) -> None:
    """Mean and maximum over the windows of each document, and of no other."""
    rows = np.random.default_rng(seed).random((sum(counts), 3), dtype=np.float32)
    offsets = np.cumsum([0, *counts])
    groups = np.split(rows, offsets[1:-1])
    np.testing.assert_allclose(pool(rows, offsets, "mean"), [group.mean(axis=0) for group in groups], rtol=1e-5)
    np.testing.assert_array_equal(pool(rows, offsets, "max"), [group.max(axis=0) for group in groups])
