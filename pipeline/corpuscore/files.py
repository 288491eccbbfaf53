"""Writing a local file whole or not at all: nobody ever reads half of it, and a kill leaves the one before.

write_whole(path, body)
with placed(path) as draft:     # whatever else writes a file: a compiler, torch.save, a copy
    draft.write_bytes(body)

And a folder for files that nobody is to find afterwards: scratch_folder().
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def placed(target: Path, install: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """A path beside the target; what the block wrote there takes the target's name at its end, durably.

    Args:
        target: Its folder is made where it is missing.
        install: Gives the draft, its first argument, the name of the second: by replacing what is there, or otherwise.

    Raises:
        NotADirectoryError: The folder is a file. Whatever the block and install raise; the draft is gone then.
    """
    _make_folder(target.parent)
    draft = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        _sync(draft)
        install(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    _sync(target.parent)  # a name is durable once its folder is on disk


def write_whole(target: Path, body: bytes) -> None:
    """Put a file in place of whatever is there; see placed."""
    with placed(target) as draft:
        draft.write_bytes(body)


def is_draft(name: str) -> bool:
    """Whether a file's name is that of a draft, which a killed process may leave behind."""
    return name.startswith(".") and name.endswith(".tmp")


_SCRATCH = "corpuscore-scratch-"
#: A folder this young may be one whose owner has not locked it yet.
_UNLOCKED_SECONDS = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files (in TMPDIR), which is gone when the block ends.

    Where the process is killed it stays, and goes with the first scratch folder of the next process. Its owner holds a
    lock on it, which ends with the owner whatever happens, and which says more than a process id does where containers
    share a folder; host and process id are in its name for people.
    """
    root = tempfile.gettempdir()
    _delete_abandoned(root)
    made = tempfile.mkdtemp(prefix=f"{_SCRATCH}{socket.gethostname()}-{os.getpid()}-", dir=root)
    lock = os.open(made, os.O_RDONLY)
    try:
        _is_locked_now(lock)
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


@functools.cache
def _delete_abandoned(root: str) -> None:
    """Delete the scratch folders in a folder whose owners are gone; once a process, since it may be a long list."""
    with os.scandir(root) as found:
        folders = [item.path for item in found if item.name.startswith(_SCRATCH) and _is_ours(item)]
    for folder in folders:
        try:
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue  # gone meanwhile
        try:
            if _is_locked_now(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _is_ours(item: os.DirEntry[str]) -> bool:
    """Whether it is a folder of this user, and not one that is just being made."""
    try:
        stat = item.stat(follow_symlinks=False)
    except OSError:
        return False
    old = time.time() - stat.st_mtime > _UNLOCKED_SECONDS
    return item.is_dir(follow_symlinks=False) and stat.st_uid == os.geteuid() and old


def _is_locked_now(descriptor: int) -> bool:
    """Whether the lock could be had; never where another holds it, nor on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # else taken for a target that is there
        raise NotADirectoryError(f"{folder} is a file") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
