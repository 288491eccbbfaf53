from __future__ import annotations

import pytest

from corpuscore.cli.display import scoring_progress
from corpuscore.tally import Progress


def test_a_cluster_without_workers_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that waits says what for, and does not guess how long the rest takes."""
    monkeypatch.setattr("corpuscore.cli.display._SECONDS_BETWEEN_LINES", 0)
    with scoring_progress() as report:
        report(Progress(3, 100, 30, 0, 5.0, 60.0, waiting_seconds=75.0))
    assert capsys.readouterr().err == "score: 3 of 100 partitions, no worker for 75 s\n"
