"""The lane's Airflow: what `make up` starts, whose processes can be killed and started again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from infra.stack.airflow import Airflow, AirflowError
from infra.stack.home import Home
from infra.stack.processes import end, marked
from tests.faults.command import Ended, Fault
from tests.servers.airflow import Stack, command

if TYPE_CHECKING:
    from tests.faults.scene import Scene

_HEALTHY_SECONDS = 300.0


class LaneStack:
    """Airflow with all its parts, in a home of its own.

    Args:
        folder: Of the home.
        environment: Of its processes.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        home = Home(folder)
        begun = command(home, "up", **environment)
        if begun.returncode:
            raise RuntimeError(f"Airflow did not come up: {begun.stdout}{begun.stderr}")
        state = home.state()
        self.stack = Stack(home, Airflow(state.airflow, home.login()), state.scheduler)

    def end(self) -> None:
        """End all of it."""
        command(self.stack.home, "down")
        end(self.stack.home.root)

    def restart(self, part: str, after: float) -> None:
        """SIGKILL to a part, such as `triggerer`, with its children; some seconds later it is started again."""
        found = self._processes(part)
        if not found:
            raise Fault(f"no {part} is running")
        environment = found[0].environ()
        for process in found:
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        time.sleep(after)
        with (self.stack.home.root / "logs" / f"{part}.log").open("ab") as log:
            subprocess.Popen(
                [str(Path(sys.executable).parent / "airflow"), part],
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._wait_healthy()

    def _processes(self, part: str) -> list[psutil.Process]:
        """The processes of a part, that which was started first at the front."""
        names = {"api-server": ("airflow api", "api-server", "api_server")}.get(part, (part,))
        found = []
        for process in marked(self.stack.home.root):
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if "airflow" in line and any(name in line for name in names) and "standalone" not in line:
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def _wait_healthy(self) -> None:
        until = time.monotonic() + _HEALTHY_SECONDS
        while not self.stack.api.healthy():
            if time.monotonic() > until:
                raise Fault("Airflow is not healthy again")
            time.sleep(0.5)


class DagRun:
    """A run of the DAG in a scene, which ends as a command does."""

    def __init__(self, scene: Scene, conf: dict[str, Any]) -> None:
        self._scene = scene
        self._stack = scene.servers.stack.stack
        self._began = time.monotonic()
        self._id = self._stack.api.trigger(conf)

    @property
    def running(self) -> bool:
        """Whether it has not ended; one whose state nobody tells just now has not."""
        return self._state() in ("queued", "running")

    def _state(self) -> str:
        try:
            return self._stack.api.run_state(self._id)
        except AirflowError:
            return "running"

    def wait_deferred(self, seconds: float = 90.0) -> None:
        """Wait until scoring is deferred."""
        until = time.monotonic() + seconds
        while "deferred" not in self._stack.states(self._id).get("score", []):
            if time.monotonic() > until or not self.running:
                raise Fault(f"scoring was never deferred: {self._stack.states(self._id)}")
            time.sleep(0.2)

    def clear(self, task_id: str) -> None:
        """What the Clear button does."""
        self._stack.clear(self._id, task_id)

    def finish(self) -> None:
        """Wait for its end, which must be a good one.

        Raises:
            Fault: It is not, or does not come in time.
        """
        until = self._began + self._scene.limit
        while self.running:
            if time.monotonic() > until:
                raise Fault(f"the DAG run did not end within {self._scene.limit:.0f} s: {self._tasks()}")
            time.sleep(0.5)
        if (state := self._state()) != "success":
            raise Fault(f"the DAG run is {state}: {self._tasks()}")
        report = self._stack.api.xcom(self._id, "report")
        self._scene.ended.append(Ended(0, json.dumps(report), "", time.monotonic() - self._began))

    def _tasks(self) -> str:
        states = self._stack.states(self._id)
        bad = [name for name, found in states.items() if not set(found) <= {"success", "skipped", "upstream_failed"}]
        logs = [self._stack.log(self._id, name)[-600:] for name in bad[:2]]
        return f"{states} {logs}"
