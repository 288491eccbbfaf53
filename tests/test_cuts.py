from __future__ import annotations

import functools
import gzip
import logging
from collections.abc import Callable, Collection, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpuscore.corpus import DocumentReader, list_objects, split
from corpuscore.cuts import Cuts
from corpuscore.manifest import Manifest
from corpuscore.options import ReadOptions
from corpuscore.records import Partition, ScorerInfo, receipt_key
from corpuscore.storage import Store

READING = ReadOptions()
SCORER = ScorerInfo(("joy",), "softmax", "0123456789abcdef", "bert", "fp32", "tiny")
DOCUMENTS = 20
FILLER = "of a bright day " * 40
NAMES = ("a.jsonl", "b.csv", "c.txt", "d.parquet", "e.jsonl.gz")


def _write(folder: Path, name: str, mark: str = "first") -> Path:
    """An object of some format with DOCUMENTS documents."""
    texts = [f"{mark} {name} {number} {FILLER}" for number in range(DOCUMENTS)]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts}), path, row_group_size=2)
        return path
    lines = b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts)
    bodies = {
        ".csv": ("text,n\n" + "".join(f"{text},1\n" for text in texts)).encode(),
        ".txt": "\n\n".join(texts).encode(),
        ".jsonl": lines,
        ".gz": gzip.compress(lines),
    }
    path.write_bytes(bodies[path.suffix])
    return path


def _plan(store: Store, corpus: str, partition_rows: int) -> tuple[Manifest, Cuts]:
    """What the stage does between its listing and its run."""
    cuts = Cuts(store, SCORER.fingerprint, "options", partition_rows)
    cuts.look()
    manifest = Manifest.freeze(
        scorer=SCORER,
        reading=READING,
        max_tokens=128,
        long_documents="mean",
        options_digest="options",
        partitions=cuts.chosen(split(list_objects([corpus]), partition_rows, READING)),
    )
    manifest.save(store)
    cuts.mark(manifest)
    return manifest, cuts


def _pending(store: Store, manifest: Manifest) -> list[str]:
    receipts = store.find("receipts/")
    return [work_id for work_id in manifest.work_ids if receipt_key(work_id) not in receipts]


def _score(store: Store, work_ids: Collection[str]) -> None:
    for work_id in work_ids:
        store.write(receipt_key(work_id), b"{}")


def _marks(store: Store) -> list[str]:
    return [key.rpartition("/")[2].partition("-")[0] for key in store.find("cuts/")]


@functools.cache
def _read(part: Partition) -> list[tuple[str, int]]:
    with DocumentReader(part, READING) as reader:
        return [(part.uri, position) for batch in reader for position in batch.column("position").to_pylist()]


def _documents(partitions: Iterable[Partition]) -> list[tuple[str, int]]:
    """Each document that these partitions hold, by object and position."""
    return [document for part in partitions for document in _read(part)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object of each format."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in NAMES:
        _write(folder, name)
    return folder


_numbers = count()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([2, 3, 7, 10, 10_000]), st.integers(0, 100)), min_size=2, max_size=5))
def test_no_document_is_scored_twice(corpus: Path, tmp_path: Path, plans: list[tuple[int, int]]) -> None:
    """However often a corpus is cut otherwise and however much of it is scored between, each manifest holds each
    document once, and each document is scored once; but for CSV that was scored in part and is cut coarser then."""
    store = Store(f"memory://cuts/{tmp_path.name}/{next(_numbers)}")  # no disk: there are hundreds of plans
    everything = sorted(_documents(split(list_objects([str(corpus)]), 10_000, READING)))
    scored: list[tuple[str, int]] = []
    csv_parts, coarser = 0, False
    for partition_rows, share in [*plans, (plans[0][0], 100)]:
        manifest, _ = _plan(store, str(corpus), partition_rows)
        assert sorted(_documents(manifest)) == everything
        csv_parts, before = sum(part.format == "csv" for part in manifest), csv_parts
        coarser = coarser or csv_parts < before
        todo = _pending(store, manifest)
        begun = set(todo[: len(todo) * share // 100])
        scored += _documents(part for part, name in zip(manifest, manifest.work_ids, strict=True) if name in begun)
        _score(store, begun)

    def counted(documents: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return sorted(document for document in documents if not (coarser and document[0].endswith(".csv")))

    assert counted(scored) == counted(everything)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize("name", NAMES)
def test_an_object_that_was_scored_in_part_keeps_its_cut(
    name: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One receipt is enough; the manifest is the earlier one, and so is what is pending of it."""
    store = Store(f"{request.getfixturevalue('s3')}/{name}" if kind == "bucket" else str(tmp_path / "work"))
    _write(tmp_path / "corpus", name)
    first, _ = _plan(store, str(tmp_path / "corpus"), 7)
    _score(store, first.work_ids[:1])
    again, cuts = _plan(store, str(tmp_path / "corpus"), 5)
    assert again.id == first.id
    assert cuts.kept == (len(first) > 1)
    assert _pending(store, again) == first.work_ids[1:]


def test_what_was_not_scored_is_cut_as_it_is_asked_for(tmp_path: Path) -> None:
    """A plan alone binds nobody, and one object's receipts do not speak for another."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    for name in ("a.jsonl", "b.jsonl"):
        _write(corpus, name)
    first, _ = _plan(store, str(corpus), 7)
    _score(store, first.work_ids[-1:])
    second, cuts = _plan(store, str(corpus), 10)
    assert cuts.kept == 1
    lengths = [sum(part.uri.endswith(name) for part in second) for name in ("a.jsonl", "b.jsonl")]
    assert lengths == [2, 3]


def test_an_object_that_has_changed_takes_the_new_cut(tmp_path: Path) -> None:
    """Its receipts are those of another version."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    _write(corpus, "a.jsonl")
    first, _ = _plan(store, str(corpus), 7)
    _score(store, first.work_ids)
    _write(corpus, "a.jsonl", "second")
    second, cuts = _plan(store, str(corpus), 10)
    assert (cuts.kept, len(first), len(second)) == (0, 3, 2)


def test_csv_that_cannot_be_read_in_one_cut_takes_a_coarser_one(tmp_path: Path) -> None:
    """A range that ends inside quotes fails for ever; the way out is the one that its error names. A finer cut, or one
    of what is scored, is no way out."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    _write(corpus, "a.csv")
    first, _ = _plan(store, str(corpus), 7)
    _score(store, first.work_ids[1:])
    assert len(_plan(store, str(corpus), 3)[0]) == len(first) == 3
    assert len(_plan(store, str(corpus), 10)[0]) == 2
    _score(store, first.work_ids)
    assert len(_plan(store, str(corpus), 10)[0]) == 3


def test_the_same_rows_a_partition_cost_one_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was cut otherwise, no manifest and no receipt is looked at, however many plans there were."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    for number in range(3):
        _write(corpus, f"{number}.jsonl")
        manifest, _ = _plan(store, str(corpus), 7)
        _score(store, manifest.work_ids)
    assert _marks(store) == ["7"] * 3
    listed: list[str] = []

    def noted(action: Callable[[Store, str], Any]) -> Callable[[Store, str], Any]:
        def call(self: Store, key: str) -> Any:
            listed.append(key)
            return action(self, key)

        return call

    monkeypatch.setattr(Store, "find", noted(Store.find))
    monkeypatch.setattr(Store, "read", noted(Store.read))
    _plan(store, str(corpus), 7)
    assert len(listed) == 1


def test_cuts_of_two_plans_are_not_joined(tmp_path: Path) -> None:
    """Where one plan ends with the object that the next begins with, each keeps a cut of its own."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    _write(corpus, "only.jsonl")
    _plan(store, str(corpus), 3)
    _score(store, _plan(store, str(corpus), 7)[0].work_ids[:1])
    third, _ = _plan(store, str(corpus), 10)
    assert _documents(third) == _documents(split(list_objects([str(corpus)]), 10_000, READING))


@pytest.mark.parametrize("rows", [3, 10_000])
def test_a_manifest_that_holds_documents_twice_is_not_taken_over(rows: int, tmp_path: Path) -> None:
    """One could be planned once; what was scored of it is scored again, in a cut that holds all once."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    _write(corpus, "only.jsonl")
    parts = list(split(list_objects([str(corpus)]), rows, READING))
    doubled = Manifest.freeze(
        scorer=SCORER, reading=READING, max_tokens=128, long_documents="mean", options_digest="options",
        partitions=[*parts, *parts],
    )  # fmt: skip
    doubled.save(store)
    Cuts(store, SCORER.fingerprint, "options", rows).mark(doubled)
    _score(store, doubled.work_ids)
    again, _ = _plan(store, str(corpus), 7)
    assert _documents(again) == _documents(split(list_objects([str(corpus)]), 10_000, READING))


def test_marks_do_not_pile_up(tmp_path: Path) -> None:
    """A manifest that says all that earlier ones say takes their place; one of another corpus stays."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    other, _ = _plan(store, str(_write(tmp_path / "other", "z.jsonl")), 7)
    _score(store, other.work_ids)
    for number in range(4):
        _write(corpus, f"{number}.jsonl")
        manifest, _ = _plan(store, str(corpus), 7)
        _score(store, manifest.work_ids)
    grown, cuts = _plan(store, str(corpus), 10)
    assert (grown.id, cuts.kept) == (manifest.id, 4)
    assert sorted(_marks(store)) == ["7", "kept"]
    assert _plan(store, str(tmp_path / "other"), 10)[0].id == other.id
    back, cuts = _plan(store, str(corpus), 7)
    assert (back.id, cuts.kept) == (manifest.id, 0)


@pytest.mark.parametrize("damage", ["damaged", "gone"])
def test_an_earlier_manifest_that_cannot_be_read_is_passed_over(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The plan goes on with its own cut, and says what it does not know."""
    store, corpus = Store(str(tmp_path / "work")), tmp_path / "corpus"
    _write(corpus, "a.jsonl")
    first, _ = _plan(store, str(corpus), 7)
    _score(store, first.work_ids)
    key = f"manifests/{first.id}.parquet"
    store.write(key, b"no manifest") if damage == "damaged" else store.delete([key])
    with caplog.at_level(logging.WARNING):
        second, cuts = _plan(store, str(corpus), 10)
    assert (len(second), cuts.kept) == (2, 0)
    assert "cuts of an earlier plan are not known" in caplog.text
    assert first.id in caplog.text
