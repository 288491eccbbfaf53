"""Dynamic batching: requests that wait together share a pass through the model.

infer -> admission -> tokenize (a thread) -> turns -> forward (a thread) -> the request's own rows
"""

from __future__ import annotations

from corpuscore.scoring.engine import Engine
from corpuscore.scoring.scorer import Scores
from corpuscore.service.admission import Admission
from corpuscore.service.counters import Counters


class Batcher:
    """Scores texts of many clients with one engine; used from one event loop.

    Args:
        engine: The loaded model.
        counters: Told of what happens.
        admission: How much may wait.
        max_wait_seconds: That a pass with room waits for more, while nothing runs.
    """

    def __init__(
        self, engine: Engine, counters: Counters, admission: Admission | None = None, *, max_wait_seconds: float = 0.005
    ) -> None: ...

    @property
    def ready(self) -> bool:
        """Whether requests are taken: not while it drains, nor after the model has failed for good."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Requests that wait."""
        raise NotImplementedError

    async def infer(self, texts: list[str], deadline: float | None = None) -> Scores:
        """Score texts. Cancelling it lets go of what has not reached the model.

        Args:
            texts: Of one request, in any number that is allowed.
            deadline: On the clock of time.monotonic(); None: no hurry.

        Raises:
            MessageTooLarge: More texts than one request may have.
            Overloaded: The queue is full.
            Draining: It takes no more.
            Expired: The deadline passed first.
            ModelError: The model fails for every text.
        """
        raise NotImplementedError

    async def drain(self) -> None:
        """Take no more, and wait until all that was taken is answered."""
        raise NotImplementedError
