"""A tiny random teacher, a few labelled texts, and a small corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.scoring.checkpoints import LABELS, SAMPLE, write_checkpoint

#: The tiny teacher's positions.
MAX_TOKENS = 48
#: A student that trains in a second.
SHAPE: dict[str, Any] = {"vocabulary": 200, "embedding": 8, "hidden": 8, "projection": 4}
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_tokens": 256, "save_every": 3, "warmup": 2}

WORDS = " ".join(SAMPLE[:5]).split()


def texts(count: int) -> list[str]:
    """Different sentences of the words that the tiny tokenizers know."""
    picked = ([WORDS[(7 * n + 3 * k + k * k) % len(WORDS)] for k in range(4 + n % 9)] for n in range(count))
    return [f"{' '.join(words)} {n}" for n, words in enumerate(picked)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Steps of microseconds are slower on many threads than on one; whatever a test before has set, here it is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random BERT classifier with five labels."""
    return str(write_checkpoint(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eighty labelled texts, tab-separated."""
    path = tmp_path_factory.mktemp("labelled") / "gold.tsv"
    rows = [f"{text}\t{n % len(LABELS)}{',4' if n % 7 == 3 else ''}\tid{n}\n" for n, text in enumerate(texts(80))]
    path.write_text("".join(rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Thirty unlabelled texts in Parquet."""
    path = tmp_path_factory.mktemp("corpus") / "texts.parquet"
    pq.write_table(pa.table({"body": texts(110)[80:]}), path)
    return f"{path}#body"


@pytest.fixture(scope="session")
def scored(teacher: str, labelled: str, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, sampled and scored; copy it before you train in it."""
    from corpuscore.training.stages import sample_corpus, teacher_scores

    folder = tmp_path_factory.mktemp("scored")
    sample_corpus(str(folder), teacher, [corpus], labelled, held_out=0.2)
    teacher_scores(str(folder), teacher, "cpu", MAX_TOKENS)
    return folder
