from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.stack import __main__ as program
from infra.stack import front
from infra.stack.home import CHECKOUT, SAMPLE, Home
from infra.stack.processes import marked
from tests.servers.airflow import Stack, command


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupting_the_demo_ends_everything(sign: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, `kill` and a closed terminal leave no process behind, and the exit status tells."""
    home = Home(tmp_path)
    demo = subprocess.Popen(
        [sys.executable, "-m", "infra.stack", "demo"],
        cwd=CHECKOUT,
        env=os.environ | {"CORPUSCORE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (front.running(home) and home.log("dask").exists()) and demo.poll() is None:
        time.sleep(0.1)
    demo.send_signal(sign)
    try:
        said, _ = demo.communicate(timeout=200)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert "everything that was started has ended" in said
    assert not list(marked(tmp_path))


def test_a_service_that_ends_is_told_with_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is on the screen, not in a log that nobody knows of."""
    monkeypatch.setenv("CORPUSCORE_HOME", str(tmp_path))
    home = Home(tmp_path)
    home.root.joinpath("dask.draft").mkdir(parents=True)  # the cluster cannot tell its address
    ended = command(home, "up")
    assert ended.returncode == 1
    assert "dask ended with status 1" in ended.stdout
    assert "IsADirectoryError" in ended.stdout
    assert not list(marked(tmp_path))


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what there is."""
    assert program.main(["sideways"]) == 2
    assert "up|down|demo" in capsys.readouterr().out


def test_down_without_a_stack_is_fine(tmp_path: Path) -> None:
    """`make clean` calls it on a machine where nothing runs."""
    ended = command(Home(tmp_path), "down")
    assert (ended.returncode, ended.stdout.strip()) == (0, "Nothing was running.")


@pytest.mark.airflow
@pytest.mark.timeout(600)
def test_up_twice_says_so(stack: Stack) -> None:
    """The second one shows the addresses of the first."""
    again = command(stack.home, "up")
    assert again.returncode == 0
    assert "running already" in again.stdout
    assert stack.api.url in again.stdout


@pytest.mark.airflow
@pytest.mark.timeout(600)
def test_the_demo_scores_the_sample_corpus(stack: Stack) -> None:
    """The whole way with the bundled model, ending in the summary; a stack that ran before goes on running."""
    documents = sum(len(path.read_bytes().splitlines()) for path in SAMPLE.glob("*.jsonl"))
    shown = command(stack.home, "demo")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"{documents:,} in" in shown.stdout
    assert "the strongest paragraph for" in shown.stdout
    assert "goes on running" in shown.stdout
    assert stack.home.warehouse.exists()
    assert front.running(stack.home)
