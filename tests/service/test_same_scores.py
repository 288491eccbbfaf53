"""The same text has the same score in the batch path and in the service, bit for bit on a CPU."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import numpy as np
import pytest

from corpuscore.scoring import load_scorer
from corpuscore.scoring.engine import Engine
from corpuscore.service.batching import Batcher
from corpuscore.service.counters import Counters
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE, write_checkpoint

WORDS = " ".join(SAMPLE).split()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random BERT."""
    return str(write_checkpoint(tmp_path_factory.mktemp("bert")))


def _texts(count: int) -> list[str]:
    rng = random.Random(5)
    return ["", *(" ".join(rng.choices(WORDS, k=rng.choice([1, 5, 20, 60]))) for _ in range(count - 1))]


async def _through(scorer: Engine, texts: list[str]) -> np.ndarray:
    """The texts as requests of many sizes, all at once and in any order, in passes of few texts."""
    batcher = Batcher(scorer, Counters({"name": "m"}), max_wait_seconds=0.001)
    rng, start = random.Random(7), 0
    pieces: list[tuple[int, list[str]]] = []
    while start < len(texts):
        size = rng.choice([1, 1, 2, 7, 30])
        pieces.append((start, texts[start : start + size]))
        start += size
    rng.shuffle(pieces)
    try:
        answers = await asyncio.gather(*(batcher.infer(piece) for _, piece in pieces))
    finally:
        batcher.close()
    rows = np.empty((len(texts), len(scorer.info.labels)), np.float32)
    for (at, piece), scores in zip(pieces, answers, strict=True):
        assert not scores.failed
        rows[at : at + len(piece)] = scores.probabilities_DL
    return rows


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("bert", {"precision": "fp32", "max_tokens": MAX_POSITIONS, "long_documents": "mean"}),
        ("bert", {"precision": "int8", "max_tokens": MAX_POSITIONS}),
        ("bundled", {"precision": "fp32", "max_tokens": 64, "long_documents": "max"}),
        ("bundled", {"precision": "fp32", "max_tokens": 32}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["precision"],
)
def test_the_same_scores_as_the_batch_path(
    model: str, settings: dict[str, object], request: pytest.FixtureRequest
) -> None:
    """Whatever shares a pass with a text, its probabilities are those of load_scorer(...).score."""
    name = request.getfixturevalue("bert") if model == "bert" else model
    load: Callable[..., object] = load_scorer
    texts = _texts(150)
    batch = load(name, device="cpu", **settings)
    service = load(name, device="cpu", token_budget=300, **settings)
    assert isinstance(batch, Engine)
    assert isinstance(service, Engine)
    alone = batch.score(texts)
    assert np.isfinite(alone).all()
    np.testing.assert_array_equal(asyncio.run(_through(service, texts)), alone)
