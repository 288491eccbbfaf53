"""The five verbs that the DAG and the command line share: plan, score, validate, load, report. Sample, prune, looks.

    corpus -> plan -> manifest -> score -> part + receipt -> validate -> load -> warehouse -> report

Stages meet only through files in the work location (see runs.py) and the JSON-sized summaries that they return. Every
stage can be repeated; what is done already is found and adopted.
"""

from corpuscore.stages.checking import validate
from corpuscore.stages.dispatching import SchedulerPatience, pending, score, score_async
from corpuscore.stages.loading import load
from corpuscore.stages.looking import find_run, rejects, runs, status
from corpuscore.stages.planning import check_warehouse, plan
from corpuscore.stages.pruning import prune
from corpuscore.stages.reporting import report
from corpuscore.stages.sampling import sample

__all__ = [
    "SchedulerPatience",
    "check_warehouse",
    "find_run",
    "load",
    "pending",
    "plan",
    "prune",
    "rejects",
    "report",
    "runs",
    "sample",
    "score",
    "score_async",
    "status",
    "validate",
]
