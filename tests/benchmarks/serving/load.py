"""`corpuscore serve` under load, beside the bare engine in the same run and on the same cores:

    python -m tests.benchmarks.serving.load --model M --texts reddit-10k.csv.gz --text-column body

Round by round: the bare engine over all texts, a process of its own; then a service, and 64 clients in another process,
each with one request under way. Then requests by the clock, at half of that rate, and what they waited, beside the time
of one full pass: the longest that a request meets under way.
"""

from __future__ import annotations

import multiprocessing
import re
import urllib.request
from dataclasses import dataclass
from statistics import median

import click

from corpuscore.benchmark import read_texts
from corpuscore.scoring import describe_scorer
from tests.benchmarks.serving.clients import Door, Driven, closed, paced
from tests.benchmarks.serving.ladder import bare_rate
from tests.benchmarks.serving.machine import described, hold
from tests.service.processes import serving

CLIENTS = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """One round with so many texts a request.

    Attributes:
        bare: Documents a second of the engine by itself.
        full, half: What clients saw.
        pass_seconds: Of a full pass, on average.
    """

    bare: float
    full: Driven
    half: Driven
    pass_seconds: float


def one_round(model: str, precision: str, texts: list[str], each: int) -> Seen:
    """The engine by itself, then the service at full and at half load."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        bare = pool.apply(bare_rate, (model, precision, texts))
    labels = len(describe_scorer(model, device="cpu").labels)
    with serving("--model", model, "--device", "cpu", "--precision", precision) as made:
        door = Door(made.port, made.name, labels)
        closed(door, texts[:256], clients=CLIENTS, each=each)
        before = _passes(made.http_port)
        full = closed(door, texts, clients=CLIENTS, each=each)
        count, seconds = (now - then for now, then in zip(_passes(made.http_port), before, strict=True))
        half = paced(door, texts, rate=full.rate / 2, each=each)
    return Seen(bare, full, half, seconds / count)


def _passes(port: int) -> tuple[float, float]:
    """Passes through the model, and their seconds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    found = {
        name: float(value) for name, value in re.findall(r"^corpuscore_pass_seconds_(count|sum) (\S+)$", page, re.M)
    }
    return found["count"], found["sum"]


@click.command()
@click.option("--model", required=True)
@click.option("--texts", "uri", required=True)
@click.option("--text-column", default="text", show_default=True)
@click.option("--limit", default=2000, show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option(
    "--each", "sizes", multiple=True, type=int, default=(1, 8, 32), show_default=True, help="Texts a request."
)
@click.option("--cores", default=2, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(
    model: str, uri: str, text_column: str, limit: int, precision: str, sizes: tuple[int, ...], cores: int, rounds: int
) -> None:
    """Print a table: medians of the rounds; documents a second, and latencies in milliseconds at full and half load."""
    held = hold(cores)
    texts = read_texts(uri, text_column, limit)
    print(f"{described(held)}; {len(texts)} texts, {precision}, {CLIENTS} clients, {rounds} rounds\n")
    columns = [
        "texts a request",
        "bare",
        "served",
        "of the bare",
        "p50",
        "p99",
        "half: p50",
        "p99",
        "a pass",
        "p99 / pass",
    ]
    print(f"| {' | '.join(columns)} |\n|{'--:|' * len(columns)}")
    for each in sizes:
        seen = [one_round(model, precision, texts, each) for _ in range(rounds)]
        passes = [item.pass_seconds for item in seen]
        late = [item.half.percentile(99) for item in seen]
        figures = [
            f"{each}",
            f"{median(item.bare for item in seen):,.0f}",
            f"{median(item.full.rate for item in seen):,.0f}",
            f"{median(item.full.rate / item.bare for item in seen):.0%}",
            *(f"{1000 * median(item.full.percentile(share) for item in seen):,.0f}" for share in (50, 99)),
            f"{1000 * median(item.half.percentile(50) for item in seen):,.0f}",
            f"{1000 * median(late):,.0f}",
            f"{1000 * median(passes):,.0f}",
            f"{median(wait / one for wait, one in zip(late, passes, strict=True)):.1f}",
        ]
        print(f"| {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
