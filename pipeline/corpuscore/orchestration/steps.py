"""The stages as Airflow tasks need them: from params to a Job, from findings to log lines, from a table to an asset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import dask
from airflow.sdk.definitions.asset import Asset

from corpuscore import stages
from corpuscore.addresses import shown
from corpuscore.errors import ValidationFailed
from corpuscore.job import Job
from corpuscore.orchestration.hooks import cluster_access, warehouse_url
from corpuscore.runs import Run
from corpuscore.summaries import LoadSummary, PlanSummary

log = logging.getLogger(__name__)

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}

Params = Mapping[str, Any]


def plan(params: Params) -> PlanSummary:
    """Plan the run of these params; what the form leaves to connections is looked up here.

    Raises:
        PermanentError, TransientError: Those of stages.check_warehouse and stages.plan; JobError for a
            connection that cannot be used.
    """
    access = cluster_access(params["cluster"])
    given = {name: value for name, value in params.items() if value is not None}  # an empty field of the form is null
    job = Job.build({**given, "cluster": access.address, "warehouse": warehouse_url(params["warehouse"])})
    with dask.config.set(access.dask_config):
        stages.check_warehouse(job)
        planned = stages.plan(job)
    rows = "not counted before reading" if planned.rows is None else f"{planned.rows:,}"
    log.info("%d partitions, %d of them to be scored; documents: %s", planned.partitions, planned.pending, rows)
    if planned.kept_cuts:
        log.info("%d objects keep the cut in which they were scored", planned.kept_cuts)
    return planned


def chunks(planned: PlanSummary, params: Params) -> list[list[int]]:
    """One mapped task a chunk; a single one on a local cluster, since each task would start workers of its own."""
    if params["cluster"] == "local" and planned.chunks:
        return [[planned.chunks[0][0], planned.chunks[-1][1]]]
    return planned.chunks


def validate(run: str, params: Params) -> dict[str, Any]:
    """Check the scores; every finding becomes a line of the log.

    Raises:
        ValidationFailed: There is an error among the findings.
    """
    try:
        checked = stages.validate(run, warehouse=warehouse_url(params["warehouse"]))
    except ValidationFailed:
        _log_findings((Run.open(run).read("findings") or {}).get("findings", []))
        raise
    _log_findings(checked.findings)
    return checked.to_json()


def load(run: str, params: Params) -> LoadSummary:
    """Load what validation has checked."""
    loaded = stages.load(run, warehouse=warehouse_url(params["warehouse"]))
    _log_findings(loaded.findings)
    log.info("Loaded: %s", loaded.to_json())
    return loaded


def report(run: str, params: Params) -> dict[str, Any]:
    """Write the report; print it into the log."""
    written = stages.report(run, warehouse=warehouse_url(params["warehouse"]))
    for line in written.text().splitlines():
        log.info(line)
    return written.to_json()


def table_asset(params: Params) -> Asset:
    """The asset that stands for the table, without who logs in.

    Returns:
        `postgresql://host/database/table`, `s3://bucket/prefix/table`, or `file:///path/of.duckdb/table`: Airflow takes
        a scheme of no host apart and puts it together with a slash less, except for files.
    """
    parts = urlsplit(shown(warehouse_url(params["warehouse"]).removeprefix("parquet+")))
    if parts.scheme in ("duckdb", "parquet"):
        return Asset(f"file:///{parts.path.lstrip('/')}/{params['table']}")
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2] or "localhost", query="").geturl()
    return Asset(f"{place}/{params['table']}")


def _log_findings(findings: Iterable[Mapping[str, Any]]) -> None:
    for finding in findings:
        log.log(_LEVELS[finding["level"]], "%s: %s", finding["check"], finding["message"])
