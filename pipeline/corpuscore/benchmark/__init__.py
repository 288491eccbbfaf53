"""The benchmark: this engine and the alternatives on the same texts, in one process tree, in turn.

texts.py        which texts
contestants.py  who takes part
race.py         processes and rounds
limits.py       what the hardware gives at best
report.py       figures and table
"""

from __future__ import annotations

from collections.abc import Sequence

from corpuscore.benchmark.contestants import CONTESTANTS, Setup
from corpuscore.benchmark.limits import checkpoint_operations
from corpuscore.benchmark.race import race
from corpuscore.benchmark.report import BenchmarkReport, Effort, as_table, processor_name, result_of, versions
from corpuscore.benchmark.texts import read_texts
from corpuscore.errors import JobError
from corpuscore.scoring.checkpoint import find_checkpoint
from corpuscore.scoring.devices import resolve_device
from corpuscore.scoring.remote.address import is_service

__all__ = ["ALTERNATIVES", "BenchmarkReport", "as_table", "read_texts", "run_benchmark"]

ALTERNATIVES = tuple(name for name in CONTESTANTS if name != "corpuscore")


def run_benchmark(
    model: str,
    texts: list[str],
    *,
    against: Sequence[str],
    against_model: str | None = None,
    max_tokens: int,
    threads: int,
    rounds: int,
    precision: str,
    device: str,
) -> BenchmarkReport:
    """Race the engine against some alternatives.

    Args:
        model: Of the engine.
        texts: What all score.
        against: Names of alternatives.
        against_model: Model of the alternatives, where it is another one: a small student against one of its
            teacher's size, say. Their probabilities are then not compared.
        max_tokens: Longer texts are cut.
        threads: CPU threads.
        rounds: Runs of each, in turn.
        precision: Of the engine.
        device: auto, cpu or cuda.

    Raises:
        JobError: An unknown alternative, or an option that the model or device cannot do.
        ModelError: Not a usable checkpoint.
    """
    unknown = sorted(set(against) - set(ALTERNATIVES))
    if unknown:
        raise JobError(f"--against {', '.join(unknown)}", rule=f"alternatives are {', '.join(ALTERNATIVES)}")
    where = resolve_device(device)
    setup = _setup(model, max_tokens=max_tokens, threads=threads, precision=precision, device=where)
    theirs = setup
    if against_model is not None:
        theirs = _setup(against_model, max_tokens=max_tokens, threads=threads, precision="auto", device=where)
    laps, reference, limit = race([("corpuscore", setup), *((name, theirs) for name in against)], texts, rounds)
    effort = _effort(setup, texts)
    their_effort = effort if theirs is setup else _effort(theirs, texts)
    results = [result_of(laps[0], laps[0], reference, effort, limit)]
    compared = reference if theirs is setup else None
    results += [result_of(lap, laps[0], compared, their_effort, limit) for lap in laps[1:]]
    return BenchmarkReport(
        model=model,
        against_model=against_model or model,
        precision=setup.precision,
        device=where,
        processor=processor_name(where),
        threads=threads,
        documents=len(texts),
        distinct=len(set(texts)),
        tokens=effort.tokens,
        max_tokens=max_tokens,
        product_rate=limit,
        versions=versions(),
        results=tuple(results),
    )


def _setup(model: str, *, max_tokens: int, threads: int, precision: str, device: str) -> Setup:
    from corpuscore.scoring import describe_scorer

    if is_service(model):
        raise JobError(
            f"The model {model}",
            rule="The benchmark compares what runs on this machine, on the same cores",
            next_step="name a checkpoint; a service is measured by its clients",
        )
    info = describe_scorer(model, device=device, precision=precision, max_tokens=max_tokens)
    return Setup(
        model=model,
        folder=str(find_checkpoint(model).folder),
        labels=info.labels,
        activation=info.activation,
        max_tokens=max_tokens,
        threads=threads,
        device=device,
        precision=info.precision,
        backend=info.backend,
    )


def _effort(setup: Setup, texts: list[str]) -> Effort:
    checkpoint = find_checkpoint(setup.model)
    tokens = len(checkpoint.tokenizer(setup.threads).encode(texts, setup.max_tokens).ids)
    return Effort(len(texts), tokens, checkpoint_operations(checkpoint.weights))
