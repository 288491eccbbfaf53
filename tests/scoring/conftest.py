"""Checkpoints that the scoring tests share: written once a session, never changed by a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpuscore.scoring.kernels import build, levels
from tests.scoring.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> folder of its tiny checkpoint."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = write_checkpoint(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return folder


@pytest.fixture(params=levels.usable())
def kernel_level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test once at each level of instruction sets that this CPU has."""
    monkeypatch.setenv("CORPUSCORE_CPU", request.param)
    build._load.cache_clear()
    yield request.param
    build._load.cache_clear()
