"""A command of the product as a process, and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra.stack.home import CHECKOUT

_TAIL = 1500


class Fault(Exception):
    """What the product did and should not have done: the run counts as an error."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Its exit status; negative: the signal that ended it.
        out, err: What it said.
        seconds: From its start to its end.
    """

    status: int
    out: str
    err: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """What --json printed."""
        found: dict[str, Any] = orjson.loads(self.out)
        return found

    @property
    def error(self) -> str:
        """The one line that says why it failed; empty where it did not.

        Raises:
            Fault: There is none, or more than one, or another status than 1.
        """
        if self.status == 0:
            return ""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        if len(lines) != 1 or self.status != 1:
            raise Fault(f"status {self.status} with {len(lines)} error lines: {self.tail}")
        return lines[0]

    @property
    def tail(self) -> str:
        """The end of what it said."""
        return self.err[-_TAIL:]

    def check(self) -> None:
        """What holds of every command that was not killed: no traceback, and one line where it failed.

        Raises:
            Fault: Otherwise.
        """
        if "Traceback" in self.err or "Traceback" in self.out:
            at = self.err.find("Traceback")
            raise Fault(f"a traceback was shown: …{self.err[max(0, at - 200) : at + _TAIL]}")
        _ = self.error


class Command:
    """A running command, leader of a process group of its own.

    Args:
        arguments: Of it.
        environment: Of it.
        log: Where its output goes: `.out` and `.err`.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                list(arguments),
                cwd=CHECKOUT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def err(self) -> str:
        """What it has said by now."""
        return self._err.read_text(errors="replace")

    def send(self, sign: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to it, or to all of its process group, as Ctrl-C does."""
        with suppress(ProcessLookupError):
            if group:
                os.killpg(self.process.pid, sign)
            else:
                self.process.send_signal(sign)

    def wait(self, seconds: float) -> Ended | None:
        """Wait for its end; None where it does not come in time."""
        try:
            status = self.process.wait(max(seconds, 0.01))
        except subprocess.TimeoutExpired:
            return None
        out = self._out.read_text(errors="replace")
        return Ended(status, out, self.err, time.monotonic() - self._began)
