"""A sealed document is read as it was written, or it is named as damaged: nothing in between."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpuscore.errors import DamagedDocument, StorageUnavailable
from corpuscore.storage import Store, read_document, read_documents, sealed, write_document
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)
CONTENTS = st.dictionaries(st.text(st.characters(codec="utf-8")).filter(lambda name: name != "seal"), JSON, max_size=6)
in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def as_is(content: Any) -> Any:
    """Take any content."""
    return content


def as_json(content: Any) -> Any:
    """What JSON makes of a value: NaN and infinities are null."""
    return orjson.loads(orjson.dumps(content))


@in_a_folder
@given(CONTENTS)
def test_what_was_written_is_read(tmp_path: Path, content: dict[str, Any]) -> None:
    """Any JSON object comes back, numbers, nested values and all, whatever its names are."""
    store = Store(str(tmp_path))
    write_document(store, "a/b.json", content)
    assert read_document(store, "a/b.json", as_is) == as_json(content)


@in_a_folder
@given(CONTENTS, st.data())
def test_damage_is_seen(tmp_path: Path, content: dict[str, Any], data: st.DataObject) -> None:
    """One bit, some bytes, a missing end: an error, or what was written, never something else."""
    store = Store(str(tmp_path))
    body = bytearray(sealed("a.json", content))
    kind = data.draw(st.sampled_from(["bit", "bytes", "end"]))
    if kind == "end":
        del body[data.draw(st.integers(0, len(body) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = body[at] ^ 1 << data.draw(st.integers(0, 7)) if kind == "bit" else data.draw(st.integers(0, 255))
    store.write("a.json", bytes(body))
    try:
        found = read_document(store, "a.json", as_is)
    except DamagedDocument:
        return
    assert found == as_json(content)


@pytest.mark.parametrize("body", [b"", b"\0" * 300, b"{", b"\xff\xfe", b"[" * 5000, b"1e999999", b'"\\ud800"'])
def test_what_is_no_json_is_damaged(tmp_path: Path, body: bytes) -> None:
    """Empty, zeros after a crash, half of it, other encodings, bombs."""
    store = Store(str(tmp_path))
    store.write("a.json", body)
    with pytest.raises(DamagedDocument, match="a.json is damaged"):
        read_document(store, "a.json", dict)


def test_a_document_belongs_under_its_key(tmp_path: Path) -> None:
    """A copy under another key is no document of that key."""
    store = Store(str(tmp_path))
    write_document(store, "one.json", {"rows": 1})
    store.write("other.json", store.read("one.json"))
    with pytest.raises(DamagedDocument, match="its content or its key"):
        read_document(store, "other.json", as_is)


def test_documents_without_a_seal_are_read(tmp_path: Path) -> None:
    """As older versions wrote them; a seal that is damaged is none of these."""
    store = Store(str(tmp_path))
    store.write("old.json", b'{"rows": 1}')
    assert read_document(store, "old.json", as_is) == {"rows": 1}
    for seal in (b'"seam": "sha256:', b'"seal": "sha251:'):
        store.write("old.json", b'{"rows": 1, ' + seal + b'5e88"}')
        with pytest.raises(DamagedDocument):
            read_document(store, "old.json", as_is)


def test_many_are_read_at_once(tmp_path: Path) -> None:
    """Those that are there, those that are damaged, and neither."""
    store = Store(str(tmp_path))
    write_document(store, "a", {"rows": 1})
    store.write("b", b"{")
    found, damaged = read_documents(store, dict.fromkeys(["a", "b", "c"], as_is))
    assert found == {"a": {"rows": 1}}
    assert list(damaged) == ["b"]


def test_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    """The seal is that of what is read back."""
    store = Store(str(tmp_path))
    write_document(store, "a", {"mean": math.nan, "names": ("x", "y")})
    assert read_document(store, "a", as_is) == {"mean": None, "names": ["x", "y"]}


@pytest.mark.parametrize("fault", ["shortened", "flipped"])
def test_bytes_that_are_damaged_on_their_way_are_asked_for_again(
    fault: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there is sound: nothing is made again for one bad answer; missing is told from unavailable."""
    with FaultProxy(s3_server.endpoint) as proxy:
        point_at(proxy.endpoint, monkeypatch)
        store = Store(s3_server.make_bucket())
        write_document(store, "a.json", {"rows": 1})
        rule = proxy.rule(fault, verb="GET", count=1)
        assert read_document(store, "a.json", as_is) == {"rows": 1}
        assert rule.injected == 1
        assert read_document(store, "b.json", as_is) is None
        monkeypatch.setitem(dask.config.config, "corpuscore", {"wait-for-store": "0.3s"})
        proxy.rule("503")
        with pytest.raises(StorageUnavailable):
            read_document(store, "b.json", as_is)
