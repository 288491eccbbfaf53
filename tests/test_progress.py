from __future__ import annotations

import io

import pytest

from corpuscore.cli import display
from corpuscore.orchestration.trigger import progress_logger
from corpuscore.tally import Progress


def test_a_command_and_a_task_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of a command without a terminal are those of an Airflow task's log, with the stage before them."""
    last = Progress(100, 100, 1_000, 1, 50.0, 0.0)
    logged: list[str] = []
    progress_logger(logged.append)(last)
    with display.scoring_progress() as report:
        report(last)
    assert capsys.readouterr().err == "".join(f"score: {line}\n" for line in logged)
    assert logged == ["100 of 100 partitions, 1,000 documents, 1 rejected, 50 a second"]


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """None is written before its time, but the last always is; what else there is to say does not wait."""
    with display.progress("train", "steps") as tell:
        tell(1, 3, "loss 0.5")
        tell.line("epoch 1/2")
        tell(3, 3, "loss 0.4")
        tell(3, 3, "loss 0.4")  # the end is told once
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
    with display.progress("train", "steps") as tell:
        tell(1, 3, "loss 0.5", 75.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: epoch 1/2",
        "train: 3 of 3 steps, loss 0.4",
        "train: 1 of 3 steps, loss 0.5, about 75 s to go",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what the lines would, and lines that stay go above it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    with display.progress("train", "steps") as tell:
        tell.line("epoch 1/2")
        tell(2, 3, "loss 0.4")
    shown = terminal.getvalue()
    assert "epoch 1/2\n" in shown
    assert "2/3 loss 0.4" in shown
