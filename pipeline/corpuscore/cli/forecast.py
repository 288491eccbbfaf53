"""What `run --dry-run` prints, and the price that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import click
from rich.filesize import decimal

from corpuscore.estimate import Estimate
from corpuscore.words import counted, duration

_PRICE = re.compile(r"(?P<sign>[$€£¥]?)\s*(?P<amount>\d+(\.\d+)?)\s*(?P<code>[A-Za-z]{3}|[$€£¥])?")


class Price(NamedTuple):
    """An amount of money, and how it was written.

    Attributes:
        amount: In units of the currency.
        sign, code: Before and after the amount; empty where no currency was named.
    """

    amount: float
    sign: str = ""
    code: str = ""

    def __str__(self) -> str:
        shown = f"{self.amount:,.2f}" if self.amount >= 0.01 or not self.amount else "less than 0.01"
        return f"{self.sign}{shown}{f' {self.code}' if self.code else ''}"


def price_of(ctx: click.Context, param: click.Parameter, value: str | None) -> Price | None:
    """The price that an option has: `3.5`, `$3.50` or `3.50 EUR`."""
    if value is None:
        return None
    if not (found := _PRICE.fullmatch(value.strip())):
        raise click.BadParameter(f"{value!r} is no price such as 3.50, $3.50 or '3.50 EUR'", ctx, param)
    return Price(float(found["amount"]), found["sign"], (found["code"] or "").upper())


def forecast(made: Estimate, price: Price | None) -> Iterator[tuple[str, str]]:
    """Names and values, in reading order, of what a job would take.

    Args:
        made: The estimate.
        price: Of an hour of one worker.
    """
    about = "" if made.documents_exact else "about "
    done = made.partitions - made.pending
    objects, partitions = counted(made.objects, "object"), counted(made.partitions, "partition")
    yield "corpus", f"{objects}, {decimal(made.size_bytes)}, {partitions}"
    yield "documents", f"{about}{made.documents:,}"
    if done:
        rest = counted(made.documents - made.documents_to_score, "document")
        yield "scored already", f"{done:,} of {partitions}, {rest}"
    if not made.pending:
        yield "to score", "nothing"
        return
    yield "to score", f"{about}{counted(made.documents_to_score, 'document')}, about {made.tokens:,} tokens"
    rejects = f", {counted(made.sampled_rejects, 'reject')} among them" if made.sampled_rejects else ""
    yield "sample", counted(made.sampled_documents, "document") + rejects
    yield "speed", f"{made.documents_per_second:,.0f} documents a second a worker, model loaded"
    yield "workers", f"{made.workers:,}"
    yield "time", f"about {duration(made.seconds)}"
    if price is not None and made.cost is not None:
        each = f"{duration(made.worker_hours * 3600)} of workers at {price} an hour"
        yield "cost", f"about {price._replace(amount=made.cost)} ({each})"
