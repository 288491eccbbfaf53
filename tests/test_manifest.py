"""A manifest is frozen: the same content has the same id, wherever and however often it is planned."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpuscore.errors import DamagedDocument, StorageError
from corpuscore.manifest import Manifest
from corpuscore.options import ReadOptions
from corpuscore.records import Partition, ScorerInfo
from corpuscore.storage import Store
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, answering, point_at

SCORER = ScorerInfo(("joy", "Ärger"), "softmax", "0123456789abcdef", "bert", "fp32", "bundled", 7)
COUNTS = st.integers(0, 2**62)
PARTITIONS = st.lists(
    st.builds(
        Partition,
        uri=st.text(max_size=20),
        etag=st.text(max_size=8),
        size_bytes=COUNTS,
        format=st.sampled_from(["parquet", "jsonl", "csv", "text"]),
        kind=st.sampled_from(["whole", "row_groups", "bytes"]),
        start=COUNTS,
        stop=COUNTS,
        rows=st.none() | COUNTS,
    ),
    max_size=8,
)


def _freeze(partitions: Iterable[Partition], **changes: Any) -> Manifest:
    header: dict[str, Any] = {
        "scorer": SCORER,
        "reading": ReadOptions(id_columns=("id",)),
        "max_tokens": 128,
        "long_documents": "mean",
        "options_digest": "abc",
    }
    return Manifest.freeze(**{**header, **changes}, partitions=partitions)


def _partition(number: int) -> Partition:
    uri = f"s3://bucket/corpus/shelf={number % 100}/part-{number:07d}.jsonl"
    return Partition(uri, f"{number:032x}", 1000, "jsonl", "bytes", 0, 1000, None)


@settings(deadline=None)
@given(PARTITIONS)
def test_holds_what_it_was_given(partitions: list[Partition]) -> None:
    """Iteration, indexing, length, rows and work ids are those of the partitions, also after pickling."""
    manifest = _freeze(iter(partitions))
    for held in (manifest, pickle.loads(pickle.dumps(manifest))):  # noqa: S301 (made in this line)
        assert list(held) == partitions
        assert [held.partition(index) for index in range(len(held))] == partitions
        assert held.work_ids == [partition.work_id(SCORER.fingerprint, "abc") for partition in partitions]
        known = all(partition.rows is not None for partition in partitions)
        assert held.rows == (sum(partition.rows or 0 for partition in partitions) if known else None)
        assert held.id == manifest.id
        assert (held.scorer, held.reading) == (SCORER, ReadOptions(id_columns=("id",)))
        assert (held.max_tokens, held.long_documents, held.options_digest) == (128, "mean", "abc")


@settings(deadline=None)
@given(PARTITIONS, PARTITIONS)
def test_ids_are_equal_only_for_equal_content(one: list[Partition], other: list[Partition]) -> None:
    """Two lists share an id exactly when they are the same list."""
    assert (_freeze(one).id == _freeze(other).id) == (one == other)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 129},
        {"long_documents": "max"},
        {"options_digest": "abd"},
        {"reading": ReadOptions()},
        {"scorer": ScorerInfo(("joy",), "softmax", "f", "bert", "fp32", "bundled")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_option_changes_the_id(change: dict[str, Any]) -> None:
    """A manifest of the same partitions under other options is another manifest."""
    assert _freeze([_partition(1)], **change).id != _freeze([_partition(1)]).id


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_is_saved_once_and_adopted(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A plan that is made again finds its manifest, leaves it as it is, and reads it back equal."""
    store = Store(str(tmp_path) if kind == "folder" else request.getfixturevalue("s3"))
    manifest = _freeze(map(_partition, range(9000)))
    key = manifest.save(store)
    assert key == f"manifests/{manifest.id}.parquet"
    written = store.read(key)
    assert _freeze(map(_partition, range(9000))).save(store) == key
    assert store.read(key) == written
    loaded = Manifest.load(store, manifest.id)
    assert loaded.id == manifest.id
    assert loaded.work_ids == manifest.work_ids
    assert loaded.partition(8999) == _partition(8999)


def test_is_saved_though_another_planner_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conditional write would be refused because of another one under way, which may fail: none is needed here."""
    written: list[str] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        if request.command != "PUT":
            return 404, "NoSuchKey"
        if request.headers.get("If-None-Match"):
            return 409, "ConditionalRequestConflict"
        written.append(request.path)
        return 200, ""

    with answering(respond) as endpoint:
        point_at(endpoint, monkeypatch)
        key = _freeze([_partition(1)]).save(Store("s3://bucket/work"))
    assert written == [f"/bucket/work/{key}"]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    """Bytes that are no manifest, another manifest's bytes and an absent one are errors that name the key."""
    store = Store(str(tmp_path))
    one, other = _freeze([_partition(1)]), _freeze([_partition(2)])
    store.write(f"manifests/{one.id}.parquet", store.read(other.save(store)))
    with pytest.raises(StorageError, match=f"has the content hash {other.id}.*Next: plan again"):
        Manifest.load(store, one.id)
    store.write(f"manifests/{one.id}.parquet", b"not a manifest")
    with pytest.raises(StorageError, match=f"{one.id}.parquet cannot be read"):
        Manifest.load(store, one.id)
    with pytest.raises(StorageError, match="is gone"):
        Manifest.load(store, "0" * 64)


def test_whatever_is_damaged_is_seen(tmp_path: Path) -> None:
    """A few bits, the end, another column's name: the manifest as it was, or an error of ours."""
    store, chance = Store(str(tmp_path)), random.Random(7)
    manifest = _freeze(map(_partition, range(50)))
    key = manifest.save(store)
    sound, seen = store.read(key), 0
    for _ in range(600):
        body = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        (tmp_path / key).write_bytes(body if chance.random() < 0.8 else body[: chance.randrange(len(body))])
        try:
            assert Manifest.load(store, manifest.id).work_ids == manifest.work_ids
        except DamagedDocument:
            seen += 1
    assert seen > 400


@pytest.mark.parametrize("fault", ["flipped", "shortened"])
def test_bytes_that_are_damaged_on_their_way_are_asked_for_again(
    fault: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the store is sound, and is read; one that is damaged there is mended by the next save."""
    with FaultProxy(s3_server.endpoint) as proxy:
        point_at(proxy.endpoint, monkeypatch)
        store = Store(s3_server.make_bucket())
        manifest = _freeze([_partition(1)])
        key = manifest.save(store)
        rule = proxy.rule(fault, verb="GET", count=1)
        assert Manifest.load(store, manifest.id).work_ids == manifest.work_ids
        assert rule.injected == 1
        store.write(key, store.read(key)[:-1])
        with pytest.raises(DamagedDocument, match="cannot be read"):
            Manifest.load(store, manifest.id)
        manifest.save(store)
        assert Manifest.load(store, manifest.id).id == manifest.id


def test_partitions_pass_through_as_columns() -> None:
    """Freezing never holds all partitions as objects: at most 400 bytes each, the columns' own included."""
    _freeze([_partition(0)])  # imports are not counted
    tracemalloc.start()
    manifest = _freeze(map(_partition, range(25_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(manifest) == 25_000
    assert peak + len(pickle.dumps(manifest)) < 400 * 25_000
