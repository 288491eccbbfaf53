"""Fixed shapes: any pack fits one, few serve many, and a filled buffer says what the pack says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.scoring.bert.shapes import Shape, fill, shape_for, token_budget
from corpuscore.scoring.packing import pack, take
from corpuscore.scoring.scorer import Tokens


def numbered(lengths: list[int]) -> Tokens:
    """Sequences of those lengths whose ids count on."""
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return Tokens(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300))
def test_a_pack_fits_its_shape(lengths: list[int]) -> None:
    """Tokens, places and the longest document are no less than the pack's, and tokens at most twice as many."""
    tokens = numbered(lengths)
    shape = shape_for(tokens)
    assert shape.tokens >= len(tokens.ids)
    assert shape.documents >= len(lengths)
    assert shape.longest >= max(lengths)
    assert shape.tokens <= max(512, 2 * len(tokens.ids))


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300))
def test_a_filled_buffer_holds_the_pack_and_empty_documents(lengths: list[int]) -> None:
    """Ids and positions first, zeros behind; offsets as they are, then documents of no length; nothing of before."""
    tokens = numbered(lengths)
    shape, positions = shape_for(tokens), np.arange(len(tokens.ids)) % 7
    buffer = np.full(shape.size + 3, -1, np.int32)
    fill(buffer, tokens, positions, shape)
    used = len(tokens.ids)
    assert buffer[:used].tolist() == tokens.ids.tolist()
    assert buffer[shape.tokens : shape.tokens + used].tolist() == positions.tolist()
    assert not buffer[used : shape.tokens].any()
    offsets = buffer[2 * shape.tokens : shape.size]
    assert offsets[: len(lengths) + 1].tolist() == tokens.offsets.tolist()
    assert (offsets[len(lengths) :] == used).all()
    assert buffer[shape.size :].tolist() == [-1] * 3


def test_a_corpus_needs_few_shapes() -> None:
    """100,000 texts of the usual spread of lengths, packed as the engine does it, run in a dozen shapes."""
    lengths = np.clip(np.random.default_rng(3).lognormal(3.3, 1.1, 100_000), 3, 512).astype(np.int64)
    shapes: list[Shape] = []
    for start in range(0, len(lengths), 8_192):
        tokens = numbered(lengths[start : start + 8_192].tolist())
        shapes += [shape_for(take(tokens, group)) for group in pack(tokens.lengths, 32_768)]
    assert len(set(shapes)) < 40 < len(shapes)
    full = [shape for shape in shapes if shape.tokens == 32_768]
    assert len(full) > 0.8 * len(shapes)


def test_the_budget_follows_the_memory() -> None:
    """More free memory gives more tokens, up to where more is no faster; half the bytes a number, twice as many."""
    config = SimpleNamespace(hidden_size=768, intermediate_size=3072)
    budgets = [token_budget(config, 2, gigabytes * 2**30) for gigabytes in (0, 1, 2, 80)]
    assert budgets == sorted(budgets)
    assert budgets[0] == 512
    assert budgets[-1] == 32_768
    assert token_budget(config, 4, 2**30) < token_budget(config, 2, 2**30)
