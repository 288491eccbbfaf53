"""Attempts at the same work on a store that loses answers: the part that counts is never deleted."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpuscore.corpus import list_objects, split
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.receipts import read_receipt
from corpuscore.records import Partition, Receipt, receipt_key
from corpuscore.scoring import describe_scorer
from corpuscore.scoring.partition import ScoringContext, score_partition
from corpuscore.storage import Store
from tests.servers.jobs import write_jsonl
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at

pytestmark = pytest.mark.timeout(600)  # a hundred attempts, each with faults

READING = ReadOptions(id_columns=("id",))


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that this process's AWS environment leads to."""
    with FaultProxy(s3_server.endpoint) as made:
        point_at(made.endpoint, monkeypatch)
        yield made


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    """Five documents."""
    write_jsonl(tmp_path / "a.jsonl", list("abcde"))
    (found,) = split(list_objects([str(tmp_path / "a.jsonl")]), 1000, READING)
    return found


@pytest.fixture
def context(proxy: FaultProxy, s3_server: S3Server, tiny_model: str) -> ScoringContext:
    """The tiny model, and an empty work location behind the proxy."""
    scoring = ScoreOptions(model=tiny_model, device="cpu")
    return ScoringContext(
        f"{s3_server.make_bucket()}/work", READING, scoring, describe_scorer(tiny_model, device="cpu")
    )


def let_go_wrong(proxy: FaultProxy, seed: int) -> None:
    """Lost answers above all, to the receipt's PUT and to deletes; refusals, resets, and answers that come late."""
    proxy.clear()
    proxy.rule("lost", verb="PUT", key="/receipts/", probability=0.5, count=4, seed=seed)
    proxy.rule("unsent", verb="PUT", key="/receipts/", probability=0.2, count=2, seed=seed + 1)
    proxy.rule("409 ConditionalRequestConflict", verb="PUT", key="/receipts/", probability=0.2, count=2, seed=seed + 2)
    proxy.rule("lost", verb=("PUT", "DELETE"), key="/parts/", probability=0.3, count=3, seed=seed + 3)
    proxy.rule("latency", probability=0.2, count=6, lasting=0.3, seed=seed + 4)
    proxy.rule("503", probability=0.1, count=4, seed=seed + 5)
    proxy.rule("reset", verb="GET", probability=0.2, count=2, seed=seed + 6)


@pytest.mark.parametrize("first_seed", [0, 10, 20])
def test_racing_attempts_leave_the_part_that_counts(
    first_seed: int, proxy: FaultProxy, partition: Partition, context: ScoringContext
) -> None:
    """Two or three attempts at once, and sometimes a receipt that is damaged or whose part is gone beforehand."""
    store = Store(context.store)
    for seed in range(first_seed, first_seed + 10):
        chance = random.Random(seed)
        work_id = hashlib.md5(str(seed).encode(), usedforsecurity=False).hexdigest()
        proxy.clear()
        spoil(chance.choice(["nothing", "nothing", "damaged", "gone"]), store, work_id, partition, context)
        let_go_wrong(proxy, seed)
        receipts = race(chance.choice([2, 3]), partition, work_id, context)
        proxy.clear()
        final = read_receipt(store, work_id)
        assert final is not None, seed
        assert hashlib.sha256(store.read(final.part)).hexdigest() == final.digest, seed
        assert {receipt.digest for receipt in receipts} == {final.digest}, seed
    assert proxy.injected["lost", "PUT"] > 10


def spoil(kind: str, store: Store, work_id: str, partition: Partition, context: ScoringContext) -> None:
    """What an attempt may find of an earlier one."""
    if kind == "damaged":
        store.write(receipt_key(work_id), b"{")
    elif kind == "gone":
        store.delete([score_partition(partition, work_id, context, "before").part])


def race(attempts: int, partition: Partition, work_id: str, context: ScoringContext) -> list[Receipt]:
    """The receipts of attempts that start at the same moment."""
    start = threading.Barrier(attempts)

    def attempt(number: int) -> Receipt:
        start.wait()
        return score_partition(partition, work_id, context, f"worker {number}")

    with ThreadPoolExecutor(attempts) as pool:
        return list(pool.map(attempt, range(attempts)))
