"""Where a model is used from: a link to one of its versions, so that it is replaced in one step.

models/emotion           -> .emotion/9f2c4a0d1b7e6f35    what readers open; they follow it once and stay there
models/emotion.previous  -> .emotion/03b7d1c2a9e8f460    what was there before
models/.emotion/            the versions
"""

from __future__ import annotations

import ctypes
import os
import shutil
import time
import uuid
from pathlib import Path

#: A version that was replaced stays so long, for those who have followed the link and still read.
SPARE_SECONDS = 3_600.0

_HERE = -100  # AT_FDCWD
_RENAME_EXCHANGE = 2


def put_model(source: Path, place: Path, version: str) -> None:
    """Make `place` a model; a reader finds the one before or this one, whole, at any time.

    The same version again changes nothing. A folder that lies at `place` becomes the version before; where the file
    system cannot exchange two names, `place` is missing for the moment between two renames, this once.

    Args:
        source: Folder of the model; it is copied.
        place: Where readers look.
        version: A name that belongs to this content alone.

    Raises:
        OSError: The place cannot be written.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    place = place.parent.resolve() / place.name
    versions, previous = place.with_name(f".{place.name}"), place.with_name(f"{place.name}.previous")
    versions.mkdir(exist_ok=True)
    made = versions / version
    _copy_once(source, made)
    before = _stored(place)
    if before == made:
        return
    if before is None and place.is_dir():
        before = _link_instead(place, made)
    else:
        _point(place, made, versions)
    if before is not None:
        if before.parent == versions:
            os.utime(before)  # it is spared from now on
        if previous.is_dir() and not previous.is_symlink():
            shutil.rmtree(previous)
        _point(previous, before, versions)
    _sweep(versions, {path.resolve() for path in (made, place, previous)})


def _stored(place: Path) -> Path | None:
    """What a place links to: a version, or what someone linked it to."""
    return place.resolve() if place.is_symlink() and place.is_dir() else None


def _copy_once(source: Path, made: Path) -> None:
    """A version is there whole or not at all; its time is that of the copy, not the source's."""
    if not made.is_dir():
        draft = made.with_name(f"draft-{uuid.uuid4().hex}")
        try:
            shutil.copytree(source, draft)
            draft.rename(made)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not made.is_dir():  # else someone else made the same at the same time
                raise
    os.utime(made)


def _point(place: Path, target: Path, versions: Path) -> None:
    """Make `place` a link, in one step."""
    link = versions / f"link-{uuid.uuid4().hex}"
    link.symlink_to(_target(target, versions))
    link.replace(place)


def _target(target: Path, versions: Path) -> Path:
    """Relative to a version, so that the folder around them may lie under another path, as in a container."""
    return Path(versions.name, target.name) if target.parent == versions else target


def _link_instead(folder: Path, made: Path) -> Path:
    """Put a link to `made` where a folder lies, and the folder among the versions; its place there."""
    versions = made.parent
    kept = versions / f"folder-{uuid.uuid4().hex}"
    kept.symlink_to(_target(made, versions))
    if not _exchange(kept, folder):
        kept.unlink()
        folder.rename(kept)
        _point(folder, made, versions)
    return kept


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot.

    Source: renameat2(2)
    """
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return swap is not None and swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _sweep(versions: Path, used: set[Path]) -> None:
    """Delete versions, and drafts of copies that broke off, that have been left alone for long."""
    for path in versions.iterdir():
        if path.resolve() not in used and path.lstat().st_mtime < time.time() - SPARE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
