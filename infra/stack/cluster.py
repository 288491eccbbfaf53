"""The Dask cluster of the stack, in a process of its own."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from infra.stack.home import Home
from infra.stack.ports import free_port


def main(root: str) -> None:
    """Hold a local cluster until SIGTERM; tell its addresses in a file."""
    from corpuscore.cluster import local_cluster, trouble_of

    home = Home(Path(root))
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    with local_cluster(dashboard=f"127.0.0.1:{free_port(8787)}") as cluster:
        addresses = {"scheduler": cluster.scheduler_address, "dashboard": cluster.dashboard_link}
        draft = home.dask.with_suffix(".draft")
        draft.write_text(json.dumps(addresses))
        draft.replace(home.dask)
        while not stop.wait(1.0):
            if trouble := trouble_of(cluster.scheduler_address):
                raise trouble


if __name__ == "__main__":
    main(sys.argv[1])
