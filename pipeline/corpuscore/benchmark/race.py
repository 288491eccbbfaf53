"""The race: every contestant in a process of its own, all loaded, then one after the other, round by round.

Processes keep thread pools apart; taking turns spreads whatever else the machine does over all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from corpuscore.benchmark.contestants import CONTESTANTS, Rows, Score, Setup
from corpuscore.benchmark.limits import product_rate
from corpuscore.errors import CorpuscoreError

#: Texts on which batch sizes are tried, spread evenly over all.
_SAMPLE = 64
#: The name under which fp32 reference rows are computed.
REFERENCE = "reference"
#: Backends whose models transformers can run.
_IN_TRANSFORMERS = ("bert", "transformers")


@dataclass(slots=True)
class Lap:
    """What one contestant did.

    Attributes:
        name: Of the contestant.
        batch_size: The fastest of those tried; 0 where it has none.
        seconds: Of each round.
        rows: Probabilities [D, L]; None where it did not run.
        why_not: Why it did not run.
    """

    name: str
    batch_size: int = 0
    seconds: list[float] = field(default_factory=list)
    rows: Rows | None = None
    why_not: str = ""


def race(entries: Sequence[tuple[str, Setup]], texts: list[str], rounds: int) -> tuple[list[Lap], Rows, float]:
    """Run all contestants.

    Args:
        entries: Who, with what; this engine first.
        texts: What all score.
        rounds: Runs of each, in turn.

    Returns:
        A lap for each entry, the reference rows in fp32 of the engine's model, and the operations a second of the bare
        matrix product in the engine's precision, in the best round.
    """
    names, setup = [name for name, _ in entries], entries[0][1]
    with _started(REFERENCE, setup, texts) as reference:
        rows = _reference_rows(reference)
    laps = {name: Lap(name) for name in names}
    with _all_started(entries, texts) as processes:
        ready = [name for name in names if _meet(processes[name], laps[name])]
        limits = [_round([(processes[name], laps[name]) for name in ready], setup) for _ in range(rounds)]
    return [laps[name] for name in names], rows, max(limits)


def _round(running: list[tuple[Connection, Lap]], setup: Setup) -> float:
    """Everyone once, and the rate of the bare product beside them."""
    for pipe, lap in running:
        _run(pipe, lap)
    return product_rate(setup.precision, setup.device, setup.threads)


def _reference_rows(pipe: Connection) -> Rows:
    kind, value = pipe.recv()
    if kind != "ready":
        raise CorpuscoreError(f"The reference could not be computed: {value}", next_step="check that the model loads")
    lap = Lap(REFERENCE)
    _run(pipe, lap)
    if lap.rows is None:
        raise CorpuscoreError(f"The reference could not be computed: {lap.why_not}")
    return lap.rows


def _meet(pipe: Connection, lap: Lap) -> bool:
    kind, value = pipe.recv()
    if kind == "ready":
        lap.batch_size = value
        return True
    lap.why_not = value
    return False


def _run(pipe: Connection, lap: Lap) -> None:
    pipe.send("run")
    seconds, lap.rows = pipe.recv()
    lap.seconds.append(seconds)


@contextmanager
def _all_started(entries: Sequence[tuple[str, Setup]], texts: list[str]) -> Iterator[dict[str, Connection]]:
    """Start them one after the other, so that loading and trying batch sizes do not disturb each other."""
    if not entries:
        yield {}
        return
    name, setup = entries[0]
    with _started(name, setup, texts) as pipe:
        pipe.poll(None)
        with _all_started(entries[1:], texts) as others:
            yield {name: pipe, **others}


@contextmanager
def _started(name: str, setup: Setup, texts: list[str]) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_contest, args=(theirs, name, setup, texts), name=f"bench-{name}")
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _contest(pipe: Connection, name: str, setup: Setup, texts: list[str]) -> None:
    """The life of a contestant's process: load, find a batch size, then run whenever told to."""
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(setup.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        score, batch_size = _ready(name, setup, texts)
    except ImportError as error:
        pipe.send(("missing", f"not installed ({error.name or error})"))
        return
    except Exception as error:  # whatever a foreign library raises is this contestant's result, not the race's end
        pipe.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"))
        return
    pipe.send(("ready", batch_size))
    try:
        while pipe.recv() == "run":
            start = time.perf_counter()
            rows = score(texts, batch_size)
            pipe.send((time.perf_counter() - start, rows))
    except EOFError:
        return


def _ready(name: str, setup: Setup, texts: list[str]) -> tuple[Score, int]:
    if name == REFERENCE:
        return CONTESTANTS[_reference(setup)].load(replace(setup, precision="fp32")), 16
    contestant = CONTESTANTS[name]
    if setup.device not in contestant.devices:
        raise ImportError(f"runs on {', '.join(contestant.devices)} only")
    score = contestant.load(setup)
    sample = texts[:: max(1, len(texts) // _SAMPLE)]
    return score, min(contestant.batch_sizes, key=lambda size: _fastest(score, sample, size))


def _reference(setup: Setup) -> str:
    """Who computes the reference: transformers' padded forward, or this engine where transformers lacks the model."""
    return "sorted-padded" if setup.backend in _IN_TRANSFORMERS else "corpuscore"


def _fastest(score: Score, sample: list[str], batch_size: int) -> float:
    """Seconds of the better of two runs; the first warms up."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        score(sample, batch_size)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def differences(rows: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Largest and 99.9th percentile of the absolute differences in probabilities."""
    gaps = np.abs(rows - reference)
    return float(gaps.max()), float(np.percentile(gaps, 99.9))
