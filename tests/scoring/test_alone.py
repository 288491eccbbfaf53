from __future__ import annotations

import pickle
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow.parquet as pq
import pytest

from corpuscore.corpus import list_objects, split
from corpuscore.errors import ClusterUnavailable, CorpusError, ModelError, ObjectChanged
from corpuscore.options import ReadOptions, ScoreOptions
from corpuscore.records import Partition, Receipt, receipt_key
from corpuscore.scoring import describe_scorer
from corpuscore.scoring.alone import Alone, Limits, score_alone
from corpuscore.scoring.partition import ScoringContext, score_partition
from corpuscore.storage import Store
from tests.scoring.poison import spike

READING = ReadOptions(id_columns=("id",))
WORK_ID = "0123456789abcdef0123456789abcdef"
DOCUMENTS = 100
LIMITS = Limits(stall_seconds=3.0, loading_seconds=60.0)


@pytest.fixture
def context(tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> ScoringContext:
    """The tiny model and an empty work location; processes that start are ended by poison."""
    spike(tmp_path / "site", monkeypatch)
    scoring = ScoreOptions(model=tiny_model, device="cpu")
    return ScoringContext(str(tmp_path / "work"), READING, scoring, describe_scorer(tiny_model, device="cpu"))


def _partition(folder: Path, poison: Mapping[int, str], documents: int = DOCUMENTS) -> Partition:
    """An object in which some documents are poison of some kind."""
    texts = [f"poison {poison[at]} {at}" if at in poison else f"the day {at} was bright" for at in range(documents)]
    return _object(folder, texts)


def _object(folder: Path, texts: Sequence[str]) -> Partition:
    path = folder / "a.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"id": f"d{at}", "text": text}) + b"\n" for at, text in enumerate(texts)))
    (found,) = split(list_objects([str(path)]), 100_000, READING)
    return found


def _alone(partition: Partition, context: ScoringContext, limits: Limits = LIMITS) -> Alone:
    return score_alone(partition, WORK_ID, context, "here", limits)


def _rows(context: ScoringContext, receipt: Receipt) -> list[dict[str, Any]]:
    with Store(context.store).open(receipt.part) as file:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def _check(partition: Partition, context: ScoringContext, receipt: Receipt, poison: Mapping[int, str]) -> None:
    """Each document once; poison a reject that says of what; the scores of the others those of an undisturbed run."""
    assert receipt.work_id == WORK_ID
    undisturbed = _rows(context, score_partition(partition, WORK_ID[::-1], context, "here"))
    rows = _rows(context, receipt)
    assert [row["document_id"] for row in rows] == [f"d{at}" for at in range(len(undisturbed))]
    assert {at for at, row in enumerate(rows) if row["status"] == "rejected"} == set(poison)
    for at, row in enumerate(rows):
        if at not in poison:
            assert row == undisturbed[at]
    assert (receipt.rows, receipt.rejected) == (len(rows), len(poison))
    assert len(Store(context.store).find("parts/")) == 2


@pytest.mark.parametrize(
    ("at", "kind", "reason", "detail"),
    [
        (0, "SIGSEGV", "killed", "was ended by SIGSEGV"),
        (57, "SIGKILL", "killed", "was ended by SIGKILL"),
        (DOCUMENTS - 1, "SIGABRT", "killed", "was ended by SIGABRT"),
        (31, "EXIT", "killed", "left with exit status 3"),
        (64, "HANG", "hung", "gave no sign of life for 3 s"),
    ],
)
def test_a_document_that_ends_its_process_costs_itself_alone(
    context: ScoringContext, tmp_path: Path, at: int, kind: str, reason: str, detail: str
) -> None:
    """First, last or in the middle, by a signal, an exit or silence: it is a reject that says so."""
    partition = _partition(tmp_path, {at: kind})
    done = _alone(partition, context)
    _check(partition, context, done.receipt, {at: kind})
    row = _rows(context, done.receipt)[at]
    assert (row["reason"], row["detail"]) == (reason, f"the process that scored it {detail}")
    assert done.receipt.reasons == {reason: 1}
    assert f"'d{at}'" in done.found[0]
    assert done.processes <= 8
    assert _children() == []


def _children() -> list[psutil.Process]:
    """Processes of this one that score alone."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # one that has ended meanwhile
            if "corpuscore.scoring.alone" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_document_that_takes_all_memory_is_found_before_the_worker_dies(
    context: ScoringContext, tmp_path: Path
) -> None:
    """The process is ended beyond the worker's limit, and the reject says what that was."""
    partition = _partition(tmp_path, {40: "MEMORY"})
    done = _alone(partition, context, replace(LIMITS, stall_seconds=60.0, memory_bytes=900 * 2**20))
    _check(partition, context, done.receipt, {40: "MEMORY"})
    detail = _rows(context, done.receipt)[40]["detail"]
    assert re.fullmatch(r"the process that scored it took [\d,]+ MiB; its limit is 900", detail)


def test_an_innocent_partition_costs_one_process(context: ScoringContext, tmp_path: Path) -> None:
    """What died with others and not alone has its receipt at once, without a reject."""
    partition = _partition(tmp_path, {})
    done = _alone(partition, context)
    _check(partition, context, done.receipt, {})
    assert (done.processes, done.found) == (1, ())
    assert _alone(partition, context).receipt == done.receipt


def test_several_documents_are_found_wherever_they_are(context: ScoringContext, tmp_path: Path) -> None:
    """Of any kind, at random places, neighbours among them, in as many processes as are promised."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    places = [*chosen.sample(range(2000), 2), 700, 701]
    poison = {at: chosen.choice(["SIGSEGV", "SIGKILL", "SIGABRT", "EXIT"]) for at in places}
    partition = _partition(tmp_path, poison, 2000)
    done = _alone(partition, context)
    _check(partition, context, done.receipt, poison)
    assert done.processes <= 4 + 4 * len(poison)


def test_copies_of_a_document_are_found_with_it(context: ScoringContext, tmp_path: Path) -> None:
    """The same text has the same end: hundreds of copies, also before it, cost what one costs."""
    texts = ["poison SIGSEGV" if at % 3 else f"the day {at}" for at in range(300)]
    partition = _object(tmp_path, texts)
    done = _alone(partition, context)
    _check(partition, context, done.receipt, {at: "" for at in range(300) if at % 3})
    assert done.processes <= 8
    assert "199 with the same text" in done.found[0]


def test_too_many_documents_end_the_search(
    context: ScoringContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition of nothing else fails after as many as may be found; nothing of it counts."""
    monkeypatch.setattr("corpuscore.scoring.alone.search.MOST_FOUND", 2)
    partition = _partition(tmp_path, dict.fromkeys(range(60), "EXIT"), 60)
    with pytest.raises(CorpusError, match=r"more than 2 documents.*'d0' .*'d1' .*'d2' .*exit status 3"):
        _alone(partition, context)
    assert not Store(context.store).exists(receipt_key(WORK_ID))


def test_documents_that_die_only_together_are_no_rejects(context: ScoringContext, tmp_path: Path) -> None:
    """None of them is to blame: the partition fails, and says what is known."""
    partition = _partition(tmp_path, {10: "TOGETHER"})
    with pytest.raises(CorpusError, match=r"none of its documents does so by itself: it was ended by SIGSEGV.*memory"):
        _alone(partition, context)


def test_an_object_that_ends_its_reader_is_named(context: ScoringContext, tmp_path: Path) -> None:
    """No document can be blamed for what happens before there are any."""
    partition = _partition(tmp_path, {10: "READER"})
    with pytest.raises(CorpusError, match=r"a.jsonl \[0:.*cannot be read.*SIGSEGV .its last lines: a broken page"):
        _alone(partition, context)


@pytest.mark.parametrize(
    ("loading", "error", "message"),
    [("os._exit(7)", ModelError, "exit status 7"), ("time.sleep(600)", ClusterUnavailable, "no sign of life for 4 s")],
)
def test_a_model_that_cannot_be_loaded_is_no_documents_fault(
    context: ScoringContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loading: str,
    error: type[Exception],
    message: str,
) -> None:
    """Two processes die of it, or wait for it too long, before anything is blamed on it."""
    more = f"TextTokenizer.load = lambda *_: {loading}"
    spike(tmp_path / "more", monkeypatch, more)
    with pytest.raises(error, match=f"could not be loaded.*2 times the process .*{message}"):
        _alone(_partition(tmp_path, {}), context, replace(LIMITS, loading_seconds=4.0))


def test_an_error_of_ours_is_the_same_error_here(context: ScoringContext, tmp_path: Path) -> None:
    """It crosses the process boundary with its type and its words."""
    partition = _partition(tmp_path, {})
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(ObjectChanged, match=r"a.jsonl was planned with ETag.*Next: plan again"):
        _alone(partition, context)


def test_an_error_that_nobody_foresaw_is_one_of_ours(
    context: ScoringContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception is no death: it comes as an error that names the partition, and says what was raised where."""
    spike(tmp_path / "more", monkeypatch, "TextTokenizer.special_tokens = property(lambda _: 1 / 0)")
    with pytest.raises(ModelError, match=r"Loading the model .* failed at .*:\d+ \(ZeroDivisionError: "):
        _alone(_partition(tmp_path, {}), context)


def test_a_process_in_which_nothing_goes_well_any_more_has_died(
    context: ScoringContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an assertion on the GPU its process leaves, and the document is found as if it had ended it."""
    broken = """
whole = TextTokenizer.encode
def asserted(self, texts, *more):
    if any("ASSERT" in text for text in texts):
        from corpuscore.errors import BrokenProcess
        raise BrokenProcess("CUDA failed for good")
    return whole(self, texts, *more)
TextTokenizer.encode = asserted
"""
    spike(tmp_path / "more", monkeypatch, broken)
    alone = _alone(_partition(tmp_path, {3: "ASSERT"}), context)
    assert [re.search(r"left with exit status \d", name) is not None for name in alone.found] == [True]
    assert alone.receipt.reasons == {"killed": 1}


_WAITING = """
import pickle, sys
from corpuscore.scoring.alone import score_alone
score_alone(*pickle.load(sys.stdin.buffer))
"""


def test_its_processes_end_with_the_worker(context: ScoringContext, tmp_path: Path) -> None:
    """SIGKILL to the worker while it waits for a document that hangs leaves nothing running."""
    partition = _partition(tmp_path, {3: "HANG"})
    limits = Limits(stall_seconds=600.0, loading_seconds=600.0)
    worker = subprocess.Popen([sys.executable, "-c", _WAITING], stdin=subprocess.PIPE)
    assert worker.stdin
    worker.stdin.write(pickle.dumps((partition, WORK_ID, context, "here", limits)))
    worker.stdin.close()
    while not (children := psutil.Process(worker.pid).children()):
        time.sleep(0.05)
    while sum(children[0].cpu_times()[:2]) < 0.3:  # until it is on its way
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
