"""The process that may die: `python -m corpuscore.scoring.alone`, an order on standard input, answers on the output.

{"state": "loading"}            what it is at now
{}                              a sign of life: something has moved
{"documents": 10000}            of the partition
{"scoring": [320, 640]}         a group of documents has begun, and
{"passed": 640}                 has ended
{"same": [1, 7], "id": "d1"}    positions of all documents with the text of the only one that is probed
{"receipt": {}} {"error": {}} {"done": true}    the last one

Where nothing can go well in it any more, such as after an assertion on the GPU, it leaves without a last answer.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from corpuscore.corpus import DocumentReader
from corpuscore.errors import BrokenProcess, CorpuscoreError, CorpusError, to_json, unforeseen
from corpuscore.scoring.alone.orders import Order, Probe
from corpuscore.scoring.partition import planned_scorer, score_partition
from corpuscore.scoring.rows import without
from corpuscore.scoring.scorer import Meter

_PR_SET_PDEATHSIG = 1
_SIGN_SECONDS = 0.2


class Answers:
    """Lines on the standard output that the process was given; whatever else prints there, prints to standard error."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, **answer: Any) -> None:
        """Write one line."""
        with self._lock:
            body = memoryview(orjson.dumps(answer) + b"\n")
            while body:
                body = body[os.write(self._descriptor, body) :]

    @contextmanager
    def showing(self, meter: Meter) -> Iterator[None]:
        """Give signs of life as long as a meter's numbers move."""
        over = threading.Event()
        thread = threading.Thread(target=self._show, args=(meter, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _show(self, meter: Meter, over: threading.Event) -> None:
        seen: tuple[float, ...] = ()
        while not over.wait(_SIGN_SECONDS):
            now = (meter.tokens, meter.unique_texts, *meter.busy.copy().values())
            if now != seen:
                self.say()
            seen = now


def main() -> None:
    """Do what the order says, answer, and leave."""
    answers = Answers()
    order = Order.from_json(orjson.loads(sys.stdin.buffer.read()))
    _die_with(order.parent)
    _die_first()
    try:
        _do(order, answers)
    except BrokenProcess as error:
        sys.exit(str(error))  # to standard error; whoever listens takes it for a death
    except CorpuscoreError as error:
        answers.say(error=to_json(error))
    except Exception as error:
        partition = order.partition
        doing = f"Scoring {partition.uri} [{partition.start}:{partition.stop}] in a process of its own"
        answers.say(error=to_json(unforeseen(CorpusError, doing, error)))


def _do(order: Order, answers: Answers) -> None:
    if order.task == "count":
        answers.say(state="reading")
        answers.say(documents=sum(batch.num_rows for _, batch in _documents(order, answers)))
        return
    answers.say(state="loading")
    planned_scorer(order.context)
    if isinstance(order.task, Probe):
        _probe(order, order.task, answers)
        return
    answers.say(state="writing")
    meter = Meter()
    with answers.showing(meter):
        receipt = score_partition(
            order.partition, order.work_id, order.context, order.worker, skip=order.skip, meter=meter
        )
    answers.say(receipt=receipt.to_json())


def _probe(order: Order, probe: Probe, answers: Answers) -> None:
    """Score group after group, each to its end before the next begins, so that a death says which it was."""
    answers.say(state="reading")
    if probe.stop - probe.start == 1:
        _name(order, probe.start, answers)
    scorer, meter = planned_scorer(order.context), Meter()
    with answers.showing(meter):
        for first, documents in _documents(order, answers):
            stop = min(probe.stop, first + documents.num_rows)
            for start in range(max(probe.start, first), stop, probe.step):
                end = min(start + probe.step, stop)
                texts = documents.column("text").slice(start - first, end - start).drop_null().to_pylist()
                answers.say(scoring=[start, end])
                for _ in scorer.stream([texts], meter):
                    pass
                answers.say(passed=end)
            if first + documents.num_rows >= probe.stop:
                break
    answers.say(done=True)


def _name(order: Order, number: int, answers: Answers) -> None:
    """Say which document it is, and where its text stands elsewhere."""
    document = _document(order, number, answers)
    text, positions = document.column("text")[0].as_py(), document.column("position").to_pylist()
    for _, batch in _documents(order, answers):
        texts = zip(batch.column("position").to_pylist(), batch.column("text").to_pylist(), strict=True)
        positions += [position for position, other in texts if text is not None and other == text]
    answers.say(same=sorted(set(positions)), id=document.column("document_id")[0].as_py())


def _document(order: Order, number: int, answers: Answers) -> pa.RecordBatch:
    """One row: the document with this number in the partition."""
    with closing(_documents(order, answers)) as batches:
        return next(batch.slice(number - first, 1) for first, batch in batches if first + batch.num_rows > number)


def _documents(order: Order, answers: Answers) -> Generator[tuple[int, pa.RecordBatch], None, None]:
    """The partition's batches, each with the number of its first document; a sign of life with each."""
    first = 0
    with DocumentReader(order.partition, order.context.reading) as reader:
        for batch in reader:
            answers.say()
            yield first, without(batch, order.skip)
            first += batch.num_rows


def _die_with(parent: int) -> None:
    """End when the parent does, however it ends; Source: prctl(2)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The process that wanted this is gone.")


def _die_first() -> None:
    """Let the kernel choose this process, and not the worker, when the machine's memory ends; Source: proc(5)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
