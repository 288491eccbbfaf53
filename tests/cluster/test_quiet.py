from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from distributed.client import AllExit

from corpuscore.cluster.quiet import log_losses_in_a_line


def test_what_dask_raises_to_itself_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """A wait that nobody waits for any more leaves no traceback; any other error that nobody took does."""

    async def fail(error: Exception) -> None:
        raise error

    async def abandon() -> None:
        for error in (AllExit(), ValueError("mine")):
            task = asyncio.ensure_future(fail(error))
            await asyncio.wait({task})
            del task
            gc.collect()

    log_losses_in_a_line()
    asyncio.run(abandon())
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_a_worker_that_is_closed_does_not_list_its_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """What else it says of them is told."""
    log_losses_in_a_line()
    tasks = logging.getLogger("distributed.worker.state_machine")
    tasks.warning("Async instruction for <Task cancelled name='execute(1)'> ended with CancelledError")
    tasks.warning("Async instruction for <Task finished> failed")
    assert [record.getMessage() for record in caplog.records] == ["Async instruction for <Task finished> failed"]
