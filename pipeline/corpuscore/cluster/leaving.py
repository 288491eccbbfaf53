"""A preload of local workers: one that is left alone says so in a line, and one that was closed leaves at once.

Taking Python down by the book takes seconds after the tables of botocore and the like were loaded, and a nanny that
waits for it kills the process with a warning. There is nothing to put away: what a worker writes is written whole, and
what it had open was closed with the worker.
"""

from __future__ import annotations

import atexit
import os
import sys

from distributed import Worker

from corpuscore.cluster.quiet import log_losses_in_a_line


def dask_setup(_: Worker) -> None:
    """Called by Dask in the worker's process, before it starts."""
    atexit.register(_leave)
    log_losses_in_a_line()


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
