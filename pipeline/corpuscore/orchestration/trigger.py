"""The trigger that looks after one chunk while its Airflow task takes no worker slot."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from corpuscore.errors import CorpuscoreError, to_json
from corpuscore.progress import Lines, figures, remaining

if TYPE_CHECKING:
    from corpuscore.tally import Progress

_REPORT_SECONDS = 15.0


class ScoreChunkTrigger(BaseTrigger):
    """Dispatches a chunk's partitions to Dask, follows them, and fires once.

    Work is named by a key of this very trigger instance: the cluster may still hold keys of an earlier attempt, or of
    a triggerer that was killed, and the one's end must not cancel the other's work. Airflow calls `on_kill` about a
    second after a cleared task has started again, so cancelling by a shared name would end the new attempt.
    Source: https://github.com/apache/airflow/issues/72100

    Nothing is cancelled there, then: all that ends a trigger (a user, a shutdown, a timeout) cancels its coroutine,
    and that lets go of its own keys.

    Args:
        run: URI of the run's folder.
        start, stop: Partitions of the chunk, by index.
        cluster: Address, or `conn://ID`, resolved here so that no secret lies in the metadata database.
        dashboard: Address that the task links to; comes back with the event.
    """

    def __init__(self, *, run: str, start: int, stop: int, cluster: str, dashboard: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no type for it
        self.run_uri = run
        self.start = start
        self.stop = stop
        self.cluster = cluster
        self.dashboard = dashboard

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Import path and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "run": self.run_uri,
            "start": self.start,
            "stop": self.stop,
            "cluster": self.cluster,
            "dashboard": self.dashboard,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, with the chunk's summary or with the error that ended it.

        The client lives inside the coroutine that is awaited, never across a `yield`: generators are resumed in other
        contexts, and Dask's context variables cannot be reset there.
        """
        yield TriggerEvent({"dashboard": self.dashboard, **await self._outcome()})

    async def _outcome(self) -> dict[str, Any]:
        """Follow the chunk; a scheduler that goes away is waited for, as long as `corpuscore.wait-for-scheduler` says.

        It is waited for from the first moment: the task looked at the cluster before it deferred, and a triggerer that
        takes over from another may come while the scheduler is away.
        """
        from corpuscore.orchestration.clients import shared_client
        from corpuscore.orchestration.hooks import acluster_access
        from corpuscore.patience import SCHEDULER
        from corpuscore.stages import SchedulerPatience, score_async

        try:
            access = await acluster_access(self.cluster)
            summary = await score_async(
                self.run_uri,
                (self.start, self.stop),
                partial(shared_client, access),
                attempt=uuid.uuid4().hex[:12],
                patience=SchedulerPatience(SCHEDULER.seconds(), at_first=True),
                progress=progress_logger(self.log.info),
                say=self.log.warning,
            )
        except CorpuscoreError as error:
            return {"error": to_json(error)}
        return {"summary": summary.to_json()}


def progress_logger(write: Callable[[str], None]) -> Callable[[Progress], None]:
    """A progress callback that writes a line now and then, and one for the last partition."""
    lines = Lines(write, "partitions", _REPORT_SECONDS)
    return lambda now: lines(now.done, now.total, figures(now), remaining(now))
