"""What killed writers leave in the work location, out of sight of its listings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from corpuscore.errors import StorageError
from corpuscore.files import is_draft
from corpuscore.storage.entries import list_entries
from corpuscore.storage.locations import filesystem, scheme_of
from corpuscore.storage.refusals import translated
from corpuscore.storage.store import PROBE, Store

log = logging.getLogger(__name__)


def delete_leftovers(store: Store, prefixes: Iterable[str], age: timedelta) -> int:
    """Delete drafts in a folder, uploads to S3 that were begun and not ended, and objects that tried the location out.

    Args:
        store: The work location.
        prefixes: Of the keys whose drafts are looked for.
        age: Younger ones stay, since somebody may be at them.

    Returns:
        How many there were.

    Raises:
        StorageUnavailable: The store does not answer. One that refuses keeps them, and the log says so.
    """
    probes = store.find_older(PROBE, age)
    store.delete(probes)
    if scheme_of(store.uri) == "file":
        return len(probes) + _delete_drafts(store, [*prefixes, f".{PROBE}"], age)
    if scheme_of(store.uri) == "s3":
        return len(probes) + _abort_uploads(store, age)
    return len(probes)


def _delete_drafts(store: Store, prefixes: Iterable[str], age: timedelta) -> int:
    until = datetime.now(UTC) - age
    found = [
        Path(entry.path)
        for prefix in prefixes
        for entry in list_entries(store.uri_of(prefix))
        if is_draft(Path(entry.path).name) and entry.modified and entry.modified < until
    ]
    for draft in found:
        with translated(f"delete {draft}"):
            draft.unlink(missing_ok=True)
    return len(found)


def _abort_uploads(store: Store, age: timedelta) -> int:
    until = datetime.now(UTC) - age
    try:
        with translated(f"end uploads to {store.uri}"):
            uploads = [upload for upload in _uploads(store) if upload["Initiated"] < until]
            client, path = filesystem(store.uri_of(""))
            bucket = path.partition("/")[0]
            for upload in uploads:
                client.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except StorageError as error:
        log.warning("Uploads that were not ended stay, and cost what their parts do: %s", error)
        return 0
    return len(uploads)


def _uploads(store: Store) -> Iterator[dict[str, Any]]:
    client, path = filesystem(store.uri_of(""))
    bucket, _, prefix = path.partition("/")
    request = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = client.call_s3("list_multipart_uploads", **request)
        yield from page.get("Uploads", ())
        if not page.get("IsTruncated"):
            return
        request.update(KeyMarker=page["NextKeyMarker"], UploadIdMarker=page["NextUploadIdMarker"])
