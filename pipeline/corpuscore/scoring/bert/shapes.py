"""Fixed shapes for a stream of packs of ever changing lengths, so that a captured program serves many of them.

A pack goes into one flat int32 buffer: ids [T], positions [T], offsets [S + 1]. T, S and the longest document are
rounded up to a few values; what is not filled are documents of length 0 behind the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpuscore.scoring.accelerator import TOKEN_STEP, fitting_tokens
from corpuscore.scoring.scorer import Tokens
from corpuscore.scoring.weights.transformers_model import bytes_a_token

_SMALLEST_TOKENS = 512
_SMALLEST_LONGEST = 64
#: Tokens for each place of a document, most to least; packs are sorted by length, so that one of these fits well.
_TOKENS_A_DOCUMENT = (128, 32, 8)
#: Above this, larger packs are no faster.
_MOST_TOKENS = 32_768


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What a captured program is for.

    Attributes:
        tokens: T.
        documents: S.
        longest: No document of the pack is longer.
    """

    tokens: int
    documents: int
    longest: int

    @property
    def size(self) -> int:
        """Numbers in the flat buffer."""
        return 2 * self.tokens + self.documents + 1


def shape_for(tokens: Tokens) -> Shape:
    """The smallest of the fixed shapes that holds the pack."""
    count = len(tokens.lengths)
    total = _round_tokens(len(tokens.ids))
    places = next((total // each for each in _TOKENS_A_DOCUMENT if total // each >= count), _power_of_two(count))
    longest = max(_SMALLEST_LONGEST, _power_of_two(int(tokens.lengths.max())))
    return Shape(total, places, longest)


def fill(buffer: npt.NDArray[np.int32], tokens: Tokens, positions: npt.NDArray[np.int64], shape: Shape) -> None:
    """Write a pack into a flat buffer of `shape.size` numbers; the unused tail of ids and positions becomes 0."""
    used = len(tokens.ids)
    ids, places, offsets = np.split(buffer[: shape.size], [shape.tokens, 2 * shape.tokens])
    ids[:used], ids[used:] = tokens.ids, 0
    places[:used], places[used:] = positions, 0
    offsets[: len(tokens.offsets)], offsets[len(tokens.offsets) :] = tokens.offsets, used


def token_budget(config: Any, bytes_a_number: int, free_bytes: int) -> int:
    """Tokens of a pack that the free memory holds."""
    return fitting_tokens(bytes_a_token(config, bytes_a_number), free_bytes, _MOST_TOKENS)


def _round_tokens(count: int) -> int:
    """Up to a power of two, beyond TOKEN_STEP to a multiple of it."""
    if count <= TOKEN_STEP:
        return max(_SMALLEST_TOKENS, _power_of_two(count))
    return -(-count // TOKEN_STEP) * TOKEN_STEP


def _power_of_two(count: int) -> int:
    """The smallest that is not below count."""
    return 1 << max(0, count - 1).bit_length()
