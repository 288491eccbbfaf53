"""What Dask logs of a lost connection, in a line: the traceback tells no more than where in Dask it was met."""

from __future__ import annotations

import logging

from distributed.client import AllExit

#: Loggers of Dask that write tracebacks of connections which end while a cluster does.
_LOGGERS = ("distributed.batched", "distributed.worker")


def log_losses_in_a_line() -> None:
    """For this process; again is fine."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_in_a_line)
    for name in ("asyncio", "distributed.worker.state_machine"):
        logging.getLogger(name).addFilter(_is_news)


def _in_a_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError):
        record.msg, record.args = f"{record.getMessage().rstrip('.')}: {str(error) or type(error).__name__}", ()
        record.exc_info = record.exc_text = None
    return True


def _is_news(record: logging.LogRecord) -> bool:
    """Dask ends a wait for several results by raising AllExit; where nobody waits any more, asyncio logs it as lost.

    And a worker that is closed says of each task that it was at that it was cancelled.
    """
    if record.exc_info and isinstance(record.exc_info[1], AllExit):
        return False
    said = record.getMessage()
    return not (said.startswith("Async instruction for <Task cancelled") and said.endswith("CancelledError"))
