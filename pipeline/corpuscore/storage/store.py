"""The work location: objects by key, written whole or not at all."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from corpuscore.errors import StorageError, StorageUnavailable
from corpuscore.files import is_draft, placed, write_whole
from corpuscore.storage.entries import Entry, find_entry, list_entries
from corpuscore.storage.locations import canonical_uri, filesystem, scheme_of
from corpuscore.storage.refusals import error_code, translated

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CONCURRENCY = 32
#: Start of the keys of objects that try a location out.
PROBE = ".writable-"

_UPLOAD_CHUNK = 16 * 2**20  # bytes of one request of a multipart upload; four are in flight

#: How stores say that they don't know `If-None-Match` on a PUT: OpenStack Swift answers NotImplemented.
_UNSUPPORTED = frozenset({"NotImplemented", "501"})
#: How they say that the object is there already.
_TAKEN = frozenset({"PreconditionFailed", "412"})


class Store:
    """A folder, or a prefix of a bucket, in which objects are written atomically.

    It pickles as its URI, so that a Dask task may carry it. Keys are relative, with "/" between their parts.
    Every method raises StorageError where the store refuses for good, StorageUnavailable where it does not answer.
    """

    def __init__(self, uri: str) -> None:
        self.uri = canonical_uri(uri).rstrip("/")
        self._exclusive = True  # until the store says that it cannot

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.uri,))

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def uri_of(self, key: str) -> str:
        """The URI of a key."""
        return f"{self.uri}/{key}"

    def read(self, key: str) -> bytes:
        """The bytes of an object."""
        with translated(f"read {self.uri_of(key)}"):
            return self._read(key)

    def read_if_there(self, key: str) -> bytes | None:
        """The bytes of an object; None where none is there, by the same one request."""
        with translated(f"read {self.uri_of(key)}"):
            try:
                return self._read(key)
            except FileNotFoundError as error:
                if error_code(error) == "NoSuchBucket":
                    raise
                return None

    def _read(self, key: str) -> bytes:
        store, path = self._locate(key)
        # One request: s3fs asks for the size first where it may read in several.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        body: bytes = store.cat_file(path, **options)
        return body

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The bytes of many objects, read concurrently."""
        keys = list(keys)
        return dict(zip(keys, concurrently(self.read, keys), strict=True))

    def open(self, key: str) -> BinaryIO:
        """An object, opened for reading: seekable, and its reads raise errors of ours."""
        store, path = self._locate(key)
        with translated(f"open {self.uri_of(key)}"):
            if self._is_local:
                return Path(path).open("rb")
            return io.BufferedReader(_StoredFile(store.open(path, "rb"), self.uri_of(key)), 2**20)

    def write(self, key: str, body: bytes) -> None:
        """Put an object in place of whatever is there; readers see the old one or the new one, whole."""
        store, path = self._locate(key)
        with translated(f"write {self.uri_of(key)}"):
            if self._is_local:
                write_whole(Path(path), body)
            else:
                store.pipe_file(path, body)

    def create(self, key: str, body: bytes) -> bool:
        """Put an object only where none is; False where somebody else's is there.

        A store that cannot do that (OpenStack Swift's S3, some network file systems) gets a plain write and True:
        the last writer wins there, which the receipts above are made for. After False, read what is there: it may be
        one's own, where a first answer was lost and the client asked again.
        """
        if self._exclusive:
            with translated(f"create {self.uri_of(key)}"):
                try:
                    return self._create(key, body)
                except NotImplementedError:
                    self._exclusive = False
        self.write(key, body)
        return True

    def upload(self, path: str | Path, key: str) -> None:
        """Stream a local file to a key, atomically; in parts where it is large."""
        store, target = self._locate(key)
        with translated(f"upload {path} to {self.uri_of(key)}"):
            if self._is_local:
                with placed(Path(target)) as draft:
                    shutil.copyfile(path, draft)
            elif self._is_s3:
                self._put_file(store, path, key)
            else:
                store.put_file(str(path), target)

    def find(self, prefix: str = "") -> dict[str, int]:
        """Keys that start with prefix, in order, with their sizes in bytes: fresh, whoever wrote them."""
        found = {key: entry.size_bytes for key, entry in self._entries(prefix)}
        return {key: found[key] for key in sorted(found)}

    def find_older(self, prefix: str, age: timedelta) -> list[str]:
        """Keys that start with prefix, in order, of objects that were written longer ago than this.

        An object of which the store does not say when it was written is none of them.
        """
        until = datetime.now(UTC) - age
        return sorted(key for key, entry in self._entries(prefix) if entry.modified and entry.modified < until)

    def exists(self, key: str) -> bool:
        """Whether an object is there now."""
        return find_entry(self.uri_of(key)) is not None

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is gone already is no error."""
        concurrently(self._delete, list(keys))

    def check_writable(self) -> datetime:
        """Write, read back and remove a small object, so that a run fails before its work and not after.

        Returns:
            The time by the clock of the store, which all who work there share; by this machine's where it tells none.

        Raises:
            StorageError: With what to do about it.
        """
        key = f"{PROBE}{uuid.uuid4().hex}"
        self.write(key, b"corpuscore")
        if b"corpuscore" not in (self.read(key), self.read(key)):  # one answer may be damaged on its way
            raise StorageError(f"{self.uri} returns other bytes than were written", next_step="choose another location")
        entry, here = find_entry(self.uri_of(key)), datetime.now(UTC)
        self.delete([key])
        return here if entry is None or entry.modified is None else _refined(entry.modified, here)

    @property
    def _is_local(self) -> bool:
        return scheme_of(self.uri) == "file"

    @property
    def _is_s3(self) -> bool:
        return scheme_of(self.uri) == "s3"

    def _locate(self, key: str) -> tuple[Any, str]:
        return filesystem(self.uri_of(key))

    def _entries(self, prefix: str) -> Iterator[tuple[str, Entry]]:
        _, root = filesystem(self.uri + "/")
        for entry in list_entries(self.uri_of(prefix)):
            key = entry.path.removeprefix(root)
            if not is_draft(key.rpartition("/")[2]):
                yield key, entry

    def _create(self, key: str, body: bytes) -> bool:
        """True where it is made, False where the key is taken; NotImplementedError where the store cannot tell."""
        store, path = self._locate(key)
        try:
            if self._is_local:
                with placed(Path(path), _link) as draft:
                    draft.write_bytes(body)
            else:
                store.pipe_file(path, body, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if error_code(error) in _TAKEN:
                return False
            if error_code(error) in _UNSUPPORTED:
                raise NotImplementedError from error
            raise
        return True

    def _put_file(self, store: Any, path: str | Path, key: str) -> None:
        """Upload to S3. An upload that is known no more has ended: by this very call, whose first answer was lost."""
        _, target = self._locate(key)
        try:
            store.put_file(str(path), target, chunksize=_UPLOAD_CHUNK, max_concurrency=4)
        except FileNotFoundError as error:
            if error_code(error) != "NoSuchUpload":
                raise
            found = find_entry(self.uri_of(key))
            if found is None or found.size_bytes != Path(path).stat().st_size:
                raise StorageUnavailable(
                    f"upload {path} to {self.uri_of(key)}: the store knows the upload no more",
                    rule="nobody aborts an upload under way",
                    next_step="run again; see to it that a lifecycle rule gives uploads a day at the least",
                ) from error

    def _delete(self, key: str) -> None:
        store, path = self._locate(key)
        with translated(f"delete {self.uri_of(key)}"):
            try:
                store.rm_file(path)
            except FileNotFoundError:
                return


class _StoredFile(io.RawIOBase):
    """A remote file whose reads raise errors of ours."""

    def __init__(self, file: Any, uri: str) -> None:
        self._file = file
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with translated(f"read {self._uri}"):
            body = self._file.read(len(buffer))
        buffer[: len(body)] = body
        return len(body)

    def readall(self) -> bytes:
        with translated(f"read {self._uri}"):
            return bytes(self._file.read())  # else asked for in pieces of 8 KiB

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def concurrently(action: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """What an action returns for each item, in order; many wait for the store at the same time."""
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        return list(pool.map(action, items))


def _refined(told: datetime, here: datetime) -> datetime:
    """A store's time; S3 tells whole seconds, of which this machine's clock then says the fraction."""
    return told if told.microsecond else min(max(here, told), told + timedelta(microseconds=999_999))


def _link(draft: Path, target: Path) -> None:
    """Install by a hard link, which unlike a rename fails where the name is taken."""
    try:
        target.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError as error:
        raise NotImplementedError("no hard links here") from error
