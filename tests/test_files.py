"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpuscore.files import is_draft, placed, write_whole


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Who has it open reads the one before; whoever opens it then, the new one. Folders are made."""
    target = tmp_path / "a" / "b" / "file"
    write_whole(target, b"first")
    with target.open("rb") as before:
        write_whole(target, b"second")
        assert (before.read(), target.read_bytes()) == (b"first", b"second")
    assert names(target.parent) == ["file"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """And no draft."""
    target = tmp_path / "file"
    write_whole(target, b"first")

    def fail() -> None:
        with placed(target) as draft:
            draft.write_bytes(b"sec")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_a_draft_at_most(tmp_path: Path) -> None:
    """Its name is known for what it is."""
    target = tmp_path / "file"
    write_whole(target, b"first")
    code = (
        "import os, pathlib, sys\n"
        "from corpuscore.files import placed\n"
        "with placed(pathlib.Path(sys.argv[1])) as draft:\n"
        "    draft.write_bytes(b'sec')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -9
    assert target.read_bytes() == b"first"
    assert [is_draft(name) for name in names(tmp_path)] == [True, False]


def test_writers_side_by_side_leave_one_of_theirs(tmp_path: Path) -> None:
    """Whole, whichever it is."""
    bodies = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda body: write_whole(tmp_path / "file", body), bodies))
    assert (tmp_path / "file").read_bytes() in bodies
    assert names(tmp_path) == ["file"]


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    """Not that the target is there already."""
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(NotADirectoryError, match="folder is a file"):
        write_whole(tmp_path / "folder" / "file", b"")


def test_it_may_be_installed_otherwise(tmp_path: Path) -> None:
    """By a link, for one, which fails where the name is taken."""
    for taken in (False, True):
        try:
            with placed(tmp_path / "file", os.link) as draft:
                draft.write_bytes(b"first")
        except FileExistsError:
            assert taken
    assert names(tmp_path) == ["file"]
