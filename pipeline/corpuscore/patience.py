"""How long corpuscore waits, for what, and what it says meanwhile: the one place that reads these settings.

| setting of Dask's configuration | default | what is waited for |
|---|---|---|
| `corpuscore.wait-for-workers` | 10m | the first worker of a cluster that has none |
| `corpuscore.wait-for-scheduler` | 10m | a scheduler that went away while work was under way |
| `corpuscore.wait-for-store` | 90s | an object store that is out of order |
| `corpuscore.wait-for-warehouse` | 10m | a warehouse that is down, restarting or locked |
| `corpuscore.wait-for-service` | 10m | a service of a model that is gone, or that gives no scores |
| `corpuscore.service-answer` | 60s | the answer of such a service to one request |
| `corpuscore.stall` | 5m | a partition whose figures do not change |
| `corpuscore.loading` | 30m | a partition that has not begun: its model is downloaded and loaded first |
| `corpuscore.silence` | 60s | a sign of life of a scheduler or a worker |

Each can be said in Dask's YAML files, or in the environment: `DASK_CORPUSCORE__STALL=90s`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import dask
from dask.utils import parse_timedelta

from corpuscore.errors import ClusterError, ModelError, PermanentError, StorageError, WarehouseError

log = logging.getLogger(__name__)

#: Between two lines about one wait.
LINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """One setting: for how long something is waited for.

    Attributes:
        key: In Dask's configuration, without `corpuscore.`.
        default: Where nothing is said.
        refusal: Raised where what is said is no time.
    """

    key: str
    default: str
    refusal: type[PermanentError] = ClusterError

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"DASK_CORPUSCORE__{self.key.upper().replace('-', '_')}"

    def seconds(self) -> float:
        """What is said now.

        Raises:
            PermanentError: It is no time; of the type `refusal`.
        """
        said = dask.config.get(f"corpuscore.{self.key}", default=self.default)
        try:
            return float(parse_timedelta(said))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise self.refusal(
                f"corpuscore.{self.key} is {said!r} in Dask's configuration",
                rule="It is a time such as 90s or 15m",
                next_step=f"correct it in Dask's YAML files, or {self.variable} in the environment",
            ) from error


WORKERS = Patience("wait-for-workers", "10m")
SCHEDULER = Patience("wait-for-scheduler", "10m")
STORE = Patience("wait-for-store", "90s", StorageError)
WAREHOUSE = Patience("wait-for-warehouse", "10m", WarehouseError)
SERVICE = Patience("wait-for-service", "10m", ModelError)
ANSWER = Patience("service-answer", "60s", ModelError)
STALL = Patience("stall", "5m")
LOADING = Patience("loading", "30m")
SILENCE = Patience("silence", "60s")


@dataclass(slots=True)
class Wait:
    """One wait with a limit; it says each minute what it waits for.

    Args:
        what: A sentence without its end, such as `tcp://s:8786 has no worker`.
        limit: Seconds.
        say: Takes the line; a warning in the log where nothing is given.
        quiet: Seconds before the first line.
    """

    what: str
    limit: float
    say: Callable[[str], None] = log.warning
    quiet: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _said: float = -math.inf

    @property
    def waited(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def over(self) -> bool:
        """Whether the limit is reached; if not, the line is written, when it is time to."""
        waited = self.waited
        if waited >= self.limit:
            return True
        if waited >= self.quiet and waited - self._said >= LINE_SECONDS:
            self._said = waited
            of = f" of {self.limit:.0f}" if math.isfinite(self.limit) else ""
            self.say(f"{self.what}: waited {waited:.0f}{of} s.")
        return False
