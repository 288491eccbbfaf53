"""The task that scores one chunk: in the triggerer's care on a cluster, or right here on a local one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, BaseOperatorLink

from corpuscore.errors import from_json
from corpuscore.orchestration.telling import told
from corpuscore.orchestration.trigger import ScoreChunkTrigger, progress_logger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey


class DaskDashboardLink(BaseOperatorLink):
    """A button on the task that opens the cluster's dashboard, also while the task is deferred."""

    name = "Dask dashboard"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Address of the dashboard; empty where the chunk needed no cluster."""
        return operator.dashboard if isinstance(operator, ScoreChunkOperator) else ""


class ScoreChunkOperator(BaseOperator):
    """Scores the partitions of one chunk that have no receipt yet.

    Args:
        run: URI of the run's folder, from the plan.
        chunk: First partition and the one after the last, by index in the manifest.
        cluster: `local`: worker processes of this task; an address or `conn://ID`: the task defers, and a trigger
            follows the work.
        timeout: Of the wait; the next attempt takes up what is scored by then.
    """

    template_fields: Sequence[str] = ("run", "chunk", "cluster")
    operator_extra_links = (DaskDashboardLink(),)
    ui_color = "#f6e0b5"

    def __init__(
        self,
        *,
        run: str,
        chunk: Sequence[int],
        cluster: str = "local",
        timeout: timedelta = timedelta(days=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.chunk = chunk
        self.cluster = cluster
        self.timeout = timeout
        self.dashboard = ""

    @told
    def execute(self, context: Context) -> dict[str, Any] | None:
        """Look whether there is work and somebody to do it; then score here, or defer.

        Raises:
            Told: The run, the cluster or a partition cannot be used.
        """
        from corpuscore import stages

        start, stop = self.chunk
        waiting = stages.pending(self.run, (start, stop))
        if not waiting:
            self.log.info("All %d partitions have their receipts: nothing to score.", stop - start)
            return None
        self.log.info("%d of %d partitions are to be scored on %s.", waiting, stop - start, self.cluster)
        if self.cluster == "local":
            return stages.score(self.run, (start, stop), progress=progress_logger(self.log.info)).to_json()
        return self._defer(start, stop)

    def _defer(self, start: int, stop: int) -> NoReturn:
        from corpuscore.orchestration.clients import look_at
        from corpuscore.orchestration.hooks import cluster_access

        self.dashboard, workers = asyncio.run(look_at(cluster_access(self.cluster)))
        self.log.info("The cluster's workers: %d; its dashboard: %s", workers, self.dashboard)
        trigger = ScoreChunkTrigger(
            run=self.run, start=start, stop=stop, cluster=self.cluster, dashboard=self.dashboard
        )
        self.defer(trigger=trigger, method_name="finish", timeout=self.timeout)

    @told
    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Come back when the trigger has fired.

        Raises:
            Told: What ended the chunk.
        """
        self.dashboard = event["dashboard"]  # this is another process than the one that deferred
        if "error" in event:
            raise from_json(event["error"])
        summary: dict[str, Any] = event["summary"]
        self.log.info("Scored: %s", summary)
        return summary
