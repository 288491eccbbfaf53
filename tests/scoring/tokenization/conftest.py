"""A cache of answers that is each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpuscore.scoring.tokenization import asking, source


@pytest.fixture(autouse=True)
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the answers; no process has asked for any yet."""
    source._find.cache_clear()
    monkeypatch.setattr(asking, "cache_folder", lambda: tmp_path / "cache" / "native")
    return tmp_path / "cache" / "tokenizers"
