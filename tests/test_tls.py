"""All stages over a cluster that speaks TLS, and nothing else."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest

from corpuscore.errors import ClusterError
from tests.servers.dask import running_scheduler, running_worker
from tests.servers.jobs import MakeJob, query, run_all, write_jsonl
from tests.servers.tls import make_authority

pytestmark = pytest.mark.timeout(150)


def test_a_run_goes_through_over_tls(make_job: MakeJob, tmp_path: Path) -> None:
    """plan asks a worker for the model, score sends partitions; both by certificates that one authority signed."""
    authority = make_authority(tmp_path / "tls")
    for name in "abc":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number}" for number in range(20)])
    with running_scheduler(authority) as scheduler, running_worker(scheduler.address, authority):
        job = make_job(cluster=scheduler.address)
        with pytest.raises(ClusterError, match=r"distributed\.comm\.tls"):  # nothing to show yet
            run_all(job)
        with dask.config.set(authority.settings):
            report = run_all(job)
    assert scheduler.address.startswith("tls://")
    assert (report.rows, report.rows_in_table) == (60, 60)
    assert query(job, "select count(distinct document_id) from scores") == [(60,)]
