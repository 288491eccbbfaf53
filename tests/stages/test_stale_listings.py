"""A listing that is old or leaves something out costs a second look: nothing is lost, scored twice or removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corpuscore import stages
from corpuscore.errors import ValidationFailed
from corpuscore.job import Job
from corpuscore.records import receipt_key
from corpuscore.runs import Run
from corpuscore.storage import Store
from tests.servers.jobs import MakeJob, query, run_all
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server, point_at


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that this process's AWS environment leads to; the workers' leads to the server itself."""
    with FaultProxy(s3_server.endpoint) as made:
        point_at(made.endpoint, monkeypatch)
        yield made


@pytest.fixture
def job(proxy: FaultProxy, s3_server: S3Server, make_job: MakeJob) -> Job:
    """Three objects of two documents in a bucket, and the work location in another."""
    corpus = Store(s3_server.make_bucket() + "/corpus")
    for name in "abc":
        lines = [f'{{"id": "{name}{at}", "text": "the day {name}{at}"}}\n' for at in (1, 2)]
        corpus.write(f"{name}.jsonl", "".join(lines).encode())
    return make_job(corpus=[corpus.uri], work=s3_server.make_bucket() + "/work", departed="remove")


def parts_of(job: Job) -> list[str]:
    """The parts in the work location, as they are."""
    return list(Store(job.work).find("parts/"))


@pytest.mark.parametrize("folder", ["receipts/", "parts/", ""])
def test_receipts_and_parts_that_are_not_listed_still_count(folder: str, job: Job, proxy: FaultProxy) -> None:
    """Work looks pending, and whoever takes it finds it done; validation and load go by what is there."""
    planned = stages.plan(job)
    stages.score(planned.run)
    parts = parts_of(job)
    proxy.rule("omitted", key=f"work/{folder}" if folder else "work/(parts|receipts)/")
    assert stages.pending(planned.run) == 3
    stages.score(planned.run)
    stages.validate(planned.run)
    assert stages.load(planned.run).rows_loaded == 6
    assert stages.report(planned.run).rows_in_table == 6
    proxy.clear()
    assert parts_of(job) == parts


def test_receipts_that_are_listed_and_gone_are_missing(job: Job, proxy: FaultProxy) -> None:
    """Nothing looks pending; validation names what is not there, and the work is done once the listing is true."""
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.pending(planned.run)
    work_id = Run.open(planned.run).manifest.work_ids[1]
    proxy.first_listings.clear()
    assert stages.pending(planned.run) == 0
    Store(job.work).delete([receipt_key(work_id)])
    stale = proxy.rule("stale")
    assert stages.pending(planned.run) == 0
    with pytest.raises(ValidationFailed, match=f"{work_id}.* has no receipt"):
        stages.validate(planned.run)
    assert stale.injected
    proxy.clear()
    assert run_all(job).rows_in_table == 6
    assert query(job, "select count(*), count(distinct document_id) from scores") == [(6, 6)]


def test_objects_that_are_not_listed_do_not_depart(job: Job, proxy: FaultProxy) -> None:
    """Rows are removed for objects that are gone, never for a listing that leaves one out."""
    run_all(job)
    rule = proxy.rule("omitted", key="corpus/b")
    run_all(job)
    assert rule.injected
    assert query(job, "select count(*) from scores") == [(6,)]
    proxy.clear()
    Store(job.corpus[0]).delete(["b.jsonl"])
    run_all(job)
    assert query(job, "select document_id from scores order by 1") == [("a1",), ("a2",), ("c1",), ("c2",)]


def test_objects_that_are_not_listed_are_not_told_to_be_deleted(job: Job, proxy: FaultProxy) -> None:
    """The load's look at the corpus asks for what a listing leaves out; of what is gone it gives the name."""
    planned = stages.plan(job)
    stages.score(planned.run)
    stages.validate(planned.run)
    rule = proxy.rule("omitted", key="corpus/b")
    assert stages.load(planned.run).findings == []
    assert rule.injected
    proxy.clear()
    Store(job.corpus[0]).delete(["b.jsonl"])
    (finding,) = stages.load(planned.run).findings
    assert (finding["check"], finding["values"]["examples"]) == ("vanished", [f"{job.corpus[0]}/b.jsonl"])
