"""What is in a store, seen fresh: one entry an object, page by page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from corpuscore.records import digest
from corpuscore.storage.locations import filesystem, path_of
from corpuscore.storage.refusals import translated

#: Where they name the version: S3, Azure and the web, Google's, a hub's.
_VERSIONS = ("ETag", "etag", "generation", "blob_id", "md5Hash")
#: Where fsspec's file systems say when an object was written: S3, files and Google's, Azure's, memory.
_MODIFIED = ("LastModified", "mtime", "last_modified", "created")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object.

    Attributes:
        path: As the file system names it, without the scheme.
        etag: Changes when the content does: the store's ETag, or modification time and size.
        size_bytes: Size as stored (compressed where the object is).
        modified: When it was written, by the clock of the store; None where the store does not say.
    """

    path: str
    etag: str
    size_bytes: int
    modified: datetime | None = None


def find_entry(uri: str, anonymous: bool = False) -> Entry | None:
    """The object of exactly this URI; None where there is none (a folder is none).

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    store, path = filesystem(uri, anonymous)
    if path.endswith("/"):
        return None
    with translated(f"look up {uri}"):
        try:
            info = store.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return _entry(info, path) if info["type"] == "file" else None


def list_entries(uri: str, anonymous: bool = False) -> Iterator[Entry]:
    """All objects whose URI starts with this one, in no promised order.

    Raises:
        StorageError, StorageUnavailable: The store refuses, or does not answer.
    """
    store, prefix = filesystem(uri, anonymous)
    with translated(f"list {uri}"):
        if hasattr(store, "call_s3"):
            yield from _list_s3(store, prefix)
        elif store.protocol == ("file", "local"):
            yield from _list_local(prefix)
        else:
            yield from _list_other(store, prefix)


def _list_s3(store: Any, prefix: str) -> Iterator[Entry]:
    """Page by page: s3fs's own find() holds a dict an object, ten times what is needed here."""
    bucket, _, key = prefix.partition("/")
    request: dict[str, str] = {"Bucket": bucket, "Prefix": key}
    while True:
        page = store.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", ()):
            yield Entry(f"{bucket}/{item['Key']}", item["ETag"].strip('"'), item["Size"], item["LastModified"])
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _list_local(prefix: str) -> Iterator[Entry]:
    folders = [os.path.dirname(prefix) or "/"]  # noqa: PTH120 (a prefix may end in a slash)
    entered: set[str] = set()  # real paths, since links may go round in a circle
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                items = [item for item in found if _related(item.path, prefix)]
        except (FileNotFoundError, NotADirectoryError):
            continue  # no such folder, or gone since its parent was read: nothing is there
        subfolders = {os.path.realpath(item.path): item.path for item in items if item.is_dir()}
        folders += [path for real, path in sorted(subfolders.items()) if real not in entered]
        entered |= subfolders.keys()
        for item in items:
            try:
                stat = item.stat() if item.is_file() else None
            except FileNotFoundError:
                continue  # gone since its folder was read, as another process's drafts are when they are whole
            if stat:
                yield Entry(item.path, local_etag(stat), stat.st_size, _time(stat.st_mtime))


def _related(path: str, prefix: str) -> bool:
    """Whether a path matches a prefix, or leads to what does."""
    return path.startswith(prefix) or prefix.startswith(path + "/")


def _list_other(store: Any, prefix: str) -> Iterator[Entry]:
    folder = prefix.rpartition("/")[0]
    for info in store.find(folder, detail=True).values():
        entry = _entry(info, prefix)
        if entry.path.startswith(prefix):
            yield entry


def local_etag(stat: os.stat_result) -> str:
    """Modification time (ns) and size in hex: what a file system has for an ETag."""
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _entry(info: dict[str, Any], asked: str) -> Entry:
    """The entry of what fsspec says; some file systems put a slash before names that were asked for without."""
    name = info["name"] if asked.startswith("/") else info["name"].lstrip("/")
    if asked.startswith(("http://", "https://")):
        name = path_of(name)
    return Entry(name, _etag(info), int(info["size"] or 0), _modified(info))


def _modified(info: dict[str, Any]) -> datetime | None:
    return _time(next((info[key] for key in _MODIFIED if key in info), None))


def _time(value: Any) -> datetime | None:
    """A time in UTC of what a file system says: seconds since 1970, or a datetime."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return value.astimezone(UTC) if isinstance(value, datetime) else None


def _etag(info: dict[str, Any]) -> str:
    """What the store calls its version; else the file's; else its time and size; else a digest over all that is said.

    Some file systems say the same object's time and name otherwise in a listing than when they are asked for it alone.
    """
    named = next((info[key] for key in _VERSIONS if info.get(key)), None)
    if named:
        return str(named).strip('"')
    if "ino" in info:
        return local_etag(os.stat(info["name"]))  # noqa: PTH116 (fsspec keeps seconds only)
    if written := _modified(info):
        return digest([written.isoformat(), info["size"]])[:32]
    return digest({name: str(value) for name, value in info.items() if name != "name"})[:32]
