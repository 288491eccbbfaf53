"""The texts of a stream: each distinct one is known once, however many documents have it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from corpuscore.records import Skipped
from corpuscore.scoring.scorer import Scores, Tokens

#: Distinct texts whose scores are remembered within a stream; older ones would be scored again, with the same result.
REMEMBERED_TEXTS = 65_536
#: Texts that are tokenized in one call.
TOKENIZE_TEXTS = 1_024


class Text:
    """One distinct text of the stream, shared by all documents that have it."""

    __slots__ = ("failed", "row_L", "tokens", "truncated")

    def __init__(self) -> None:
        self.row_L: npt.NDArray[np.float32] | None = None
        self.tokens = 0
        self.truncated = False
        self.failed: Skipped | None = None


def slices(batches: Iterable[Sequence[str]]) -> Iterator[tuple[list[Text], list[str], list[Text] | None]]:
    """Records and texts that are new, slice by slice; with a batch's last slice, the records of all its texts."""
    known: dict[bytes, Text] = {}
    for batch in batches:
        members: list[Text] = []
        for start in range(0, max(1, len(batch)), TOKENIZE_TEXTS):
            texts, fresh = _distinct(batch[start : start + TOKENIZE_TEXTS], known, members)
            yield texts, fresh, members if start + TOKENIZE_TEXTS >= len(batch) else None


def _distinct(batch: Sequence[str], known: dict[bytes, Text], members: list[Text]) -> tuple[list[Text], list[str]]:
    """Append every text's record to members; return the records and texts that were not known.

    Texts are known by a hash of 128 bits, so that long ones need not be kept.
    """
    texts: list[Text] = []
    fresh: list[str] = []
    for text in batch:
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        record = known.get(key)
        if record is None:
            record = known[key] = Text()
            texts.append(record)
            fresh.append(text)
            if len(known) > REMEMBERED_TEXTS:
                del known[next(iter(known))]
        members.append(record)
    return texts, fresh


def note(texts: list[Text], tokens: Tokens) -> None:
    """Write down what was used of each text."""
    lengths = tokens.lengths.tolist()
    cut = tokens.truncated.tolist() if tokens.truncated is not None else [False] * len(lengths)
    for record, length, truncated in zip(texts, lengths, cut, strict=True):
        record.tokens = length
        record.truncated = truncated


def scores_of(batch: Sequence[Text], labels: int) -> Scores:
    """The scores of a batch's texts, once all of them have a row or a reason to have none."""
    rows_DL = np.full((len(batch), labels), np.nan, np.float32)
    for index, text in enumerate(batch):
        if text.row_L is not None:
            rows_DL[index] = text.row_L
    return Scores(
        probabilities_DL=rows_DL,
        tokens_D=np.fromiter((text.tokens for text in batch), np.int32, len(batch)),
        truncated_D=np.fromiter((text.truncated for text in batch), np.bool_, len(batch)),
        failed={index: text.failed for index, text in enumerate(batch) if text.failed},
    )
