"""Run an iterator ahead of its consumer, in a thread of its own with a bounded queue: how the steps overlap."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

#: Items of a thread that may wait to be taken.
_WAITING = 2


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing in a queue: how the iterator ended."""

    error: BaseException | None


@dataclass(slots=True)
class _Ahead(Generic[T]):
    items: Iterable[T]
    ready: queue.Queue[T | _End]
    stopped: threading.Event

    def run(self) -> None:
        """Pull items until they end, fail, or nobody wants them; then close their generator in this thread."""
        iterator = iter(self.items)
        error: BaseException | None = None
        try:
            for item in iterator:
                self.ready.put(item)
                if self.stopped.is_set():
                    break
        except BaseException as caught:  # handed to the consumer, whatever it is
            error = caught
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
            self.ready.put(_End(error))


def ahead(items: Iterable[T], name: str) -> Generator[T, None, None]:
    """Yield the items while a thread prepares a few more.

    An exception in the thread is raised here. Closing this generator ends the thread and closes the items, so that a
    chain of these ends link by link.

    Args:
        items: Pulled from the thread, never from here.
        name: Of the thread, for debuggers and profiles.
    """
    link: _Ahead[T] = _Ahead(items, queue.Queue(_WAITING), threading.Event())
    thread = threading.Thread(target=link.run, name=f"corpuscore-{name}", daemon=True)
    thread.start()
    try:
        while not isinstance(item := link.ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        link.stopped.set()
        while thread.is_alive():
            _drain(link.ready)
            thread.join(timeout=0.01)


def _drain(ready: queue.Queue[T]) -> None:
    """Make room, so that a thread that waits to put its last items can end."""
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return


@dataclass(slots=True)
class Stopwatch:
    """Adds the seconds of one step's work to a table; each step has a thread of its own, so no lock is needed."""

    busy: dict[str, float]
    step: str

    def __enter__(self) -> None:
        self.busy[self.step] = self.busy.get(self.step, 0.0) - time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.busy[self.step] += time.perf_counter()


def timed(items: Iterable[T], busy: dict[str, float], step: str) -> Generator[T, None, None]:
    """The items, with the time that each takes to come added to the step."""
    iterator = iter(items)
    try:
        while True:
            try:
                with Stopwatch(busy, step):
                    item = next(iterator)
            except StopIteration:
                return
            yield item
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
