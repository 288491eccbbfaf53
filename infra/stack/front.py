"""What the person at the terminal starts: it asks a keeper for the stack, waits for it, and lets it go."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from infra.stack.airflow import Airflow
from infra.stack.home import CHECKOUT, Home, State
from infra.stack.keeper import STAY
from infra.stack.processes import end, mark, marked

_POLL_SECONDS = 0.5
_FAREWELL_SECONDS = 40.0


class StackError(Exception):
    """The stack did not come up, or went away."""


def running(home: Home) -> bool:
    """Whether a keeper lives: it holds the lock, however it was started."""
    if not home.lock.exists():
        return False
    with home.lock.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def stack(home: Home, console: Console) -> Iterator[tuple[State, bool]]:
    """The stack of this home while the block runs; one that runs already is used, and left running.

    Yields:
        Its state, and whether it was started here.

    Raises:
        StackError: It did not come up.
    """
    if running(home):
        yield _wait(home, None, console), False
        return
    end(home.root)  # leftovers, where a keeper was killed
    keeper = _start(home)
    try:
        yield _wait(home, keeper, console), True
    finally:
        with console.status("Ending what was started"):
            stop(home)
            keeper.wait()


def stay(home: Home, console: Console) -> tuple[State, bool]:
    """The stack of this home, left running; whether it was started here.

    Raises:
        StackError: It did not come up.
    """
    if running(home):
        return _wait(home, None, console), False
    end(home.root)
    keeper = _start(home)
    try:
        state = _wait(home, keeper, console)
        assert keeper.stdin is not None  # noqa: S101  # for mypy
        keeper.stdin.write(STAY)
        keeper.stdin.close()
    except BaseException:
        stop(home)
        keeper.wait()
        raise
    return state, True


def stop(home: Home) -> int:
    """End the stack of this home, wherever it was started; how many processes that were."""
    found = list(marked(home.root))
    for process in found:
        if "infra.stack.keeper" in process.cmdline():
            process.terminate()
    deadline = time.monotonic() + _FAREWELL_SECONDS
    while running(home) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    end(home.root)  # what a keeper left, or where there was none
    home.forget()
    return len(found)


def _start(home: Home) -> subprocess.Popen[bytes]:
    home.make()
    home.forget()
    with home.log("keeper").open("wb") as output:
        return subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "infra.stack.keeper", str(home.root)],
            cwd=CHECKOUT,
            env=dict(os.environ) | mark(home.root),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the front alone, which then ends the rest in order
        )


def _wait(home: Home, keeper: subprocess.Popen[bytes] | None, console: Console) -> State:
    """Wait until the stack is ready, saying what is going on."""
    started, said = time.monotonic(), ""
    with console.status("") as status:
        while not (state := home.state()).ready:
            if state.failed:
                raise StackError(state.failed)
            if (keeper is not None and keeper.poll() is not None) or (keeper is None and not running(home)):
                raise StackError(f"The keeper ended. Look into {home.log('keeper')}")
            status.update(f"{state.phase} ({time.monotonic() - started:.0f} s)")
            if state.phase != said and not console.is_terminal:
                said = state.phase
                console.print(f"{state.phase} ...")
            time.sleep(_POLL_SECONDS)
    return state


def airflow(home: Home, state: State) -> Airflow:
    """A client of the stack's Airflow."""
    return Airflow(state.airflow, home.login())


def leave_on_signals() -> None:
    """Turn the signals that end a program into an exception, so that what was started is ended too."""

    def leave(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # SIGINT too: a shell starts background jobs with it ignored, and Python then leaves it so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
