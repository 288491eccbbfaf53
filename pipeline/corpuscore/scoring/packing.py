"""Packing: which sequences share a forward pass, and how windows of a long document come together again.

Everything is arithmetic on lengths and offsets; nothing here knows of models or threads.
Shape suffixes: D documents, L labels, S sequences, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corpuscore.records import LongDocuments
from corpuscore.scoring.scorer import Tokens

#: A pack holds at the most one sequence for so many tokens of its budget: buffers of fixed size can hold any pack.
TOKENS_A_SEQUENCE = 8

#: Neighbouring windows of a document share this part of their tokens.
OVERLAP = 1 / 8


def pack(lengths_S: npt.NDArray[np.int64], token_budget: int) -> list[npt.NDArray[np.int64]]:
    """Sequences grouped under a token budget, the longest first and like lengths together.

    Args:
        lengths_S: Tokens of each sequence.
        token_budget: Tokens of a pack at the most; a longer sequence gets a pack of its own.

    Returns:
        Indices into lengths_S, each exactly once; the order is stable, so the same lengths give the same packs.
    """
    order = np.argsort(-lengths_S, kind="stable")
    most = max(1, token_budget // TOKENS_A_SEQUENCE)
    packs, start, filled = [], 0, 0
    for place, length in enumerate(lengths_S[order].tolist()):
        if place > start and (filled + length > token_budget or place - start == most):
            packs.append(order[start:place])
            start, filled = place, 0
        filled += length
    return [*packs, order[start:]] if start < len(order) else packs


def take(tokens: Tokens, sequences: npt.NDArray[np.int64]) -> Tokens:
    """The named sequences, in the order of the names."""
    lengths = tokens.lengths[sequences]
    offsets = _ends(lengths)
    shift = np.repeat(tokens.offsets[sequences] - offsets[:-1], lengths)
    return Tokens(tokens.ids[np.arange(offsets[-1]) + shift], offsets)


def concatenate(pieces: Sequence[Tokens]) -> Tokens:
    """Many Tokens end to end."""
    if not pieces:
        return Tokens(np.empty(0, np.int32), _ends(np.empty(0, np.int64)))
    whole = (np.zeros(len(piece.lengths), np.bool_) if piece.truncated is None else piece.truncated for piece in pieces)
    truncated = np.concatenate([*whole]) if any(piece.truncated is not None for piece in pieces) else None
    lengths = np.concatenate([piece.lengths for piece in pieces])
    return Tokens(np.concatenate([piece.ids for piece in pieces]), _ends(lengths), truncated)


def windows(tokens: Tokens, max_tokens: int, special_tokens: tuple[int, int]) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """Cut each sequence into windows of at most max_tokens, each with the special tokens of the whole.

    Neighbours share OVERLAP of their content; the last window reaches back, so that it is as long as the others.

    Returns:
        The windows in document order, and int64 [D + 1] offsets: document d has windows offsets[d]:offsets[d + 1].
    """
    before, after = special_tokens
    room = max_tokens - before - after
    if tokens.lengths.max(initial=0) <= max_tokens:
        return tokens, np.arange(len(tokens.lengths) + 1)
    pieces: list[npt.NDArray[np.int32]] = []
    counts: list[int] = []
    for start, stop in zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
        whole = tokens.ids[start:stop]
        content = whole[before : len(whole) - after]
        starts = window_starts(len(content), room)
        ends = whole[:before], whole[len(whole) - after :]
        pieces += [np.concatenate([ends[0], content[at : at + room], ends[1]]) for at in starts]
        counts.append(len(starts))
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return Tokens(np.concatenate(pieces), _ends(lengths)), _ends(np.asarray(counts, np.int64))


def window_starts(length: int, room: int) -> list[int]:
    """Where windows of `room` tokens begin in a content of `length` tokens; the last ends where the content ends."""
    if length <= room:
        return [0]
    stride = max(1, room - int(room * OVERLAP))
    return [*range(0, length - room, stride), length - room]


def pool(
    rows_WL: npt.NDArray[np.float32], offsets_D: npt.NDArray[np.int64], how: LongDocuments
) -> npt.NDArray[np.float32]:
    """One row a document from the rows of its windows: their mean or maximum. Independent of other documents."""
    if len(offsets_D) - 1 == len(rows_WL):
        return rows_WL
    if how == "max":
        return np.maximum.reduceat(rows_WL, offsets_D[:-1], axis=0)
    sums = np.add.reduceat(rows_WL, offsets_D[:-1], axis=0, dtype=np.float64)
    return (sums / np.diff(offsets_D)[:, None]).astype(np.float32)


def _ends(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
