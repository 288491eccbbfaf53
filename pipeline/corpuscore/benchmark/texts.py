"""The texts of a benchmark, read as a run would read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from corpuscore.corpus import DocumentReader, list_objects, split
from corpuscore.errors import CorpusError
from corpuscore.options import ReadOptions

_WHOLE = 2**31


def read_texts(uri: str, text_column: str, limit: int | None) -> list[str]:
    """The first `limit` texts that could be scored, in corpus order; rejects are skipped.

    Raises:
        CorpusError: Nothing to read, or not readable.
    """
    location = str(Path(uri).resolve()) if Path(uri).exists() else uri
    texts = list(itertools.islice(_texts(location, ReadOptions(text_column=text_column)), limit))
    if not texts:
        raise CorpusError(f"{uri} has no texts in column {text_column!r}", next_step="check --text-column")
    return texts


def _texts(uri: str, reading: ReadOptions) -> Iterator[str]:
    for partition in split(list_objects([uri]), _WHOLE, reading):
        with DocumentReader(partition, reading) as documents:
            for batch in documents:
                yield from (text for text in batch.column("text").to_pylist() if text and not text.isspace())
