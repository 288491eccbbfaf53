"""Which cluster, and whether it is well: local workers, or a scheduler that is there already, by its address.

local.py       worker processes on this machine        keeper.py    starts them, replaces them, ends them
connecting.py  a client, opened and closed in time     tls.py       why a scheduler cannot be talked to
versions.py    do workers fit their client             shown.py     what workers show of their work
watching.py    scheduler, workers, stalls              waiting.py   for the first worker
single.py      one task, watched                       quiet.py      lost connections, in a line
"""

from corpuscore.cluster.connecting import address_of, connected, unreachable
from corpuscore.cluster.keeper import trouble_of
from corpuscore.cluster.local import cluster_at, local_cluster
from corpuscore.cluster.single import run_one
from corpuscore.cluster.versions import check
from corpuscore.cluster.waiting import threads_of, wait_for_workers
from corpuscore.cluster.watching import InWork, Watch, watched

__all__ = [
    "InWork",
    "Watch",
    "address_of",
    "check",
    "cluster_at",
    "connected",
    "local_cluster",
    "run_one",
    "threads_of",
    "trouble_of",
    "unreachable",
    "wait_for_workers",
    "watched",
]
