"""What killed writers leave in the work location goes once it is old."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from corpuscore.storage import Store, delete_leftovers, filesystem
from corpuscore.storage.leftovers import _uploads
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at

DAY = timedelta(days=1)
LATER = timedelta(seconds=-5)  # older than a moment to come: everything


def test_drafts_in_a_folder_go_when_they_are_old(tmp_path: Path) -> None:
    """Of parts, receipts and of the try whether the location can be written; objects stay, and so do young drafts."""
    store = Store(str(tmp_path / "work"))
    drafts = ["parts/aa/.x.parquet.0f.tmp", "receipts/aa/.x.json.1f.tmp", ".writable-2f", "..writable-2f.3f.tmp"]
    for key in (*drafts, "parts/aa/x.parquet", "other/.mine.tmp"):
        store.write(key, b"x")
        os.utime(tmp_path / "work" / key, (0, 0))
    store.write("parts/aa/.y.parquet.0f.tmp", b"x")
    assert delete_leftovers(store, ["parts/aa/", "receipts/"], DAY) == len(drafts)
    left = sorted(str(path.relative_to(tmp_path / "work")) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["other/.mine.tmp", "parts/aa/.y.parquet.0f.tmp", "parts/aa/x.parquet"]


def test_uploads_that_were_not_ended_are_aborted(s3: str) -> None:
    """Those under the location, once they are old; others in the bucket are not ours."""
    store = Store(s3 + "/work")
    client, path = filesystem(s3 + "/work")
    bucket = path.partition("/")[0]
    for number in range(3):
        client.call_s3("create_multipart_upload", Bucket=bucket, Key=f"work/parts/{number}")
    client.call_s3("create_multipart_upload", Bucket=bucket, Key="workshop")
    store.write(".writable-2f", b"x")
    assert delete_leftovers(store, [], 30 * 365 * DAY) == 0  # this server says of all that they were begun in 2010
    assert delete_leftovers(store, [], LATER) == 4
    assert list(_uploads(store)) == []
    assert store.find() == {}
    assert [upload["Key"] for upload in client.list_multipart_uploads(bucket)] == ["workshop"]


def test_a_store_that_refuses_keeps_them(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tidying up is a courtesy: without the right to it a run ends well, and the log says what stays."""
    with FaultProxy(s3_server.endpoint) as proxy:
        point_at(proxy.endpoint, monkeypatch)
        for fault in ("403 AccessDenied", "501 NotImplemented"):
            rule = proxy.rule(fault, verb="UPLOADS", count=1)
            assert delete_leftovers(Store(s3_server.make_bucket()), [], DAY) == 0
            assert rule.injected == 1
    assert caplog.text.count("Uploads that were not ended stay") == 2
