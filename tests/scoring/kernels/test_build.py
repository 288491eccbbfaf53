"""Building, caching and loading of native kernels."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpuscore.errors import JobError
from corpuscore.scoring.kernels import build, levels

_SOURCE = 'extern "C" int answer() { return 42; }\n'

needs_compiler = pytest.mark.skipif(build._compiler() is None, reason="no C++ compiler on the PATH")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A kernel of one function."""
    path = tmp_path / "answer.cpp"
    path.write_text(_SOURCE)
    return path


@needs_compiler
def test_builds_once_and_loads(source: Path, tmp_path: Path) -> None:
    """The second load takes the file that the first one built."""
    folder = tmp_path / "cache"
    assert build._library(source, folder).answer() == 42
    (built,) = folder.iterdir()
    before = built.stat().st_mtime_ns
    assert build._library(source, folder).answer() == 42
    assert built.stat().st_mtime_ns == before


@needs_compiler
@pytest.mark.parametrize("damage", [b"", b"not a library", None])
def test_a_damaged_library_is_rebuilt(source: Path, tmp_path: Path, damage: bytes | None) -> None:
    """Empty, foreign and cut libraries are noticed by their digest and built anew."""
    folder = tmp_path / "cache"
    build._library(source, folder)
    (target,) = folder.iterdir()
    if damage is None:
        damage = target.read_bytes()[:-4096]
    target.unlink()  # this process has it loaded: a new file, as another process would find it
    target.write_bytes(damage)
    assert build._library(source, folder).answer() == 42
    assert build._is_whole(target)


@needs_compiler
def test_builders_side_by_side_leave_one_whole_library(source: Path, tmp_path: Path) -> None:
    """Several builders at once all succeed, and no private folder stays behind."""
    folder = tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: build._library(source, folder).answer(), range(4)))
    assert answers == [42] * 4
    assert [path.suffix for path in folder.iterdir()] == [".so"]


@needs_compiler
def test_a_changed_source_is_another_library(source: Path, tmp_path: Path) -> None:
    """The key follows the text of the source."""
    folder = tmp_path / "cache"
    build._library(source, folder)
    source.write_text(_SOURCE.replace("42", "43"))
    assert build._library(source, folder).answer() == 43


@needs_compiler
def test_a_build_serves_machines_without_a_compiler(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image may drop its compiler once the kernels are built."""
    folder = tmp_path / "cache"
    build._library(source, folder)
    monkeypatch.setenv("PATH", "")
    assert build._library(source, folder).answer() == 42


def test_without_a_compiler_it_says_so_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No compiler and nothing built: None, the reason on demand, and one warning."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with caplog.at_level(logging.WARNING):
        assert build.load_library(str(source)) is None
        assert build.load_library(str(source)) is None
    assert "no C++ compiler" in build.why_missing(str(source))
    assert len(caplog.records) == 1


def test_a_cpu_without_the_needed_flags_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason lists the flags that the CPU lacks for the lowest level of the source."""
    source.write_text("// Levels: avx512vnni avx2\n" + _SOURCE)
    monkeypatch.setattr(levels, "_cpu_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(build._UnavailableError, match="lacks fma"):
        build._library(source, tmp_path)


@pytest.mark.parametrize(
    ("flags", "held_to", "chosen"),
    [
        ("avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni", "avx512vnni", "avx512"),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni", "avx2", "avx2"),
        ("avx2 fma", "avx512", "avx2"),
        ("avx2 fma", "plain", "plain"),
        ("sse2", "avx512vnni", "plain"),
    ],
)
def test_the_best_level_is_chosen(
    source: Path, monkeypatch: pytest.MonkeyPatch, flags: str, held_to: str, chosen: str
) -> None:
    """Of the source's levels, the best that the CPU has and CORPUSCORE_CPU allows."""
    source.write_text("// Levels: avx512 avx2 plain\n" + _SOURCE)
    monkeypatch.setattr(levels, "_cpu_flags", lambda: frozenset(flags.split()))
    monkeypatch.setenv("CORPUSCORE_CPU", held_to)
    assert build._choose_level(source) == chosen


@pytest.mark.parametrize("held_to", ["plain", "none"])
def test_a_source_above_the_level_asked_for_is_a_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_to: str
) -> None:
    """A kernel that has no such low level is missing, and the setting is named."""
    source.write_text("// Levels: avx2\n" + _SOURCE)
    monkeypatch.setattr(levels, "_cpu_flags", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setenv("CORPUSCORE_CPU", held_to)
    with pytest.raises(build._UnavailableError, match=f"CORPUSCORE_CPU={held_to}"):
        build._library(source, tmp_path)


def test_an_unknown_level_is_an_error(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value, rule and next step; nothing is chosen in its place."""
    monkeypatch.setenv("CORPUSCORE_CPU", "avx3")
    with pytest.raises(JobError, match=r"CORPUSCORE_CPU='avx3'.*avx512vnni, avx512, avxvnni, avx2, plain, none"):
        build._library(source, tmp_path)


@needs_compiler
def test_the_level_and_the_architecture_are_in_the_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that machines of several kinds share holds a library for each."""
    build._library(source, tmp_path / "cache")
    monkeypatch.setattr(platform, "machine", lambda: "another")
    build._library(source, tmp_path / "cache")
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("answer-plain-") for name in names)


@needs_compiler
def test_a_changed_header_is_another_library(source: Path, tmp_path: Path) -> None:
    """What the sources include is part of them."""
    source.write_text('#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n')
    for value in (1, 2):
        (tmp_path / "answer.h").write_text(f"#define ANSWER {value}\n")
        assert build._library(source, tmp_path / "cache").answer() == value


@needs_compiler
def test_a_whole_library_that_does_not_load_is_rebuilt(source: Path, tmp_path: Path) -> None:
    """Such as one that another system left in a shared home: its digest is right, and the loader refuses it."""
    folder = tmp_path / "cache"
    build._library(source, folder)
    (target,) = folder.iterdir()
    target.unlink()
    foreign = b"made for another system"
    target.write_bytes(foreign + hashlib.sha256(foreign).digest())
    assert build._library(source, folder).answer() == 42


@needs_compiler
@pytest.mark.parametrize("fits", [True, False])
def test_a_library_that_came_with_the_package_is_taken(source: Path, tmp_path: Path, fits: bool) -> None:
    """Nothing is compiled then; where it is not for this system, one is compiled as if it had not come."""
    build._library(source, tmp_path / "elsewhere")
    (made,) = (tmp_path / "elsewhere").iterdir()
    body = made.read_bytes()[: -build._DIGEST_BYTES] if fits else b"for another system"
    shipped = tmp_path / "prebuilt" / made.name
    shipped.parent.mkdir()
    shipped.write_bytes(body + hashlib.sha256(body).digest())
    assert build._library(source, tmp_path / "cache").answer() == 42
    assert (tmp_path / "cache").exists() is not fits


@needs_compiler
def test_all_levels_are_built_for_a_wheel(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this CPU has; a compiler that cannot is an error, since a wheel without them would say nothing."""
    source.write_text("// Levels: avx2 plain\n" + _SOURCE)
    monkeypatch.setattr(build, "_SOURCES", tmp_path)
    monkeypatch.setattr(levels, "_cpu_flags", frozenset)
    built = build.build_all(tmp_path / "prebuilt")
    assert {path.name.split("-")[1] for path in built} >= {"plain"}
    assert all(build._is_whole(path) for path in built)
    source.write_text("no C++ at all\n")
    with pytest.raises(RuntimeError, match="error"):
        build.build_all(tmp_path / "prebuilt")


@needs_compiler
def test_no_home_is_no_error(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user without HOME and without a name builds into a folder that only that user can write to."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = build.cache_folder()
    assert build._library(source, folder).answer() == 42
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_a_temporary_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it could leave a library there that would run as this user."""
    (tmp_path / f"corpuscore-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"corpuscore-{os.getuid()}").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(build._UnavailableError, match="XDG_CACHE_HOME"):
        build._own_temporary_folder()


def test_a_temporary_folder_that_cannot_be_made_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of its name, or a full or read-only disk: PyTorch is there still."""
    (tmp_path / f"corpuscore-{os.getuid()}").write_text("a file")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(build._UnavailableError, match="cannot be made .* XDG_CACHE_HOME"):
        build._own_temporary_folder()


def test_a_wheel_without_a_compiler_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command fails with one line, and no traceback."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["build", "--into", str(tmp_path / "prebuilt")])
    with pytest.raises(SystemExit) as left:
        build.main()
    assert left.value.code == 1
    assert "no C++ compiler" in capsys.readouterr().err


def test_it_says_which_library_runs(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The level is in the log."""
    if build._compiler() is None:
        pytest.skip("no C++ compiler on the PATH")
    with caplog.at_level(logging.INFO):
        build._library(source, tmp_path / "cache")
    assert "answer.cpp at level plain" in caplog.text


@needs_compiler
def test_a_source_that_does_not_compile_shows_the_compilers_words(source: Path, tmp_path: Path) -> None:
    """The compiler's own message is the reason."""
    source.write_text("no C++ at all\n")
    with pytest.raises(build._UnavailableError, match="error"):
        build._library(source, tmp_path)


@needs_compiler
def test_a_cache_that_cannot_be_written_is_a_reason(source: Path, tmp_path: Path) -> None:
    """A file where the folder should be is told with the setting that helps."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(build._UnavailableError, match="XDG_CACHE_HOME"):
        build._library(source, tmp_path / "cache")
