"""How much of the scorer's speed is left from corpus to receipts:

    python -m tests.benchmarks.receipts --model M --texts reddit-10k.csv.gz --text-column body --id-column id

In turn, round by round: the bare scorer (a process of its own, model loaded and warm, `Scorer.score` over all texts),
and `corpuscore run` on its local cluster, with the same cores. Of the run, two rates: that of its scoring, from the
start of the workers to the last receipt, as it prints it; and that of the whole command, loaded and reported.
With --documents the texts are repeated, each with a number in front, as a folder of Parquet.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.benchmark import read_texts
from corpuscore.scoring import load_scorer

ROWS = 250_000


def write_corpus(folder: Path, texts: list[str]) -> None:
    """Parquet files of so many rows each, with columns id and text."""
    folder.mkdir()
    for start in range(0, len(texts), ROWS):
        some = texts[start : start + ROWS]
        ids = pa.array([str(start + at) for at in range(len(some))])
        pq.write_table(pa.table({"id": ids, "text": some}), folder / f"{start:09}.parquet", row_group_size=10_000)


def bare_rate(model: str, texts: list[str], device: str, precision: str) -> float:
    """Documents a second of a scorer that is loaded and warm, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_bare, (model, texts, device, precision))


def _bare(model: str, texts: list[str], device: str, precision: str) -> float:
    scorer = load_scorer(model, device=device, precision=precision)
    scorer.score(texts[: max(1, len(texts) // 20)])  # a GPU compiles and captures on the way
    start = time.perf_counter()
    scorer.score(texts)
    return len(texts) / (time.perf_counter() - start)


def run_rates(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Documents a second of `corpuscore run`: while it scores, and as a whole."""
    places = ["--work", str(folder / "work"), "--warehouse", f"duckdb:///{folder}/scores.duckdb", "--json"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "corpuscore", "run", *arguments, *places], check=True, stdout=subprocess.PIPE
    )
    seconds = time.perf_counter() - start
    report = json.loads(done.stdout)
    return report["rows_per_second"], report["rows"] / seconds


@click.command()
@click.option("--model", default="bundled", show_default=True)
@click.option("--texts", "uri", required=True, help="File whose texts are scored.")
@click.option("--text-column", default="text", show_default=True)
@click.option("--id-column", help="Of the file, where it has one.")
@click.option("--documents", type=click.IntRange(min=1), help="Repeat the texts to so many, as Parquet.")
@click.option("--precision", default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(
    model: str,
    uri: str,
    text_column: str,
    id_column: str | None,
    documents: int | None,
    precision: str,
    device: str,
    rounds: int,
) -> None:
    """Print a table."""
    texts = read_texts(uri, text_column, None)
    options = ["--model", model, "--precision", precision, "--device", device]
    with tempfile.TemporaryDirectory() as name:
        corpus = ["--corpus", str(Path(uri).resolve()), "--text-column", text_column]
        corpus += ["--id-column", id_column] if id_column else []
        if documents:
            texts = [f"{number} {texts[number % len(texts)]}" for number in range(documents)]
            write_corpus(Path(name, "corpus"), texts)
            corpus = ["--corpus", f"{name}/corpus/*.parquet", "--id-column", "id"]
        print(f"{len(texts)} documents, {precision}, {os.cpu_count()} cores\n")
        print("| round | bare, documents/s | run while scoring | of the bare | whole command | of the bare |")
        print("|---|---:|---:|---:|---:|---:|")
        rows = []
        for at in range(rounds):
            bare = bare_rate(model, texts, device, precision)
            with tempfile.TemporaryDirectory(dir=name) as folder:
                scoring, whole = run_rates([*corpus, *options], Path(folder))
            rows.append((bare, scoring, scoring / bare, whole, whole / bare))
            print(_line(str(at + 1), rows[-1]), flush=True)
        print(_line("median", tuple(median(column) for column in zip(*rows, strict=True))))


def _line(name: str, row: tuple[float, ...]) -> str:
    bare, scoring, scoring_share, whole, whole_share = row
    return f"| {name} | {bare:,.0f} | {scoring:,.0f} | {scoring_share:.0%} | {whole:,.0f} | {whole_share:.0%} |"


if __name__ == "__main__":
    main()
