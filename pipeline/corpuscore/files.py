"""Writing a local file whole or not at all: nobody ever reads half of it, and a kill leaves the one before.

write_whole(path, body)
with placed(path) as draft:     # whatever else writes a file: a compiler, torch.save, a copy
    draft.write_bytes(body)
"""

from __future__ import annotations

import os
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
