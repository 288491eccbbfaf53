"""How long a warehouse is waited for: times that follow from one setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from corpuscore.patience import WAREHOUSE


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
            lock=min(30.0, max(5.0, patience / 20)),
            look=min(10.0, max(0.5, patience / 60)),
            silence=min(60.0, max(2.0, patience / 10)),
        )

    @classmethod
    def configured(cls) -> Self:
        """Those of the configuration.

        Raises:
            WarehouseError: The setting is no time.
        """
        return cls.of(WAREHOUSE.seconds())
