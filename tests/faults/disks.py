"""Disks of a few MB, which fill up; they need the right to mount."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.control import Missed
from tests.faults.processes import until
from tests.faults.scene import Scene


@dataclass(frozen=True)
class SmallDisk:
    """A disk in memory, with a file as ballast.

    Attributes:
        folder: Where it is mounted.
    """

    folder: Path

    @property
    def ballast(self) -> Path:
        """A file that takes room and does nothing else."""
        return self.folder / ".ballast"

    def fill(self, leaving_kib: int) -> None:
        """Leave so many KiB, or less where others write at the same time."""
        disk = os.statvfs(self.folder)
        wanted = max(0, disk.f_bavail * disk.f_frsize - leaving_kib * 1024)
        with suppress(OSError), self.ballast.open("ab", buffering=0) as file:
            for _ in range(wanted // 4096):
                file.write(bytes(4096))

    def empty(self) -> None:
        """Take the ballast away."""
        self.ballast.unlink(missing_ok=True)

    def allow_writing(self, allowed: bool) -> None:
        """Mount it again, for reading only or not."""
        how = f"remount,{'rw' if allowed else 'ro'}"
        until(lambda: _mounted("-o", how, str(self.folder)), 10, how)  # not while a file is open for writing


def small_disk(scene: Scene, name: str, size_kib: int) -> SmallDisk:
    """A disk that goes with the run.

    Raises:
        Missed: This user may not mount.
    """
    folder = scene.folder / name
    folder.mkdir(exist_ok=True)
    if not _mounted("-t", "tmpfs", "-o", f"size={size_kib}k,mode=1777", "tmpfs", str(folder)):
        raise Missed("this user may not mount a disk")
    scene.later(lambda: subprocess.run(["umount", "--lazy", str(folder)], check=False))
    return SmallDisk(folder)


def _mounted(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
