"""What a command shows while it works: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from corpuscore.dispatch import Progress as DispatchProgress
from corpuscore.dispatch import ProgressCallback
from corpuscore.report import Report

_SECONDS_BETWEEN_LINES = 5.0


def say(line: str) -> None:
    """One line about a stage."""
    click.echo(line, err=True)


@contextmanager
def scoring_progress(partitions: int) -> Iterator[ProgressCallback]:
    """A callback that shows how far a dispatch of so many partitions is."""
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("score", total=partitions, rate="")
            yield lambda now: bar.update(task, completed=now.done, rate=_rate(now))
    else:
        yield _Lines()


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _rate(now: DispatchProgress) -> str:
    if now.waiting_seconds is not None:
        return f"no worker for {now.waiting_seconds:,.0f} s"
    rejected = f", {now.rejected:,} rejected" if now.rejected else ""
    return f"{now.rows:,} documents, {now.rows_per_second:,.0f}/s{rejected}"


class _Lines:
    """A line now and then, and one at the end."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, now: DispatchProgress) -> None:
        if now.done < now.total and time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = time.monotonic()
        eta = f", {now.eta_seconds:,.0f} s to go" if now.eta_seconds and now.waiting_seconds is None else ""
        say(f"score: {now.done:,} of {now.total:,} partitions, {_rate(now)}{eta}")


def show(report: Report) -> None:
    """The summary, on standard output."""
    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(report.render())
