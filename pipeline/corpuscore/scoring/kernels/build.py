"""Build and load the C++ kernels beside this file: compiled once for this machine, then found in the user's cache.

    library = load_library("encoder.cpp")     # ctypes.CDLL, or None
    if library is None: why_missing("encoder.cpp")

A kernel is one file with a plain C interface (ctypes releases the GIL in its functions). Its first lines may hold
`// Needs: avx512f fma ...`: the CPU flags, as /proc/cpuinfo spells them, that it is compiled for. A machine without
them, or without a compiler, gets None and one announcement; the caller takes its plain path. The library depends on
the source, the flags and the compiler but not on the machine, so an image may be built on one and run on another:

    python -m corpuscore.scoring.kernels.build          # at install time; else at first use
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_LOG = logging.getLogger(__name__)
_SOURCES = Path(__file__).parent
_COMPILERS = ("g++", "clang++", "c++")
_OPTIONS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread")
_DIGEST_BYTES = hashlib.sha256().digest_size


class _UnavailableError(Exception):
    """This machine cannot have the kernel; the message says why. Never leaves this module."""


def load_library(name: str) -> ctypes.CDLL | None:
    """The compiled kernel, built now where the cache has none.

    Args:
        name: File name of the source, such as "encoder.cpp".

    Returns:
        The library, or None where this machine cannot have it; then a warning was logged once, see `why_missing`.
    """
    return _load(name)[0]


def why_missing(name: str) -> str:
    """Why `load_library` gave None, in words with the next step; empty where it gave a library."""
    return _load(name)[1]


def cache_folder() -> Path:
    """Where compiled kernels lie: corpuscore/native under XDG_CACHE_HOME, or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "corpuscore" / "native"


@functools.cache
def _load(name: str) -> tuple[ctypes.CDLL | None, str]:
    try:
        return _library(_SOURCES / name, cache_folder()), ""
    except _UnavailableError as why:
        _LOG.warning("No native kernel %s: %s. The plain path is used; it is several times slower.", name, why)
        return None, str(why)


def _library(source: Path, folder: Path) -> ctypes.CDLL:
    """Find or build the library of one source in one folder, and load it."""
    needs = _needs(source)
    missing = needs - _cpu_flags()
    if missing:
        raise _UnavailableError(f"this CPU lacks {' '.join(sorted(missing))}")
    compiler = _compiler()
    stem = f"{source.stem}-{_key(source, needs)}"
    target = folder / f"{stem}-{_short_hash(_version(compiler).encode())}.so" if compiler else _any_build(folder, stem)
    if not _is_whole(target):
        _build(compiler, source, needs, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise _UnavailableError(f"{target} does not load ({error})") from None


def _needs(source: Path) -> frozenset[str]:
    match = re.search(r"^// Needs:(.*)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()


def _compiler() -> str | None:
    return next((path for path in map(shutil.which, _COMPILERS) if path), None)


@functools.cache
def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout


def _key(source: Path, needs: frozenset[str]) -> str:
    return _short_hash(source.read_bytes() + "\0".join(_arguments(needs)).encode())


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _arguments(needs: frozenset[str]) -> list[str]:
    return [*_OPTIONS, *(f"-m{flag.replace('_', '')}" for flag in sorted(needs))]


def _any_build(folder: Path, stem: str) -> Path:
    """Without a compiler any compiler's build will do: images are often run without the tools that built them."""
    found = next((path for path in sorted(folder.glob(f"{stem}-*.so")) if _is_whole(path)), None)
    if found is None:
        raise _UnavailableError(
            f"no C++ compiler ({', '.join(_COMPILERS)}) on the PATH and nothing built in {folder}; install one, "
            "then run: python -m corpuscore.scoring.kernels.build"
        )
    return found


def _is_whole(path: Path) -> bool:
    """Whether a library is as it was written: its sha256 stands behind its last byte, where loaders do not look.

    A library that was cut short may load and then end the process with SIGBUS, so it is never tried.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-_DIGEST_BYTES]).digest() == data[-_DIGEST_BYTES:]


def _build(compiler: str | None, source: Path, needs: frozenset[str], target: Path) -> None:
    """Compile into a private folder, then appear under the final name at once: processes may build side by side."""
    if compiler is None:  # the build that was just found has gone
        raise _UnavailableError(f"{target} is not whole and no C++ compiler is on the PATH")
    started = time.perf_counter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as private:
            built = Path(private) / target.name
            _compile([compiler, *_arguments(needs), "-o", str(built), str(source)])
            with built.open("ab") as file:
                file.write(hashlib.sha256(built.read_bytes()).digest())
            built.replace(target)
    except OSError as error:
        raise _UnavailableError(f"{target.parent} cannot be written ({error}); set XDG_CACHE_HOME") from None
    _LOG.info("Compiled %s in %.0f s into %s", source.name, time.perf_counter() - started, target)


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise _UnavailableError(f"{command[0]} failed: {done.stderr.strip()[:2000]}")


def main() -> None:
    """Build every kernel of this folder; machines that cannot are told why, and that is no failure."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for source in sorted(_SOURCES.glob("*.cpp")):
        sys.stdout.write(f"{source.name}: {'ready' if load_library(source.name) else why_missing(source.name)}\n")


if __name__ == "__main__":
    main()
