"""Building, caching and loading of native kernels."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpuscore.scoring.kernels import build

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
    key = build._key(source, frozenset())
    target = folder / f"answer-{key}-{build._short_hash(build._version(build._compiler() or '').encode())}.so"
    if damage is None:
        build._build(build._compiler(), source, frozenset(), target)
        damage = target.read_bytes()[:-4096]
    folder.mkdir(exist_ok=True)
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


def test_a_cpu_without_the_needed_flags_is_named(source: Path, tmp_path: Path) -> None:
    """The reason lists the flags that the CPU lacks."""
    source.write_text("// Needs: no_such_unit\n" + _SOURCE)
    with pytest.raises(build._UnavailableError, match="lacks no_such_unit"):
        build._library(source, tmp_path)


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
