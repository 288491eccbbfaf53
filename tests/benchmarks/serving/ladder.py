"""From one request after the other to a corpus on the bare engine: what each step is worth, on the same cores.

    python -m tests.benchmarks.serving.ladder --model M --texts reddit-10k.csv.gz --text-column body

Rows 1 to 4 are a plain service (serving/plain.py), 5 and 6 `corpuscore serve`, 7 and 8 the engine without a service.
Each round plays all rows, one after the other, each in processes of its own; a row's figure is the median of the
rounds. Clients, services and engines share the cores. Slow rows take fewer texts, as many as the table says.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import click

from corpuscore.benchmark import read_texts
from corpuscore.scoring import describe_scorer, load_scorer
from tests.benchmarks.serving.clients import Door, closed
from tests.benchmarks.serving.machine import described, hold
from tests.service.processes import serving

#: Clients of the rows that have several, each with one request of one text under way.
CLIENTS = 256


@dataclass(frozen=True, slots=True)
class Step:
    """A row.

    Attributes:
        name: What is new in it.
        texts: How many it takes.
        rate: Measures documents a second.
    """

    name: str
    texts: int
    rate: Callable[[list[str]], float]


def steps(model: str, precision: str, fast: int) -> list[Step]:
    """All rows, slowest first.

    Args:
        model: Of all rows but the last.
        precision: Of the sixth and seventh row.
        fast: Texts of the rows that are not slow.
    """
    labels = len(describe_scorer(model, device="cpu").labels)
    slow, middle = min(fast, 100), min(fast, 600)

    def plain(batching: str, clients: int) -> Callable[[list[str]], float]:
        def rate(texts: list[str]) -> float:
            with _plain(model, batching, labels) as door:
                closed(door, texts[:16], clients=4, each=1)
                return closed(door, texts, clients=clients, each=1).rate

        return rate

    def served(precision: str) -> Callable[[list[str]], float]:
        def rate(texts: list[str]) -> float:
            with serving("--model", model, "--device", "cpu", "--precision", precision) as made:
                door = Door(made.port, made.name, labels)
                closed(door, texts[:64], clients=16, each=1)
                return closed(door, texts, clients=CLIENTS, each=1).rate

        return rate

    def bare(model: str, precision: str) -> Callable[[list[str]], float]:
        def rate(texts: list[str]) -> float:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.apply(bare_rate, (model, precision, texts))

        return rate

    return [
        Step("one request after the other, a text each", slow, plain("none", 1)),
        Step(f"{CLIENTS} clients at once", slow, plain("none", CLIENTS)),
        Step("padded batches at the server, as requests come", middle, plain("arrival", CLIENTS)),
        Step("texts of like length together", middle, plain("length", CLIENTS)),
        Step("unpadded: `corpuscore serve`, fp32", fast, served("fp32")),
        Step(f"`corpuscore serve`, {precision}", fast, served(precision)),
        Step(f"the engine without a service, {precision}", fast, bare(model, precision)),
        Step("the bundled SRU++ student, without a service", fast, bare("bundled", "auto")),
    ]


def bare_rate(model: str, precision: str, texts: Sequence[str]) -> float:
    """Documents a second of a scorer that is loaded and warm."""
    scorer = load_scorer(model, device="cpu", precision=precision)
    scorer.score(texts[:64])
    start = time.perf_counter()
    scorer.score(texts)
    return len(texts) / (time.perf_counter() - start)


@contextmanager
def _plain(model: str, batching: str, labels: int) -> Iterator[Door]:
    command = [sys.executable, "-m", "tests.benchmarks.serving.plain", "--model", model, "--batching", batching]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield Door(int(process.stdout.readline()), "plain", labels)
        finally:
            process.kill()


@click.command()
@click.option("--model", required=True, help="A checkpoint's folder.")
@click.option("--texts", "uri", required=True)
@click.option("--text-column", default="text", show_default=True)
@click.option("--limit", default=2000, show_default=True, help="Texts of the fast rows.")
@click.option("--precision", default="int8", show_default=True, help="After fp32; bf16 where the CPU has it.")
@click.option("--cores", default=2, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    model: str, uri: str, text_column: str, limit: int, precision: str, cores: int, rounds: int, as_json: bool
) -> None:
    """Print a table."""
    held = hold(cores)
    texts = read_texts(uri, text_column, limit)
    rows = steps(model, precision, len(texts))
    rates: list[list[float]] = [[] for _ in rows]
    for number in range(rounds):
        for row, seen in zip(rows, rates, strict=True):
            seen.append(row.rate(texts[: row.texts]))
            print(f"round {number + 1}: {row.name}: {seen[-1]:,.1f}", file=sys.stderr, flush=True)
    figures = [median(seen) for seen in rates]
    if as_json:
        found = [{"step": row.name, "texts": row.texts, "rates": seen} for row, seen in zip(rows, rates, strict=True)]
        print(json.dumps({"machine": described(held), "rows": found}))
        return
    print(f"{described(held)}; {rounds} rounds\n")
    print("| | step | texts | documents/s | times the first | times the one before |")
    print("|--:|---|--:|--:|--:|--:|")
    for at, (row, rate) in enumerate(zip(rows, figures, strict=True)):
        first, before = rate / figures[0], rate / figures[max(at - 1, 0)]
        print(f"| {at + 1} | {row.name} | {row.texts:,} | {rate:,.1f} | {first:,.1f} | {before:,.2f} |")


if __name__ == "__main__":
    main()
