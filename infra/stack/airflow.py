"""Airflow of the stack: its environment, and the few calls of its REST API that the demo needs."""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra.stack.home import CHECKOUT, Home
from infra.stack.ports import free_port

DAG = "score_corpus"
_TIMEOUT_SECONDS = 30
_PATIENCE = 5


def environment(home: Home, scheduler: str, base_url: str, taken: set[int]) -> dict[str, str]:
    """Settings of `airflow standalone`, complete: whatever the caller's environment says of Airflow is left out."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    port = base_url.rpartition(":")[2]
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}:{inherited.get('PATH', '')}",
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__API__BASE_URL": base_url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": str(min(4, max(2, os.cpu_count() or 2))),  # so many processes start at once
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port(8794, taken)),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port(8793, taken)),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # seconds; of a machine that does everything at once
        "AIRFLOW__CORPUSCORE__DEFAULTS": json.dumps(home.job(scheduler)),
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


class AirflowError(Exception):
    """The API refused a request, or does not answer."""


class AirflowBusyError(AirflowError):
    """Nobody answers just now; a loaded machine may need a while."""


class Airflow:
    """A client of the REST API.

    Args:
        url: Address of the API server.
        login: User and password.
    """

    def __init__(self, url: str, login: tuple[str, str]) -> None:
        self.url = url
        self._login = login
        self._token = ""

    def healthy(self) -> bool:
        """Whether database, scheduler, triggerer and DAG processor are up and know the DAG."""
        try:
            health = self._ask("GET", "/api/v2/monitor/health")
            self._ask("GET", "/execution/health")  # built when first asked, for longer than the first task waits
            self._ask("GET", f"/api/v2/dags/{DAG}", None, self._bearer())
        except AirflowError:
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health[part]["status"] == "healthy" for part in parts)

    def import_errors(self) -> list[str]:
        """Why DAG files could not be read."""
        return [error["stack_trace"] for error in self.get("/api/v2/importErrors")["import_errors"]]

    def trigger(self, conf: dict[str, Any]) -> str:
        """Start a run of the DAG; its id."""
        started: str = self.post(f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
        return started

    def run_state(self, run_id: str) -> str:
        """Such as running, success or failed."""
        state: str = self.get(f"{self._run(run_id)}")["state"]
        return state

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances."""
        listed: list[dict[str, Any]] = self.get(f"{self._run(run_id)}/taskInstances?limit=1000")["task_instances"]
        return listed

    def xcom(self, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What a task returned; None before it did."""
        try:
            entry = self.get(f"{self._run(run_id)}/taskInstances/{task_id}/xcomEntries/{key}?deserialize=true")
        except AirflowError:
            return None
        return entry["value"]

    def log(self, run_id: str, task: dict[str, Any]) -> list[str]:
        """Lines of a task's last attempt, errors with the last line of their traceback."""
        where = f"{self._run(run_id)}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
        content = self.get(f"{where}?map_index={task['map_index']}&full_content=true")["content"]
        return [line for event in content for line in _lines(event)]

    def get(self, path: str) -> Any:
        """An authorised request.

        Raises:
            AirflowError: Naming what was asked and what came back.
        """
        for _ in range(_PATIENCE):
            try:
                return self._ask("GET", path, None, self._bearer())
            except AirflowBusyError:
                continue
        return self._ask("GET", path, None, self._bearer())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """An authorised request that changes something.

        Raises:
            AirflowError: Naming what was asked and what came back.
        """
        return self._ask("POST", path, body, self._bearer())

    def _run(self, run_id: str) -> str:
        return f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id, safe='')}"

    def _bearer(self) -> dict[str, str]:
        if not self._token:
            user, password = self._login
            self._token = self._ask("POST", "/auth/token", {"username": user, "password": password})["access_token"]
        return {"Authorization": f"Bearer {self._token}"}

    def _ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  # the address is our own
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AirflowError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
        except (OSError, ValueError) as error:  # nobody there, or somebody else
            raise AirflowBusyError(f"{method} {path}: {error}") from error


def _lines(event: dict[str, Any] | str) -> list[str]:
    if isinstance(event, str):
        return [event]
    text = str(event.get("event", ""))
    if text.startswith("::"):
        return []
    details = [f"{detail['exc_type']}: {detail['exc_value']}" for detail in event.get("error_detail") or []]
    return [text, *details]
