"""One task on a worker: watched like a dispatch, with a word each minute, and with errors that are ours."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from corpuscore.cluster.connecting import LOST, address_of, unreachable
from corpuscore.cluster.waiting import threads_of, wait_for_workers
from corpuscore.cluster.watching import watched
from corpuscore.errors import ClusterUnavailable, CorpuscoreError, PermanentError, from_json, to_json, unforeseen
from corpuscore.patience import LINE_SECONDS, Wait

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


async def run_one(
    client: Client,
    function: Callable[..., Any],
    *arguments: Any,
    what: str,
    limit: float = math.inf,
    key: Any = None,
    say: Callable[[str], None] = log.warning,
    **named: Any,
) -> Any:
    """Run a function on a worker of the cluster and wait for what it returns.

    Args:
        client: Of the cluster; used on its own event loop.
        function: With its arguments, named ones too.
        what: Names it in lines and errors, such as `describing the model`.
        limit: Seconds that it may take.
        key: Of the task; None makes one.
        say: Takes a line each minute.

    Raises:
        CorpuscoreError: What the function raised; a PermanentError where that is none of our own.
        ClusterUnavailable: It took too long, its workers ended, or the cluster lost it.
        SchedulerLost: The scheduler went away.
        ClusterError: A worker does not fit this client.
    """
    async with watched(client, say) as watch:
        answer = await watch.guard(_run(client, (function, arguments, named), what, limit, key, say))
    if "error" in answer:
        raise from_json(answer["error"])
    return answer["result"]


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """The Dask task: what the function returns, or its error as data, of which the worker then makes no traceback."""
    try:
        return {"result": function(*arguments, **named)}
    except CorpuscoreError as error:
        return {"error": to_json(error)}
    except Exception as error:
        log.debug("%s failed", function, exc_info=error)
        return {"error": to_json(unforeseen(PermanentError, f"{function.__name__} on a worker", error))}


async def _run(
    client: Client, call: tuple[Any, ...], what: str, limit: float, key: Any, say: Callable[[str], None]
) -> dict[str, Any]:
    future = client.submit(attempt, *call, key=key, pure=False)
    try:
        return await _answer(client, future, Wait(f"{what} on {address_of(client)}", limit, say, quiet=LINE_SECONDS))
    except KilledWorker as error:
        raise ClusterUnavailable(
            f"{what} ended {error.allowed_failures + 1} workers of {address_of(client)}, one after the other",
            next_step="look into the workers' logs (out of memory?)",
        ) from error
    except (NoWorkerError, NoValidWorkerError) as error:
        raise ClusterUnavailable(
            f"{what}: the cluster at {address_of(client)} had no worker for {error.timeout:,.0f} s",
            next_step="start workers, then run this again",
        ) from error
    except CancelledError as error:  # the cluster lost it; ours would be asyncio's
        if client.status != "running":
            raise unreachable(address_of(client), LOST) from error
        raise ClusterUnavailable(
            f"{what} was lost by the cluster at {address_of(client)}",
            next_step="look into the scheduler's log, then run this again",
        ) from error
    finally:
        future.release()


async def _answer(client: Client, future: Future[Any], wait: Wait) -> dict[str, Any]:
    answer = asyncio.ensure_future(_awaited(future))
    try:
        while not answer.done():
            if not threads_of(client):
                await wait_for_workers(client, say=wait.say)
            if wait.over():
                raise ClusterUnavailable(
                    f"{wait.what} took more than {wait.limit:,.0f} s",
                    next_step="look at what its worker does, then run this again",
                )
            await asyncio.wait({answer}, timeout=_LOOK_SECONDS)
        return answer.result()
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


async def _awaited(future: Future[Any]) -> dict[str, Any]:
    result: dict[str, Any] = await future
    return result
