"""Which documents go into which step: drawn anew each epoch, from the seed and the epoch alone.

Shape suffixes: D documents.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def draw_batches(lengths_D: Rows, batch_tokens: int, *, padded: bool, seed: int, epoch: int) -> list[Rows]:
    """All documents once, in batches of about `batch_tokens` tokens.

    Documents of about the same length go together: attention then works on few lengths, and where a model pads, it
    pads little. Order of the batches, and who meets whom, is random.

    Args:
        lengths_D: Tokens a document.
        batch_tokens: Tokens of a batch; a longer document goes alone.
        padded: Whether padding counts as tokens.
        seed, epoch: What the draw depends on.

    Returns:
        Document numbers of each batch.
    """
    chance = np.random.default_rng((seed, epoch))
    blurred_D = lengths_D * chance.uniform(0.75, 1.25, len(lengths_D))
    batches = pack(lengths_D, np.argsort(blurred_D, kind="stable"), batch_tokens, padded=padded)
    return [batches[number] for number in chance.permutation(len(batches))]


def pack(lengths_D: Rows, order_D: Rows, batch_tokens: int, *, padded: bool) -> list[Rows]:
    """Cut an order of documents into batches within a budget of tokens."""
    batches: list[Rows] = []
    start, longest, total = 0, 0, 0
    for end, document in enumerate(order_D.tolist()):
        length = int(lengths_D[document])
        longest, total = max(longest, length), total + length
        if end > start and (longest * (end - start + 1) if padded else total) > batch_tokens:
            batches.append(order_D[start:end])
            start, longest, total = end, length, length
    if start < len(order_D):
        batches.append(order_D[start:])
    return batches
