"""Where the stack keeps its files, and what it writes down about itself."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLE = CHECKOUT / "infra" / "demo" / "corpus"


@dataclass(frozen=True, slots=True)
class State:
    """What the keeper tells about the stack.

    Attributes:
        phase: What is going on, in words for people.
        ready: Everything answers.
        failed: Why it ended, empty while it has not.
        airflow: Address of the Airflow UI and its API.
        scheduler, dashboard: Addresses of the Dask scheduler and of its dashboard.
    """

    phase: str = "Starting"
    ready: bool = False
    failed: str = ""
    airflow: str = ""
    scheduler: str = ""
    dashboard: str = ""


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with everything that the stack writes."""

    root: Path

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / "airflow"

    @property
    def store(self) -> Path:
        """The object store: `corpus/` and `work/`."""
        return self.root / "store"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.root / "warehouse.duckdb"

    @property
    def lock(self) -> Path:
        """Held by the keeper as long as it lives: one stack a home."""
        return self.root / "keeper.lock"

    @property
    def dask(self) -> Path:
        """Addresses of the cluster, written by its process once it is up."""
        return self.root / "dask.json"

    @property
    def passwords(self) -> Path:
        """Where Airflow writes the login that it made up."""
        return self.airflow / "simple_auth_manager_passwords.json.generated"

    def log(self, service: str) -> Path:
        """Output of a service."""
        return self.root / "logs" / f"{service}.log"

    def make(self) -> None:
        """Create the folders, and put the sample corpus into the store where it is missing or another one."""
        for folder in (self.airflow, self.store / "corpus", self.root / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(SAMPLE.glob("*.jsonl")):
            target = self.store / "corpus" / source.name
            if not target.exists() or target.read_bytes() != source.read_bytes():
                shutil.copyfile(source, target)

    def job(self, scheduler: str) -> dict[str, Any]:
        """What the trigger form starts with here."""
        return {
            "corpus": [f"{self.store}/corpus/"],
            "id_columns": ["id"],
            "keep_columns": ["story"],
            "work": f"{self.store}/work/",
            "warehouse": f"duckdb:///{self.warehouse}",
            "cluster": scheduler,
            "partition_rows": 64,
        }

    def login(self) -> tuple[str, str]:
        """User and password of the Airflow UI."""
        user, password = next(iter(json.loads(self.passwords.read_text()).items()))
        return user, password

    def write_state(self, state: State) -> None:
        """Replace the state in one step, since others read it at any time."""
        draft = self.root / "state.draft"
        draft.write_text(json.dumps(asdict(state)))
        draft.replace(self.root / "state.json")

    def state(self) -> State:
        """What the keeper wrote last."""
        try:
            return State(**json.loads((self.root / "state.json").read_text()))
        except FileNotFoundError:
            return State()

    def forget(self) -> None:
        """Remove what only holds while the stack runs."""
        for path in (self.root / "state.json", self.dask):
            path.unlink(missing_ok=True)


def default() -> Home:
    """`.local/` of this checkout, or CORPUSCORE_HOME."""
    return Home(Path(os.environ.get("CORPUSCORE_HOME", CHECKOUT / ".local")).absolute())
