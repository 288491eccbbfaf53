"""The package as users get it: a wheel, installed away from the source tree, and its main job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pytest

from infra.stack.home import CHECKOUT, SAMPLE

SOURCE = CHECKOUT / "pipeline" / "corpuscore"
#: Of the sample corpus, see its README.
DOCUMENTS, REJECTS = 709, 3


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, since a build leaves files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    shutil.copytree(SOURCE, copy / "pipeline" / "corpuscore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that imports the wheel's package, with this environment's for what it needs."""
    site = tmp_path_factory.mktemp("site")
    _pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }  # not the tree's
    return inherited | {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


def _pip(*arguments: str) -> None:
    _python(["-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], cwd=CHECKOUT)


def _python(arguments: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """Kernels' sources, the bundled model, pages, DAGs and the types' marker are in it, and nothing else is."""
    files = {f"corpuscore/orchestration/dags/{path.name}" for path in (CHECKOUT / "dags").glob("*.py")} | {
        f"corpuscore/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    """Its licence, and only the Python that the tests run on."""
    archive = ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    said = HeaderParser().parsestr(archive.read(name).decode())
    assert (said["Name"], said["License-Expression"], said["License-File"]) == ("corpuscore", "Apache-2.0", "LICENSE")
    versions = [
        kind for kind in said.get_all("Classifier", []) if kind.startswith("Programming Language :: Python :: 3.")
    ]
    assert versions == [f"Programming Language :: Python :: {sys.version_info.major}.{sys.version_info.minor}"]


def test_the_wheel_brings_its_kernels(installed: dict[str, str], tmp_path: Path) -> None:
    """Each kernel is found in the wheel; it is compiled from there, or this machine cannot have it and is told why."""
    said = _python(["-m", "corpuscore.scoring.kernels.build"], cwd=tmp_path, env=installed).splitlines()
    assert {line.partition(":")[0] for line in said} == {path.name for path in SOURCE.glob("scoring/kernels/*.cpp")}
    assert not [line for line in said if " failed: " in line]


@pytest.mark.timeout(600)
def test_the_wheel_does_its_main_job(installed: dict[str, str], tmp_path: Path) -> None:
    """The sample corpus goes into a warehouse from outside the source tree, every document of it once."""
    asked = "import corpuscore, sys; sys.stdout.write(corpuscore.__file__)"
    package = Path(_python(["-c", asked], cwd=tmp_path, env=installed)).resolve()
    assert package.is_relative_to(installed["PYTHONPATH"])
    assert not package.is_relative_to(CHECKOUT)

    shutil.copytree(SAMPLE, tmp_path / "corpus")
    job = [
        *("--corpus", str(tmp_path / "corpus"), "--id-column", "id", "--model", "bundled", "--device", "cpu"),
        *("--work", str(tmp_path / "work"), "--warehouse", f"duckdb:///{tmp_path}/scores.duckdb"),
    ]
    said = json.loads(_python(["-m", "corpuscore", "run", "--json", *job], cwd=tmp_path, env=installed))
    assert (said["rows"], said["rows_in_table"]) == (DOCUMENTS, DOCUMENTS - REJECTS)
    with duckdb.connect(str(tmp_path / "scores.duckdb"), read_only=True) as warehouse:
        counts = "SELECT count(*), count(DISTINCT document_id) FROM "
        assert warehouse.execute(f"{counts} scores").fetchall() == [(DOCUMENTS - REJECTS, DOCUMENTS - REJECTS)]
        assert warehouse.execute(f"{counts} scores_rejects").fetchall() == [(REJECTS, REJECTS)]
