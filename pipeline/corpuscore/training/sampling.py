"""Texts to learn from: read from any corpus, cut to the length of a comment, each once, and varied.

Every choice depends on the seed and the text alone, never on the order of objects or on the machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence

from corpuscore.corpus import DocumentReader, list_objects, split
from corpuscore.errors import TrainingError
from corpuscore.options import ReadOptions
from corpuscore.records import Partition

#: Where a text may be cut: after a sentence, or at the end of a line (some corpora write it as two characters).
_BOUNDARY = re.compile(r"(?<=[.!?])\s+|(?:\\n|\n)+")
#: Characters that a piece should reach, one of them by chance: from a short comment to a paragraph.
_PIECE_CHARACTERS = (40, 80, 160, 320)
_LONGEST_PIECE = 640

_DROPPED, _REPLACED, _SPLICED = 0.1, 0.15, 0.3


def read_texts(uris: Sequence[str], partition_rows: int = 10_000) -> Iterator[str]:
    """All texts of a corpus, in corpus order.

    Args:
        uris: Objects, prefixes or patterns; `#name` at the end names the column of the text, otherwise `text`.
        partition_rows: Documents that are read at a time.

    Raises:
        CorpusError: Nothing there, or not readable.
        TrainingError: There is no text in it.
    """
    found = False
    for uri in uris:
        place, _, column = uri.partition("#")
        reading = ReadOptions(text_column=column or "text")
        for partition in split(list_objects([place]), partition_rows, reading):
            for text in _partition_texts(partition, reading):
                found = True
                yield text
    if uris and not found:
        raise TrainingError(
            f"No text in {', '.join(uris)}",
            rule="a student learns from texts",
            next_step="check the URIs and the column",
        )


def _partition_texts(partition: Partition, reading: ReadOptions) -> Iterator[str]:
    with DocumentReader(partition, reading) as batches:
        for batch in batches:
            yield from (text for text in batch.column("text").to_pylist() if text and text.strip())


def cut(text: str, seed: int) -> Iterator[str]:
    """Pieces of a text, of whole sentences where they are not too long."""
    chance = random.Random(f"{seed}:{text}")
    piece, wanted = "", chance.choice(_PIECE_CHARACTERS)
    for sentence in _BOUNDARY.split(text):
        if piece and len(piece) + len(sentence) > wanted:
            yield piece[:_LONGEST_PIECE]
            piece, wanted = "", chance.choice(_PIECE_CHARACTERS)
        piece = f"{piece} {sentence}".strip()
    if piece:
        yield piece[:_LONGEST_PIECE]


def vary(text: str, others: Sequence[str], seed: str) -> str:
    """A new text from an old one: words are dropped or replaced by words of other texts, the end taken from another.

    Source: Tang et al. 2019, arXiv 1903.12136, section 3.3 (masking and n-grams); replacement by unigrams here
    """
    chance = random.Random(f"{seed}:{text}")
    words = []
    for word in text.split():
        lot = chance.random()
        if lot >= _DROPPED:
            words.append(_word(others, chance) if lot < _DROPPED + _REPLACED else word)
    if others and chance.random() < _SPLICED:
        tail = chance.choice(others).split()
        words = words[: chance.randint(0, len(words))] + tail[chance.randint(0, len(tail)) :]
    return " ".join(words)


def _word(others: Sequence[str], chance: random.Random) -> str:
    return chance.choice(chance.choice(others).split() or [""])


def choose_pieces(texts: Iterable[str], most: int, seed: int, known: Iterable[str] = ()) -> list[str]:
    """Pieces of texts, each once and none that is known already; a random `most` of them where there are more."""
    seen = set(known)
    pieces: list[str] = []
    for text in texts:
        for piece in cut(text, seed):
            if piece not in seen:
                seen.add(piece)
                pieces.append(piece)
    random.Random(seed).shuffle(pieces)
    return pieces[:most]


def variations(texts: Sequence[str], copies: int, seed: int) -> list[str]:
    """`copies` varied copies of each text, without those that came out empty or twice."""
    varied = (vary(text, texts, f"{seed}:{copy}") for copy in range(copies) for text in texts)
    return list(dict.fromkeys(text for text in varied if text.strip()))
