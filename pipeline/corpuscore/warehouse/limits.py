"""How long a warehouse is waited for, from one setting: `corpuscore.wait-for-warehouse` in Dask's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import dask.config
from dask.utils import parse_timedelta

from corpuscore.errors import WarehouseError

_KEY = "corpuscore.wait-for-warehouse"
_PATIENCE = "10m"
#: The setting in the environment, for messages.
VARIABLE = "DASK_CORPUSCORE__WAIT_FOR_WAREHOUSE"


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds; all follow the first one, and stay as they are where that is longer than ten minutes.

    Attributes:
        patience: How long a call is tried again, from its first failure.
        lock: How long one try waits for a lock that another session holds.
        look: How often a server that has not answered yet is looked at.
        silence: How long a server may answer neither a call nor a look.
    """

    patience: float
    lock: float
    look: float
    silence: float

    @classmethod
    def of(cls, patience: float) -> Self:
        """The limits that follow from a patience."""
        return cls(
            patience,
            lock=min(30.0, max(1.5, patience / 20)),
            look=min(10.0, max(0.5, patience / 60)),
            silence=min(60.0, max(2.0, patience / 10)),
        )

    @classmethod
    def configured(cls) -> Self:
        """Those of the configuration, such as `DASK_CORPUSCORE__WAIT_FOR_WAREHOUSE=30m`; ten minutes without one.

        Raises:
            WarehouseError: The setting is no time.
        """
        said = dask.config.get(_KEY, default=_PATIENCE)
        try:
            return cls.of(float(parse_timedelta(said)))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise WarehouseError(
                f"{_KEY} is {said!r} in Dask's configuration",
                rule="It is a time such as 90s or 15m",
                next_step=f"correct it in Dask's YAML files, or {VARIABLE} in the environment",
            ) from error
