"""`corpuscore bench`: how fast, against whom, and how exact."""

from __future__ import annotations

import os

import click
import orjson

from corpuscore.errors import ModelError


@click.command()
@click.option("--model", default="bundled", show_default=True, help="bundled, a folder or a hub name.")
@click.option("--texts", "uri", required=True, metavar="FILE", help="CSV, Parquet, JSON Lines or text, plain or .gz.")
@click.option("--text-column", default="text", show_default=True, help="Column or JSON key that holds the text.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many texts, from the beginning.")
@click.option("--against", default="", metavar="NAMES", help="Alternatives, separated by commas, or `all`.")
@click.option("--against-model", metavar="MODEL", help="Model of the alternatives, where it is another one.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longer texts are cut.")
@click.option("--threads", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True, help="CPU threads.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each, in turn.")
@click.option(
    "--precision", default="auto", show_default=True, help="Of this engine: auto, fp32, bf16, fp16, int8, fp8."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def bench(
    model: str,
    uri: str,
    text_column: str,
    limit: int | None,
    against: str,
    against_model: str | None,
    max_tokens: int,
    threads: int,
    rounds: int,
    precision: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure this engine, and alternatives that are installed, on the same texts.

    Every contestant has a process of its own and runs in turn, round by round, with the same texts, the same
    --max-tokens and the same --threads. Those that pad sort by length and get their best batch size. Differences are
    those from transformers' own padded fp32 forward pass, or from the engine in fp32 where transformers has no such
    model.
    """
    from corpuscore.benchmark import ALTERNATIVES, as_table, read_texts, run_benchmark

    names = ALTERNATIVES if against == "all" else tuple(name for name in against.split(",") if name)
    report = run_benchmark(
        model,
        read_texts(uri, text_column, limit),
        against=names,
        against_model=against_model,
        max_tokens=max_tokens,
        threads=threads,
        rounds=rounds,
        precision=precision,
        device=device,
    )
    click.echo(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2) if as_json else as_table(report))
    engine = report.results[0]
    if engine.why_not:
        raise ModelError(f"The engine did not run: {engine.why_not}")
