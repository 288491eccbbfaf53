"""Long texts are cut before they are tokenized, since the tokenizer takes a second for a megabyte of which 512 tokens
are wanted. What is kept holds more tokens than are wanted, and those near the cut are not used.
"""

from __future__ import annotations

import re

from corpuscore.scoring.tokenization.files import Side

#: Characters before a cut among which a blank is sought, so that no word is split.
_WORD_REACH = 256
#: Letters of alphabets with words (each stays one letter when accents are stripped), for `squeezed`.
_LONG_WORD = re.compile(
    "([0-9A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f]{400})[0-9A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f]+"
)
_BLANKS = re.compile(r"[ \t\n\r]{2,}")


def part(text: str, reach: int, side: Side) -> str:
    """About `reach` characters of a longer text, its last ones where the left is cut off, else its first."""
    if len(text) <= reach:
        return text
    return _tail(text, reach) if side == "left" else _head(text, reach)


def squeezed(text: str) -> str:
    """Shorten what WordPiece drops or takes as one unknown token anyway, so that megabytes of it cost nothing."""
    return _LONG_WORD.sub(r"\1", _BLANKS.sub(" ", text))


def _head(text: str, reach: int) -> str:
    """At most the first `reach` characters, up to the last blank near their end."""
    near = text[reach - _WORD_REACH : reach]
    kept = near.rstrip() if near[-1].isspace() else (near.rsplit(None, 1)[0] if len(near.split(None, 1)) > 1 else near)
    return text[: reach - _WORD_REACH] + kept


def _tail(text: str, reach: int) -> str:
    """At least the last `reach` characters, from a blank on.

    Tokenizers read from left to right: one that takes three digits at a time takes others where it begins within a
    number. So a text without a blank is not cut.
    """
    start = len(text) - reach
    return text[max(0, *(text.rfind(blank, 0, start) for blank in " \n\t\r")) :]
