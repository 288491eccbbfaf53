"""A warehouse of each kind, and parts for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corpuscore.warehouse import Warehouse
from tests.parts import KEPT, LABELS, PartMaker
from tests.servers.warehouses import Target


@pytest.fixture
def maker(tmp_path: Path) -> PartMaker:
    """Writes parts into a folder of the test."""
    folder = tmp_path / "parts"
    folder.mkdir()
    return PartMaker(folder)


@pytest.fixture
def warehouse(target: Target) -> Iterator[Warehouse]:
    """An open, prepared warehouse."""
    with target.open() as opened_warehouse:
        opened_warehouse.prepare(LABELS, KEPT)
        yield opened_warehouse
