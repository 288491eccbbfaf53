"""The benchmark: this engine and the alternatives on the same texts, in one process tree, in turn.

texts.py        which texts
contestants.py  who takes part
race.py         processes and rounds
limits.py       what the hardware gives at best
report.py       figures and table
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.benchmark.contestants import CONTESTANTS, Setup
from pipeline.benchmark.limits import checkpoint_operations
from pipeline.benchmark.race import race
from pipeline.benchmark.report import BenchmarkReport, as_table, processor_name, result_of, versions
from pipeline.benchmark.texts import read_texts
from pipeline.errors import JobError
from pipeline.scoring.checkpoint import find_checkpoint
from pipeline.scoring.devices import resolve_device

__all__ = ["ALTERNATIVES", "BenchmarkReport", "as_table", "read_texts", "run_benchmark"]

ALTERNATIVES = tuple(name for name in CONTESTANTS if name != "corpuscore")


def run_benchmark(
    model: str,
    texts: list[str],
    *,
    against: Sequence[str],
    max_tokens: int,
    threads: int,
    rounds: int,
    precision: str,
    device: str,
) -> BenchmarkReport:
    """Race the engine against some alternatives.

    Raises:
        JobError: An unknown alternative, or an option that the model or device cannot do.
        ModelError: Not a usable checkpoint.
    """
    from pipeline.scoring import describe_scorer

    unknown = sorted(set(against) - set(ALTERNATIVES))
    if unknown:
        raise JobError(f"--against {', '.join(unknown)}", rule=f"alternatives are {', '.join(ALTERNATIVES)}")
    checkpoint, where = find_checkpoint(model), resolve_device(device)
    info = describe_scorer(model, device=where, precision=precision)
    setup = Setup(
        model=model,
        folder=str(checkpoint.folder),
        labels=info.labels,
        activation=info.activation,
        max_tokens=max_tokens,
        threads=threads,
        device=where,
        precision=info.precision,
        backend=info.backend,
    )
    laps, reference, limit = race(["corpuscore", *against], setup, texts, rounds)
    tokens = len(checkpoint.tokenizer(threads).encode(texts, max_tokens).ids)
    operations = checkpoint_operations(checkpoint.weights)
    results = tuple(result_of(lap, laps[0], reference, tokens, operations, limit) for lap in laps)
    return BenchmarkReport(
        model=model,
        precision=info.precision,
        device=where,
        processor=processor_name(where),
        threads=threads,
        documents=len(texts),
        distinct=len(set(texts)),
        tokens=tokens,
        max_tokens=max_tokens,
        product_rate=limit,
        versions=versions(),
        results=results,
    )
