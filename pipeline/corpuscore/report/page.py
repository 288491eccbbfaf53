"""The page of a report: one HTML file that stands alone, on a phone and on a desktop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from corpuscore.records import TOKEN_EDGES
from corpuscore.report.drawing import bar, skyline, spark
from corpuscore.report.summary import Report
from corpuscore.words import counted, duration

#: Labels that are shown at once; the others are folded.
_LABELS = 8

#: A mean that moved by less than this is not called a drift.
_DRIFT = 0.01

#: The steps of scoring, in the order of the work.
_STEPS = {
    "read": "read the corpus",
    "tokenize": "tokenize, beyond what ran ahead",
    "pack": "pack into passes",
    "forward": "the model",
    "wait": "wait for the service",
    "write": "write parts",
}


class LabelLine(NamedTuple):
    """A row of the labels' table.

    Attributes:
        name, share, mean: Share of documents in which it is the strongest, and its mean probability.
        scale: Its share as part of the largest one.
        before, change: Mean in the run before, and how far it moved; None where there is none.
        drifted: Whether that is worth a look.
        scores: A picture of the documents by score.
    """

    name: str
    share: float
    mean: float
    scale: float
    before: float | None
    change: float | None
    drifted: bool
    scores: Markup


def page_of(report: Report) -> str:
    """The page of a report, as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    environment.filters["bar"] = lambda share: Markup(bar(share))  # noqa: S704  # of numbers alone
    template = environment.from_string(files("corpuscore.report").joinpath("page.html").read_text("utf-8"))
    labels = list(_labels(report))
    return template.render(
        report=report,
        headline=_headline(report),
        when=_when(report),
        facts=_facts(report),
        steps=_steps(report),
        labels=labels[:_LABELS],
        more_labels=labels[_LABELS:],
        compared=bool(report.previous_means),
        binned=bool(report.score_bins),
        lengths=_lengths(report),
        skyline=Markup(skyline(report.timeline, "documents a second over the time of scoring")),  # noqa: S704
        most=max(report.timeline, default=0.0),
        more_objects=report.objects_total - len(report.objects),
        more_rejects=report.rejected - len(report.rejects),
    )


def _headline(report: Report) -> str:
    if report.nothing_new:
        return f"Nothing to do: {counted(report.rows_in_table, 'document')} were there already"
    return f"{counted(report.scored, 'document')} scored"


def _when(report: Report) -> str:
    if not (report.started and report.ended):
        return ""
    began, ended = datetime.fromisoformat(report.started), datetime.fromisoformat(report.ended)
    took = duration((ended - began).total_seconds())
    return f"{began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC, {took}"


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """What does not belong to another part of the page."""
    yield from ((name, value) for name, value in report.facts() if name != "report")
    if report.asked_by:
        yield "asked for by", report.asked_by
    if report.worker_seconds:
        yield "workers", f"{report.workers:,}, {duration(report.worker_seconds)} of partitions together"
    if report.backend:
        arithmetic = f", {report.arithmetic}" if report.arithmetic else ""
        yield "path", f"{report.backend}, {report.precision}{arithmetic}"
    if report.options:
        yield "options", ", ".join(f"{name} {_plain(value)}" for name, value in report.options.items())
    if report.versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield "run", report.run


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _steps(report: Report) -> list[tuple[str, float, float]]:
    """(step, seconds over all workers, share of the longest one's)."""
    longest = max(report.busy.values(), default=0.0)
    names = [*(name for name in _STEPS if name in report.busy), *(name for name in report.busy if name not in _STEPS)]
    return [(_STEPS.get(name, name), report.busy[name], report.busy[name] / longest) for name in names if longest]


def _labels(report: Report) -> Iterator[LabelLine]:
    top = report.top_labels()
    largest = top[0][1] if top else 0.0
    for name, share, mean in top:
        before = report.previous_means.get(name)
        change = None if before is None else mean - before
        drifted = change is not None and abs(change) >= _DRIFT
        scores = spark(report.score_bins.get(name, ()), "documents by score, from 0 to 1")
        drawn = Markup(scores)  # noqa: S704  # of numbers alone
        yield LabelLine(name, share, mean, share / (largest or 1.0), before, change, drifted, drawn)


def _lengths(report: Report) -> list[tuple[str, int, float]]:
    """(tokens, documents, share of the most), without what is empty at both ends."""
    if not any(report.token_bins):
        return []
    names = [f"{low + 1:,} to {high:,}" for low, high in pairwise((0, *TOKEN_EDGES))]
    lines = list(zip((*names, f"more than {TOKEN_EDGES[-1]:,}"), report.token_bins, strict=True))
    filled = [at for at, (_, count) in enumerate(lines) if count]
    most = max(report.token_bins)
    return [(name, count, count / most) for name, count in lines[filled[0] : filled[-1] + 1]]
