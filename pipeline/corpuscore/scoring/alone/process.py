"""One process that may die: started, listened to, watched, and ended."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson
import psutil

from corpuscore.records import HUNG, KILLED
from corpuscore.scoring.alone.orders import Order, State

#: Between two looks at a process's memory.
_LOOK_SECONDS = 0.05
#: A group that gives no answer is given up after so many times what the slowest group took, and never before so long.
_PATIENCE = 10.0
_LEAST_SECONDS = 30.0
#: Bytes of standard error that are kept, and lines of them that a message shows.
_KEPT_BYTES = 8192
_SHOWN_LINES = 6


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may take.

    Attributes:
        stall_seconds: Without a sign of life, before anything is known of how long a group takes.
        loading_seconds: For the start and the model, a download included.
        memory_bytes: Resident memory; None: as much as there is.
    """

    stall_seconds: float
    loading_seconds: float
    memory_bytes: int | None = None

    def within(self, memory_bytes: int | None) -> Self:
        """The same with a memory limit."""
        return replace(self, memory_bytes=memory_bytes)


@dataclass(slots=True)
class Pace:
    """How long a group of documents takes: learned from those that have ended."""

    slowest_seconds: float | None = None

    def learn(self, seconds: float) -> None:
        """Take in what one group took."""
        self.slowest_seconds = max(seconds, self.slowest_seconds or 0.0)

    def patience(self, limits: Limits, state: State) -> float:
        """Seconds without a sign of life after which a process hangs."""
        if state == "loading":
            return limits.loading_seconds
        if state != "scoring" or self.slowest_seconds is None:
            return limits.stall_seconds
        return min(limits.stall_seconds, max(_LEAST_SECONDS, _PATIENCE * self.slowest_seconds))


class Died(Exception):
    """A process that ended without its last answer.

    Attributes:
        reason: As a reject would have it.
        how: Such as `was ended by SIGSEGV`.
        state: What it was at.
        group: First document and the one after the last of the group that it was at; None at anything else.
        same, id: Of the document that was probed alone, see __main__.
        last_lines: What it wrote to standard error last.
    """

    def __init__(self, reason: str, how: str, process: Process) -> None:
        super().__init__(how)
        self.reason = reason
        self.how = how
        self.state = process.state
        self.group = process.group
        self.same: list[int] = process.heard.get("same", [])
        self.id: str = process.heard.get("id", "")
        self.last_lines = process.last_lines


@dataclass(slots=True)
class Process:
    """A running process, and what it has said.

    Attributes:
        popen: The process.
        limits, pace: What it may take.
        state, group, heard: By what it said last.
    """

    popen: subprocess.Popen[bytes]
    limits: Limits
    pace: Pace
    state: State = "loading"
    group: tuple[int, int] | None = None
    heard: dict[str, Any] = field(default_factory=dict)
    _rest: bytes = b""
    _errors: bytes = b""
    _last_sign: float = field(default_factory=time.monotonic)
    _group_began: float = 0.0

    @property
    def last_lines(self) -> str:
        """The last lines on standard error, in one line."""
        return " | ".join(self._errors.decode(errors="replace").split("\n")[-_SHOWN_LINES:]).strip(" |")

    def listen(self, look: Callable[[], None]) -> dict[str, Any]:
        """Wait for the end.

        Args:
            look: Called again and again meanwhile.

        Returns:
            All that it said, the last answer of each kind.

        Raises:
            Died: It ended before its last answer, took too much memory, or gave no sign of life.
        """
        with selectors.DefaultSelector() as pipes:
            pipes.register(self.popen.stdout, selectors.EVENT_READ, self._hear)  # type: ignore[arg-type]
            pipes.register(self.popen.stderr, selectors.EVENT_READ, self._keep)  # type: ignore[arg-type]
            while self.heard.keys().isdisjoint(_LAST):
                ended = self._has_ended()  # before the last bytes are read, so that none is missed
                if not _drain(pipes) and ended:
                    raise Died(KILLED, _ending(self.end()), self)
                self._check()
                look()
        return self.heard

    def _check(self) -> None:
        silent, patience = time.monotonic() - self._last_sign, self.pace.patience(self.limits, self.state)
        if silent > patience:
            self.end()
            raise Died(HUNG, f"gave no sign of life for {patience:,.0f} s", self)
        memory, limit = _resident(self.popen.pid), self.limits.memory_bytes
        if limit is not None and memory > limit:
            self.end()
            how = f"took {memory / 2**20:,.0f} MiB; its limit is {limit / 2**20:,.0f}"
            raise Died(KILLED, how, self)

    def _hear(self, body: bytes) -> None:
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            answer: dict[str, Any] = orjson.loads(line)
            self._last_sign = time.monotonic()
            self.heard.update(answer)
            if "state" in answer:
                self.state = answer["state"]
            elif "scoring" in answer:
                start, stop = answer["scoring"]
                self.state, self.group, self._group_began = "scoring", (start, stop), self._last_sign
            elif "passed" in answer:
                self.state, self.group = "reading", None
                self.pace.learn(self._last_sign - self._group_began)

    def _keep(self, body: bytes) -> None:
        self._errors = (self._errors + body)[-_KEPT_BYTES:]

    def _has_ended(self) -> bool:
        """Whether it has; its id stays its own until `end`, since nobody has asked for its exit status."""
        return os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> int:
        """Kill it, and what it started, if they still run; its exit status, negative for a signal."""
        if self.popen.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()


#: One of these is the last answer.
_LAST = frozenset({"receipt", "error", "documents", "done"})


@contextmanager
def started(order: Order, limits: Limits, pace: Pace) -> Iterator[Process]:
    """A process with its order, in a group of its own; when the block is left, nothing of it runs any more."""
    with tempfile.TemporaryFile() as told:
        told.write(orjson.dumps(order.to_json()))
        told.seek(0)
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "corpuscore.scoring.alone"],
            stdin=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
    with popen:
        process = Process(popen, limits, pace)
        try:
            yield process
        finally:
            process.end()


def _drain(pipes: selectors.BaseSelector) -> bool:
    """Take what has come, or wait a moment for it; whether anything has."""
    found = False
    for key, _ in pipes.select(_LOOK_SECONDS):
        body = os.read(key.fd, 65_536)
        key.data(body)
        found = found or bool(body)
        if not body:
            pipes.unregister(key.fileobj)
    return found


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _ending(code: int) -> str:
    """What an exit status means, in words."""
    if code >= 0:
        return f"left with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"
