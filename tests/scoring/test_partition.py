from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from corpuscore.corpus import list_objects, split
from corpuscore.errors import CorpusError, ModelError, ObjectChanged
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.receipts import read_receipt
from corpuscore.records import DOCUMENT_FIELDS, TELLING_TEXTS, Partition, Receipt, Skipped, part_schema, receipt_key
from corpuscore.scoring import describe_scorer
from corpuscore.scoring.partition import ScoringContext, score_partition
from corpuscore.scoring.rows import part_rows
from corpuscore.scoring.scorer import Meter, Scores
from corpuscore.storage import Store
from tests.servers.jobs import write_jsonl
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at

READING = ReadOptions(id_columns=("id",))
WORK_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    """Thirty documents in one object."""
    write_jsonl(tmp_path / "a.jsonl", [f"d{number}" for number in range(30)])
    (found,) = split(list_objects([str(tmp_path / "a.jsonl")]), 1000, READING)
    return found


@pytest.fixture
def context(tmp_path: Path, tiny_model: str) -> ScoringContext:
    """The tiny model, and an empty work location."""
    scoring = ScoreOptions(model=tiny_model, device="cpu")
    return ScoringContext(str(tmp_path / "work"), READING, scoring, describe_scorer(tiny_model, device="cpu"))


def test_a_part_holds_each_document_once_and_in_order(partition: Partition, context: ScoringContext) -> None:
    """The part has the receipt's rows, the planned schema, and probabilities for every document."""
    receipt = score_partition(partition, WORK_ID, context, "here")
    with Store(context.store).open(receipt.part) as file:
        part = pq.read_table(file)
    assert part.schema.equals(part_schema(pa.schema([]), context.scorer.labels))
    assert part.column("document_id").to_pylist() == [f"d{number}" for number in range(30)]
    assert (receipt.rows, receipt.scored, receipt.rejected) == (30, 30, 0)
    assert np.isfinite(part.column("joy").to_numpy()).all()


def _rows(context: ScoringContext, receipt: Receipt) -> list[dict[str, Any]]:
    with Store(context.store).open(receipt.part) as file:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def test_documents_may_be_passed_over(partition: Partition, context: ScoringContext) -> None:
    """They become rejects with the reason that was given, under the same work id; all others keep their scores."""
    undisturbed = _rows(context, score_partition(partition, WORK_ID[::-1], context, "here"))
    skip = {undisturbed[at]["position"]: Skipped("killed", f"SIGSEGV {at}") for at in (0, 17, 29)}
    receipt = score_partition(partition, WORK_ID, context, "here", skip=skip)
    rows = _rows(context, receipt)
    assert (receipt.rows, receipt.scored, receipt.rejected, receipt.reasons) == (30, 27, 3, {"killed": 3})
    for at, (row, before) in enumerate(zip(rows, undisturbed, strict=True)):
        if before["position"] in skip:
            assert (row["status"], row["reason"], row["detail"]) == ("rejected", "killed", f"SIGSEGV {at}")
            assert row["document_id"] == before["document_id"]
            assert row["joy"] is row["token_count"] is None
        else:
            assert row == before


def test_what_is_a_reject_already_keeps_its_reason(context: ScoringContext, tmp_path: Path) -> None:
    """Passing over a document without a text changes nothing."""
    (tmp_path / "e.jsonl").write_bytes(b'{"id": "e", "text": ""}\n{"id": "f", "text": "f"}\n')
    (partition,) = split(list_objects([str(tmp_path / "e.jsonl")]), 1000, READING)
    skip = dict.fromkeys(range(100), Skipped("killed", "SIGKILL"))
    rows = _rows(context, score_partition(partition, WORK_ID, context, "here", skip=skip))
    assert [row["reason"] for row in rows] == ["empty", "killed"]


def test_a_meter_tells_how_far_it_is(partition: Partition, context: ScoringContext) -> None:
    """Who gives one sees the numbers that the receipt has in the end."""
    meter = Meter()
    receipt = score_partition(partition, WORK_ID, context, "here", meter=meter)
    assert (meter.tokens, meter.unique_texts) == (receipt.tokens, receipt.unique_texts)
    assert {step: round(seconds, 3) for step, seconds in meter.busy.items()} == receipt.busy


def test_done_work_is_adopted(partition: Partition, context: ScoringContext) -> None:
    """A second attempt returns the first one's receipt and writes no part."""
    first = score_partition(partition, WORK_ID, context, "here")
    assert score_partition(partition, WORK_ID, context, "there") == first
    assert len(Store(context.store).find("parts/")) == 1


def test_racing_attempts_agree_on_one_receipt(partition: Partition, context: ScoringContext) -> None:
    """Attempts at the same time all end with the receipt that is stored, whose part is there."""
    receipts = []
    threads = [
        threading.Thread(target=lambda: receipts.append(score_partition(partition, WORK_ID, context, "here")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt.part for receipt in receipts}) == 1
    assert Store(context.store).exists(receipts[0].part)


_KILLED = """
import os, pickle, signal, sys
from corpuscore.scoring import partition
from corpuscore.storage import Store
Store.create = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
partition.score_partition(*pickle.load(sys.stdin.buffer))
"""


def test_a_kill_between_part_and_receipt_reruns_cleanly(partition: Partition, context: ScoringContext) -> None:
    """A process that dies with its part written and its receipt not leaves nothing that counts."""
    died = subprocess.run(
        [sys.executable, "-c", _KILLED],
        input=pickle.dumps((partition, WORK_ID, context, "here")),
        capture_output=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    store = Store(context.store)
    assert len(store.find("parts/")) == 1
    assert not store.exists(receipt_key(WORK_ID))
    receipt = score_partition(partition, WORK_ID, context, "here")
    assert receipt.rows == 30
    assert len(store.find("parts/")) == 2


def test_a_receipt_whose_part_is_gone_does_not_count(partition: Partition, context: ScoringContext) -> None:
    """The work is done again, and the receipt names the new part."""
    store = Store(context.store)
    first = score_partition(partition, WORK_ID, context, "here")
    store.delete([first.part])
    second = score_partition(partition, WORK_ID, context, "here")
    assert second.part != first.part
    assert store.exists(second.part)
    assert second.digest == first.digest


def test_a_lost_answer_to_the_receipt_costs_no_part(
    partition: Partition, context: ScoringContext, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the receipt, the client asks again and hears "exists": the part that it names stays."""
    with FaultProxy(s3_server.endpoint) as proxy:
        point_at(proxy.endpoint, monkeypatch)
        rule = proxy.rule("lost", verb="PUT", key="/receipts/", count=1)
        there = replace(context, store=f"{s3_server.make_bucket()}/work")
        receipt = score_partition(partition, WORK_ID, there, "here")
        assert rule.injected == 1
        assert read_receipt(Store(there.store), WORK_ID) == receipt
        assert Store(there.store).exists(receipt.part)


def test_an_object_that_changed_since_the_plan_is_refused(
    partition: Partition, context: ScoringContext, tmp_path: Path
) -> None:
    """Scores of another version are never mixed in."""
    write_jsonl(tmp_path / "a.jsonl", ["other"])
    with pytest.raises(ObjectChanged, match="a.jsonl"):
        score_partition(partition, WORK_ID, context, "here")


def test_an_object_that_is_gone_is_a_clear_error(partition: Partition, context: ScoringContext, tmp_path: Path) -> None:
    """It is named, and no receipt is written."""
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(CorpusError, match="a.jsonl"):
        score_partition(partition, WORK_ID, context, "here")
    assert not Store(context.store).exists(receipt_key(WORK_ID))


def test_a_worker_with_another_model_refuses(partition: Partition, context: ScoringContext) -> None:
    """All workers of a run score with the planned weights."""
    planned = replace(context, scorer=replace(context.scorer, fingerprint="0" * 16))
    with pytest.raises(ModelError, match="0000000000000000"):
        score_partition(partition, WORK_ID, planned, "here")


@pytest.fixture
def replaceable(context: ScoringContext, tmp_path: Path) -> ScoringContext:
    """A model at a path of its own, where another one may come."""
    folder = shutil.copytree(context.scoring.model, tmp_path / "model")
    return _planned(replace(context, scoring=replace(context.scoring, model=str(folder))))


def _planned(context: ScoringContext) -> ScoringContext:
    """The same, planned with what lies at the model's path now."""
    return replace(context, scorer=describe_scorer(context.scoring.model, device="cpu"))


def _replace_model(context: ScoringContext) -> None:
    """Other weights under the same names."""
    weights = Path(context.scoring.model, "model.safetensors")
    tensors = load_file(weights)
    save_file({name: tensor[::-1].copy() for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})


def test_a_worker_follows_a_model_that_was_replaced(partition: Partition, replaceable: ScoringContext) -> None:
    """What was loaded from the path before belongs to another fingerprint; the earlier run still goes on with it."""
    score_partition(partition, WORK_ID, replaceable, "here")
    _replace_model(replaceable)
    after = _planned(replaceable)
    assert after.scorer.fingerprint != replaceable.scorer.fingerprint
    new = score_partition(partition, WORK_ID[::-1], after, "here")
    old = score_partition(partition, "f" * 32, replaceable, "here")
    assert new.digest != old.digest


def test_a_model_that_was_not_planned_is_not_kept(
    partition: Partition, replaceable: ScoringContext, tmp_path: Path
) -> None:
    """Once the planned one is back in its place, the worker scores with it."""
    shutil.copytree(replaceable.scoring.model, tmp_path / "planned")
    _replace_model(replaceable)
    with pytest.raises(ModelError, match=replaceable.scorer.fingerprint):
        score_partition(partition, WORK_ID, replaceable, "here")
    shutil.copytree(tmp_path / "planned", replaceable.scoring.model, dirs_exist_ok=True)
    assert score_partition(partition, WORK_ID, replaceable, "here").scored == 30


def test_a_document_whose_scores_are_no_numbers_is_a_reject() -> None:
    """NaN or infinity in one label is enough; the documents beside it keep their scores."""
    documents = pa.record_batch(
        [["a", "b", "c"], [0, 1, 2], ["x", "y", "z"], [None] * 3, [None] * 3], schema=pa.schema(DOCUMENT_FIELDS)
    )
    scores = Scores(
        np.array([[0.1, 0.2], [np.nan, 0.5], [0.3, np.inf]], np.float32),
        np.array([5, 6, 7], np.int32),
        np.array([False, True, False]),
    )
    rows = part_rows(documents, scores, part_schema(pa.schema([]), ("joy", "calm"))).to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("ok", None),
        ("rejected", "not_finite"),
        ("rejected", "not_finite"),
    ]
    assert [row["joy"] for row in rows] == [pytest.approx(0.1), None, None]


def test_a_receipt_tells_small_parts_apart(partition: Partition, context: ScoringContext, tmp_path: Path) -> None:
    """It names its different texts while they are few, and comes back from JSON as it was."""
    receipt = score_partition(partition, WORK_ID, context, "here")
    assert len(receipt.text_hashes) == receipt.unique_texts < TELLING_TEXTS
    assert read_receipt(Store(context.store), WORK_ID) == receipt
    write_jsonl(tmp_path / "b.jsonl", [f"d{number}" for number in range(TELLING_TEXTS)])
    (large,) = split(list_objects([str(tmp_path / "b.jsonl")]), 1000, READING)
    assert score_partition(large, WORK_ID[::-1], context, "here").text_hashes == ()


def test_rows_of_rejects_stay_at_their_places() -> None:
    """Documents without a text, and those that failed in the model, have a reason and no scores."""
    documents = pa.record_batch(
        [["a", "b", "c", "d"], [0, 1, 2, 3], ["x", None, "y", "z"], [None, "empty", None, None], [None] * 4],
        schema=pa.schema(DOCUMENT_FIELDS),
    )
    scores = Scores(
        np.array([[0.1], [np.nan], [0.3]], np.float32),
        np.array([5, 6, 7], np.int32),
        np.array([False, False, True]),
        failed={1: Skipped("out_of_memory", "out of memory at 6 tokens")},
    )
    rows = part_rows(documents, scores, part_schema(pa.schema([]), ("joy",))).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "empty", "rejected", "truncated"]
    assert [row["reason"] for row in rows] == [None, "empty", "out_of_memory", None]
    assert [row["detail"] for row in rows] == [None, None, "out of memory at 6 tokens", None]
    assert [row["token_count"] for row in rows] == [5, None, None, 7]
    assert [row["joy"] for row in rows] == pytest.approx([np.float32(0.1), None, None, np.float32(0.3)])
