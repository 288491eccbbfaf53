from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.stack import front
from infra.stack.home import CHECKOUT, SAMPLE, Home, State
from infra.stack.ports import free_port
from infra.stack.processes import end, mark, marked

#: Starts a process of its own session that outlives it and ignores SIGTERM.
ORPHAN = """
import os, signal, sys, time
if os.fork():
    sys.exit()
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    os.setpgid(0, 0)
time.sleep(60)
"""

#: Starts a keeper and waits.
CALLER = """
import sys, time
from pathlib import Path
from infra.stack import front
from infra.stack.home import Home
keeper = front._start(Home(Path(sys.argv[1])))
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose processes are ended, whatever a test leaves behind."""
    yield Home(tmp_path)
    end(tmp_path)


def _until(met: Callable[[], bool]) -> None:
    while not met():
        time.sleep(0.05)


def test_orphans_of_other_groups_are_found_and_ended(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a new session nor deafness to SIGTERM hides a process of this home; others are left alone."""
    monkeypatch.setattr("infra.stack.processes._PATIENCE_SECONDS", 1.0)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    subprocess.run([sys.executable, "-c", ORPHAN], env=os.environ | mark(home.root), check=True)
    _until(lambda: len(list(marked(home.root))) == 2)
    assert end(home.root) == 2
    assert not list(marked(home.root))
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_keeper_whose_caller_is_gone_ends_everything(home: Home) -> None:
    """The end of the lifeline is enough, also in the middle of starting, and after SIGKILL of the caller."""
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(home.root)], cwd=CHECKOUT)
    _until(lambda: front.running(home) and home.log("dask").exists())
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    _until(lambda: not list(marked(home.root)))
    assert not front.running(home)


def test_nothing_to_end_is_fine(home: Home) -> None:
    """`make down` twice says so, and is no error."""
    assert front.stop(home) == 0
    assert not front.running(home)


def test_a_taken_port_is_avoided() -> None:
    """Somebody else's server keeps its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert free_port(taken) != taken


def test_a_port_is_given_away_once() -> None:
    """Two services that start at the same time get different ports."""
    given: set[int] = set()
    assert free_port(18080, given) != free_port(18080, given)


def test_a_home_holds_the_sample_corpus(home: Home) -> None:
    """The store has the corpus, and a second start leaves files that did not change alone."""
    home.make()
    first = {path.name: path.stat().st_mtime_ns for path in (home.store / "corpus").iterdir()}
    assert set(first) == {path.name for path in SAMPLE.glob("*.jsonl")}
    home.make()
    assert {path.name: path.stat().st_mtime_ns for path in (home.store / "corpus").iterdir()} == first


def test_the_state_is_replaced_whole(home: Home) -> None:
    """Readers see the old state or the new one."""
    assert home.state() == State()
    home.write_state(State(phase="ready", ready=True, airflow="http://localhost:1"))
    assert home.state().ready
    home.forget()
    assert home.state() == State()
