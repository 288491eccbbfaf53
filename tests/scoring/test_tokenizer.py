"""Tokens as the tokenizer's own truncation would give them, however long the text."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from corpuscore.scoring.tokenization import cutting
from corpuscore.scoring.tokenization.files import Side
from corpuscore.scoring.tokenizer import TextTokenizer
from tests.scoring.checkpoints import SAMPLE, bytelevel, unigram, wordpiece

Pair = Callable[[Callable[[], Tokenizer], Side], tuple[TextTokenizer, Tokenizer]]

MAKERS = (wordpiece, bytelevel, unigram)
SIDES: tuple[Side, ...] = ("left", "right")
#: Words, blanks, punctuation, accents, other scripts and long runs, in long texts.
PIECES = st.sampled_from(
    [
        *("storm", "Salt ", "  ", "\n\n\t", "!?", "\u00c9t\u00e9", "\u65e5\u672c\u8a9e", "\u0440\u0435\u043a\u0430"),
        *("x" * 450, "\U0001f600", "e\u0301", "\u200b", "aunt sang ", "[SEP]", "<pad>", "0123456789" * 60, " " * 300),
    ]
)


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Ours, and the library's own truncation, for each kind of tokenizer."""
    made = {}
    for make, side in product(MAKERS, SIDES):
        library = make()
        made[make, side] = TextTokenizer.from_rust(Tokenizer.from_str(library.to_str()), side), library
    return lambda make, side: made[make, side]


@pytest.mark.parametrize("make", MAKERS)
@settings(deadline=None, max_examples=80)
@given(pieces=st.lists(PIECES, max_size=60), max_tokens=st.integers(3, 40), side=st.sampled_from(SIDES))
def test_cut_texts_are_those_of_the_library(
    make: Callable[[], Tokenizer], pair: Pair, pieces: list[str], max_tokens: int, side: Side
) -> None:
    """The same ids as truncation after tokenizing the whole text, and the truth about whether it was cut."""
    text = "".join(pieces)
    mine, library = pair(make, side)
    library.no_truncation()
    whole = len(library.encode(text).ids)
    library.enable_truncation(max_tokens, direction=side)
    tokens = mine.encode([text, "", text], max_tokens)
    first, empty, second = (tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in range(3))
    assert first == second == library.encode(text).ids
    assert empty == library.encode("").ids
    assert tokens.truncated is not None
    assert tokens.truncated.tolist() == [whole > max_tokens, False, whole > max_tokens]


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_limit_nothing_is_cut(make: Callable[[], Tokenizer], pair: Pair) -> None:
    """All tokens of a long text, and no word of truncation."""
    mine, library = pair(make, "left")
    library.no_truncation()
    text = " ".join(SAMPLE * 5)
    tokens = mine.encode([text], None)
    assert tokens.ids.tolist() == library.encode(text).ids
    assert tokens.truncated is None


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "text",
    ["aunt sang " * 2**21, "a" * (20 * 2**20), "x y" + " " * (20 * 2**20) + "z"],
    ids=["words", "one word", "blanks"],
)
def test_twenty_megabytes_cost_no_more_than_a_page(text: str, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words, one endless word, endless blanks: the tokenizer never sees more than a few pages of them."""
    mine, part = TextTokenizer.from_rust(wordpiece(), side), cutting.part
    seen: list[str] = []

    def noted(text: str, reach: int, side: Side) -> str:
        seen.append(part(text, reach, side))
        return seen[-1]

    monkeypatch.setattr(cutting, "part", noted)
    start = time.perf_counter()
    tokens = mine.encode([text], 512)
    assert len(tokens.ids) <= 512
    assert sum(map(len, seen)) < 50_000
    assert time.perf_counter() - start < 20, "not even on a busy machine"


def test_a_vocabulary_without_latin_letters() -> None:
    """Its special tokens are found by its own tokens; where it has none at all, that is said."""
    made = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "\u65e5": 2, "\u672c": 3}, []))
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokens = TextTokenizer.from_rust(made).encode(["\u65e5\u672c", "a"], None)
    assert tokens.ids.tolist() == [0, 2, 3, 1, 0, 1]
    empty = Tokenizer(models.BPE({}, []))
    empty.post_processor = made.post_processor
    with pytest.raises(ValueError, match="no tokens"):
        TextTokenizer.from_rust(empty)
