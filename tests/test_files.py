"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from corpuscore import files
from corpuscore.files import is_draft, placed, scratch_folder, write_whole


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


_HOLDS_A_FOLDER = (
    "import sys\n"
    "from corpuscore.files import scratch_folder\n"
    "with scratch_folder() as folder:\n"
    "    (folder / 'part').write_bytes(b'x')\n"
    "    print(folder, flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_a_scratch_folder_goes_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the block fails; its name says whose it is."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for fails in (False, True):
        with suppress(KeyError), scratch_folder() as folder:
            (folder / "file").write_bytes(b"x")
            assert f"-{os.getpid()}-" in folder.name
            if fails:
                raise KeyError
        assert names(tmp_path) == []


def test_scratch_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the living stay, however old; so do young ones, which may not be locked yet, and what others made."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed, living, young = (
        subprocess.Popen(
            [sys.executable, "-c", _HOLDS_A_FOLDER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    )
    folders = {}
    for process in (killed, living, young):
        assert process.stdout
        folders[process] = Path(process.stdout.readline().decode().strip())
    (tmp_path / "corpuscore-scratch-link").symlink_to(tmp_path.parent)
    (tmp_path / "other").mkdir()
    for process in (killed, young):
        process.kill()
    for process in (killed, living):
        os.utime(folders[process], (0, 0))
    for process in (killed, young):
        process.communicate()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files._delete_abandoned.cache_clear()
    with scratch_folder():
        left = [folder for folder in folders.values() if folder.exists()]
    living.communicate()
    assert left == [folders[living], folders[young]]
    assert names(tmp_path) == ["corpuscore-scratch-link", folders[young].name, "other"]
    assert tmp_path.parent.exists()
