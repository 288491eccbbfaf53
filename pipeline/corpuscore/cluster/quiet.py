"""What Dask logs of a lost connection, in a line: the traceback tells no more than where in Dask it was met."""

from __future__ import annotations

import logging

#: Loggers of Dask that write tracebacks of connections which end while a cluster does.
_LOGGERS = ("distributed.batched", "distributed.worker")


def log_losses_in_a_line() -> None:
    """For this process; again is fine."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_in_a_line)


def _in_a_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError):
        record.msg, record.args = f"{record.getMessage().rstrip('.')}: {str(error) or type(error).__name__}", ()
        record.exc_info = record.exc_text = None
    return True
