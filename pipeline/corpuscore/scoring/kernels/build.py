"""Build and load the C++ kernels beside this file: compiled once for this machine, then found in the user's cache.

    library = load_library("encoder.cpp")     # ctypes.CDLL, or None
    if library is None: why_missing("encoder.cpp")

A kernel is one file with a plain C interface (ctypes releases the GIL in its functions). A line `// Levels: avx512
avx2 plain` names the instruction sets that it is written for, see levels.py; it is compiled for the best of them that
this CPU has and CORPUSCORE_CPU allows, into a library of its own. A machine without any of them, or without a compiler,
gets None and one announcement; the caller takes its plain path. The library depends on source, level, architecture and
compiler but not on the machine, so an image may be built on one and run on another:

    python -m corpuscore.scoring.kernels.build                  # at install time; else at first use
    python -m corpuscore.scoring.kernels.build --into FOLDER    # at every level, for a wheel: into kernels/prebuilt
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corpuscore.files import placed
from corpuscore.scoring.kernels import levels

_LOG = logging.getLogger(__name__)
_SOURCES = Path(__file__).parent
_COMPILERS = ("g++", "clang++", "c++")
#: Multiply-adds are the source's to choose: the compiler's own would make two levels' results differ.
_ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_OPTIONS = ("-std=c++17", "-O3", *_ARITHMETIC, "-shared", "-fPIC", "-pthread")
_DIGEST_BYTES = hashlib.sha256().digest_size

#: Beside the sources: libraries that came with a wheel, which are taken before anything is compiled.
_PREBUILT = "prebuilt"

#: Raised when a kernel's results change, however little: scores of another revision are other scores.
KERNEL_REVISION = 2


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


def level(name: str) -> str:
    """The level at which a kernel runs here.

    Args:
        name: File name of the source.

    Returns:
        Its name; empty where the kernel is missing.
    """
    return _choose_level(_SOURCES / name) if load_library(name) else ""


def arithmetic(name: str) -> str:
    """Tells apart what gives other bits: levels with multiply-adds agree in all, the plain one rounds once more.

    Args:
        name: File name of the source.

    Returns:
        Kind and revision, such as fma.2; empty where the kernel is missing.
    """
    chosen = level(name)
    return f"{'plain' if chosen == 'plain' else 'fma'}.{KERNEL_REVISION}" if chosen else ""


def cache_folder() -> Path:
    """Where compiled kernels lie: corpuscore/native under XDG_CACHE_HOME or ~/.cache; without a home, a folder of
    this user's among the temporary files.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "corpuscore" / "native"
    except RuntimeError:  # no HOME, and the user has no entry in the password database
        return _own_temporary_folder()


def _own_temporary_folder() -> Path:
    """A folder that nobody else can write to: a library from elsewhere would run as this user.

    Raises:
        _UnavailableError: Somebody else has made it, or it cannot be made.
    """
    folder = Path(tempfile.gettempdir(), f"corpuscore-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _UnavailableError(f"{folder} cannot be made ({error}); set XDG_CACHE_HOME") from None
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise _UnavailableError(f"{folder} is not this user's alone; set XDG_CACHE_HOME")
    return folder / "native"


@functools.cache
def _load(name: str) -> tuple[ctypes.CDLL | None, str]:
    try:
        return _library(_SOURCES / name, cache_folder()), ""
    except _UnavailableError as why:
        _LOG.warning("No native kernel %s: %s. PyTorch is used; it is several times slower.", name, why)
        return None, str(why)


def _library(source: Path, folder: Path) -> ctypes.CDLL:
    """Find or build the library of one source, in one folder where it did not come prebuilt, and load it."""
    chosen = _choose_level(source)
    stem = f"{source.stem}-{chosen}-{_key(source, chosen)}"
    library = _shipped(source.parent / _PREBUILT, stem) or _own(source, folder, chosen, stem)
    _LOG.info("Native kernel %s at level %s", source.name, chosen)
    return library


def _shipped(folder: Path, stem: str) -> ctypes.CDLL | None:
    """The library that came with the package, if one did and it is for this system."""
    found = _find_whole(folder, stem)
    try:
        return ctypes.CDLL(str(found)) if found else None
    except OSError:
        return None


def _own(source: Path, folder: Path, chosen: str, stem: str) -> ctypes.CDLL:
    compiler = _compiler()
    target = folder / f"{stem}-{_short_hash(_version(compiler).encode())}.so" if compiler else _any_build(folder, stem)
    if not _is_whole(target):
        _build(compiler, source, chosen, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError:  # whole, and yet not for this system: another C library, say
        return _rebuilt(compiler, source, chosen, target)


def _rebuilt(compiler: str | None, source: Path, chosen: str, target: Path) -> ctypes.CDLL:
    _build(compiler, source, chosen, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise _UnavailableError(f"{target} does not load ({error})") from None


def _choose_level(source: Path) -> str:
    """The best level that the source is written for, the CPU has, and CORPUSCORE_CPU allows."""
    written = _written_for(source)
    able = next((name for name in levels.usable() if name in written), None)
    if able:
        return able
    if missing := levels.missing_flags(written[-1]):
        raise _UnavailableError(f"this CPU lacks {' '.join(missing)}")
    raise _UnavailableError(f"{levels.HELD_TO}={os.environ[levels.HELD_TO]} allows none of {', '.join(written)}")


def _written_for(source: Path) -> list[str]:
    match = re.search(r"^// Levels:(.*)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1).split() if match else ["plain"]


def _compiler() -> str | None:
    return next((path for path in map(shutil.which, _COMPILERS) if path), None)


@functools.cache
def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout


def _key(source: Path, chosen: str) -> str:
    headers = b"".join(path.read_bytes() for path in sorted(source.parent.glob("*.h")))
    return _short_hash(source.read_bytes() + headers + "\0".join([platform.machine(), *_arguments(chosen)]).encode())


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _arguments(chosen: str) -> list[str]:
    return [*_OPTIONS, *(f"-m{flag.replace('_', '')}" for flag in levels.LEVELS[chosen])]


def _any_build(folder: Path, stem: str) -> Path:
    """Without a compiler any compiler's build will do: images are often run without the tools that built them."""
    found = _find_whole(folder, stem)
    if found is None:
        raise _UnavailableError(
            f"no C++ compiler ({', '.join(_COMPILERS)}) on the PATH and nothing built in {folder}; install one, "
            "then run: python -m corpuscore.scoring.kernels.build"
        )
    return found


def _find_whole(folder: Path, stem: str) -> Path | None:
    return next((path for path in sorted(folder.glob(f"{stem}-*.so")) if _is_whole(path)), None)


def _is_whole(path: Path) -> bool:
    """Whether a library is as it was written: its sha256 stands behind its last byte, where loaders do not look.

    A library that was cut short may load and then end the process with SIGBUS, so it is never tried.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-_DIGEST_BYTES]).digest() == data[-_DIGEST_BYTES:]


def _build(compiler: str | None, source: Path, chosen: str, target: Path) -> None:
    """Compile beside the target, to appear under its name at once: processes may build side by side."""
    if compiler is None:
        raise _UnavailableError(f"{target} does not load or is not whole, and no C++ compiler is on the PATH")
    started = time.perf_counter()
    try:
        with placed(target) as draft:
            _compile([compiler, *_arguments(chosen), "-o", str(draft), str(source)])
            with draft.open("ab") as file:
                file.write(hashlib.sha256(draft.read_bytes()).digest())
    except OSError as error:
        raise _UnavailableError(f"{target.parent} cannot be written ({error}); set XDG_CACHE_HOME") from None
    _LOG.info("Compiled %s in %.0f s into %s", source.name, time.perf_counter() - started, target)


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise _UnavailableError(f"{command[0]} failed: {done.stderr.strip()[:2000]}")


def build_all(folder: Path) -> list[Path]:
    """Compile every kernel for every level that it is written for, whatever this CPU has; those of its architecture.

    Args:
        folder: Where the libraries go, `prebuilt` beside the sources for a wheel; it is made.

    Raises:
        RuntimeError: There is no compiler, or it failed.
    """
    compiler = _compiler()
    if compiler is None:
        raise RuntimeError(f"no C++ compiler ({', '.join(_COMPILERS)}) on the PATH; install one")
    wanted = levels.LEVELS if platform.machine() == "x86_64" else ("plain",)
    built = []
    try:
        for source in sorted(_SOURCES.glob("*.cpp")):
            for chosen in (name for name in _written_for(source) if name in wanted):
                stem = f"{source.stem}-{chosen}-{_key(source, chosen)}"
                built.append(folder / f"{stem}-{_short_hash(_version(compiler).encode())}.so")
                _build(compiler, source, chosen, built[-1])
    except _UnavailableError as error:
        raise RuntimeError(str(error)) from error
    return built


def main() -> None:
    """Build every kernel of this folder; a machine that cannot is told why, which is a failure with --into alone."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="build all levels into this folder, for a wheel")
    into = parser.parse_args().into
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if into:
        try:
            build_all(into)
        except RuntimeError as error:
            parser.exit(1, f"error: {error}\n")
        return
    for source in sorted(_SOURCES.glob("*.cpp")):
        ready = level(source.name)
        sys.stdout.write(f"{source.name}: {f'ready, {ready}' if ready else why_missing(source.name)}\n")


if __name__ == "__main__":
    main()
