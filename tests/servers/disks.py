"""A disk that is really full, or really cannot be written to: a file system of its own in memory."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 4 MiB that everybody may write to; only root can make one."""
    with tempfile.TemporaryDirectory(prefix="disk") as folder:
        Path(folder).chmod(0o755)
        disk = Path(folder) / "disk"
        disk.mkdir()
        options = ["-o", "size=4m,mode=0777"]
        made = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", disk], capture_output=True, check=False)
        if made.returncode:
            pytest.skip("this user may not mount a file system")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
