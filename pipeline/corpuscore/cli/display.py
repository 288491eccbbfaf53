"""What a command shows while it works: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from corpuscore.progress import Lines, figures, remaining
from corpuscore.report import Report
from corpuscore.tally import ProgressCallback

_SECONDS_BETWEEN_LINES = 5.0


def say(line: str) -> None:
    """One line about a stage."""
    click.echo(line, err=True)


@contextmanager
def progress(name: str, what: str, total: int | None = None) -> Iterator[Bar | Lines]:
    """What takes (done, total, note) and shows it, and lines that stay.

    Args:
        name: Of the stage.
        what: What is counted, such as `partitions`.
        total: How many there are, where that is known before the first call.
    """
    if not sys.stderr.isatty():
        yield Lines(lambda line: say(f"{name}: {line}"), what, _SECONDS_BETWEEN_LINES)
        return
    counted = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns = (*counted, TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as bar:
        yield Bar(bar, bar.add_task(name, total=total, note=""))


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar on a terminal, called as Lines are; it finds for itself how long the rest takes."""

    bar: Progress
    task: TaskID

    def __call__(self, done: int, total: int, note: str, seconds_to_go: float | None = None) -> None:
        """Move on."""
        self.bar.update(self.task, completed=done, total=total, note=note)

    def line(self, text: str) -> None:
        """A line above the bar."""
        self.bar.console.print(text)


@contextmanager
def scoring_progress(partitions: int) -> Iterator[ProgressCallback]:
    """A callback that shows how far a dispatch of so many partitions is."""
    with progress("score", "partitions", partitions) as tell:
        yield lambda now: tell(now.done, now.total, figures(now), remaining(now))


def show(report: Report) -> None:
    """The summary, on standard output."""
    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(report.render())
