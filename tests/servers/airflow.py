"""A real Airflow, once a session: the embedded stack in a home of its own; and a throw-away home for this process.

Airflow reads its environment when it is first imported, which test modules do while they are collected; so the home
of this process is set here, when pytest loads its plugins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from infra.stack.airflow import DAG, Airflow
from infra.stack.home import CHECKOUT, Home
from infra.stack.processes import marked
from tests.servers.s3 import S3Server

_SECONDS = 240


def pytest_configure(config: pytest.Config) -> None:
    """Lead Airflow in this process away from any home that the machine has."""
    home = tempfile.mkdtemp(prefix="airflow-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}


@dataclass(frozen=True)
class Stack:
    """The embedded stack, running.

    Attributes:
        home: Its files.
        api: Its Airflow.
        scheduler: Address of its Dask cluster.
    """

    home: Home
    api: Airflow
    scheduler: str

    def run(self, conf: dict[str, Any]) -> str:
        """Trigger the DAG and wait for its end; the run's id."""
        run_id = self.api.trigger(conf)
        self.wait(run_id)
        return run_id

    def wait(self, run_id: str) -> str:
        """Wait for the end of a run; its state."""
        deadline = time.monotonic() + _SECONDS
        while (state := self.api.run_state(run_id)) in ("queued", "running"):
            assert time.monotonic() < deadline, f"{run_id} is {state}: {self.states(run_id)}"
            time.sleep(0.5)
        return state

    def states(self, run_id: str) -> dict[str, list[str]]:
        """States of the run's task instances, by task."""
        found: dict[str, list[str]] = {}
        for task in self.api.tasks(run_id):
            found.setdefault(task["task_id"], []).append(task["state"])
        return found

    def task(self, run_id: str, task_id: str) -> dict[str, Any]:
        """The first instance of a task."""
        return next(task for task in self.api.tasks(run_id) if task["task_id"] == task_id)

    def log(self, run_id: str, task_id: str) -> str:
        """The log of a task's last attempt."""
        return "\n".join(self.api.log(run_id, self.task(run_id, task_id)))

    def clear(self, run_id: str, task_id: str) -> None:
        """What the Clear button does."""
        body = {"dag_run_id": run_id, "task_ids": [task_id], "dry_run": False, "only_failed": False}
        self.api.post(f"/api/v2/dags/{DAG}/clearTaskInstances", body)


def command(home: Home, verb: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m infra.stack VERB` on a home."""
    return subprocess.run(
        [sys.executable, "-m", "infra.stack", verb],
        cwd=CHECKOUT,
        env={**os.environ, **variables, "CORPUSCORE_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=_SECONDS + 120,
        check=False,
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Stack]:
    """What `make up` starts, on free ports, reaching the session's S3 server; `make down` ends all of it."""
    home = Home(tmp_path_factory.mktemp("stack"))
    begun = command(home, "up", **s3_server.environment)
    try:
        assert begun.returncode == 0, begun.stdout + begun.stderr
        state = home.state()
        yield Stack(home, Airflow(state.airflow, home.login()), state.scheduler)
    finally:
        ended = command(home, "down")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not list(marked(home.root))
