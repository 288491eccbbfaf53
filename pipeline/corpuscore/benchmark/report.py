"""What a benchmark says: medians, ratios, rates, the share of the product limit, and how far the answers are off."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from corpuscore.benchmark.contestants import Rows
from corpuscore.benchmark.race import Lap, differences

_PACKAGES = ("torch", "transformers", "tokenizers", "onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class Effort:
    """What a model has to do for the texts.

    Attributes:
        documents, tokens: In all texts, as its tokenizer cuts them.
        operations: Of one token's matrix products.
    """

    documents: int
    tokens: int
    operations: int


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table.

    Attributes:
        name: Of the contestant.
        batch_size: What it ran with; 0: it chooses by itself.
        seconds: Of each round.
        documents_per_second, tokens_per_second: At the median round; tokens are those of the texts, not of padding.
        engine_ratio: Median over rounds of its seconds by the engine's in the same round; above 1 the engine is faster.
        product_share: Of the bare matrix product's rate in the engine's precision.
        largest_difference, difference_999: From the fp32 reference, in probabilities; None with another model.
        why_not: Why it did not run; the figures are 0 then.
    """

    name: str
    batch_size: int
    seconds: tuple[float, ...]
    documents_per_second: float
    tokens_per_second: float
    engine_ratio: float
    product_share: float
    largest_difference: float | None
    difference_999: float | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """All results with what they were measured on; tokens are those of the engine's model."""

    model: str
    against_model: str
    precision: str
    device: str
    processor: str
    threads: int
    documents: int
    distinct: int
    tokens: int
    max_tokens: int
    product_rate: float
    versions: dict[str, str]
    results: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


def result_of(lap: Lap, engine: Lap, reference: Rows | None, effort: Effort, limit: float) -> Result:
    """A lap's figures.

    Args:
        lap: Whose.
        engine: That of this engine.
        reference: fp32 rows [D, L] of its model; None where there are none.
        effort: Of its model.
        limit: Operations a second of the bare product.
    """
    if lap.rows is None or engine.rows is None:
        return Result(lap.name, 0, (), 0.0, 0.0, 0.0, 0.0, None, None, lap.why_not)
    seconds = median(lap.seconds)
    ratios = [theirs / ours for theirs, ours in zip(lap.seconds, engine.seconds, strict=True)]
    share = effort.tokens * effort.operations / seconds / limit if limit else 0.0
    largest, most = (None, None) if reference is None else differences(lap.rows, reference)
    rates = effort.documents / seconds, effort.tokens / seconds
    return Result(lap.name, lap.batch_size, tuple(lap.seconds), *rates, median(ratios), share, largest, most)


def processor_name(device: str) -> str:
    """The chip that did the work."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def versions() -> dict[str, str]:
    """Versions of the libraries that take part."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def as_table(report: BenchmarkReport) -> str:
    """Markdown: what it was measured on, then a row each."""
    other = report.against_model != report.model
    models = f"{report.model} against {report.against_model}" if other else report.model
    head = (
        f"{models}, {report.precision} on {report.processor} ({report.device}, {report.threads} threads): "
        f"{report.documents:,} documents ({report.distinct:,} distinct), {report.tokens:,} tokens, at most "
        f"{report.max_tokens} each. Bare {report.precision} matrix product: {report.product_rate / 1e9:,.0f} GOP/s. "
        + ", ".join(f"{name} {number}" for name, number in report.versions.items())
    )
    rows = [
        "| | batch | documents/s | tokens/s | time / the engine's | of product limit | largest difference | 99.9% |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(result) for result in report.results),
    ]
    return "\n".join([head, "", *rows])


def _row(result: Result) -> str:
    if result.why_not:
        return f"| {result.name} | did not run: {result.why_not} |" + " |" * 6
    return (
        f"| {result.name} | {result.batch_size or '-'} | {result.documents_per_second:,.0f} "
        f"| {result.tokens_per_second:,.0f} | {result.engine_ratio:.2f} | {result.product_share:.0%} "
        f"| {_difference(result.largest_difference)} | {_difference(result.difference_999)} |"
    )


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
