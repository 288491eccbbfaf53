"""With the smallest policy of docs/permissions.md a run is done; without a right of it, the message says so."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from corpuscore import stages
from corpuscore.errors import StorageError
from corpuscore.report import Report
from corpuscore.runs import Run
from corpuscore.scoring.partition import ScoringContext, score_partition
from corpuscore.storage import filesystem
from tests.servers.jobs import MakeJob
from tests.servers.s3 import S3Server, point_at, running_s3_server

PAGE = Path(__file__).parents[2] / "docs" / "permissions.md"
ALLOWED = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"]
COURTESIES = ["s3:ListBucketMultipartUploads", "s3:AbortMultipartUpload"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that asks for rights once it is told to."""
    with running_s3_server(tmp_path_factory.mktemp("iam") / "log") as made:
        yield made


def enforce(server: S3Server, after: str) -> None:
    """Let the server look at policies after so many requests: `0` or `inf`."""
    address = f"{server.endpoint}/moto-api/reset-auth"
    request = urllib.request.Request(address, after.encode(), {"Content-Type": "text/plain"})  # noqa: S310 (loopback)
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 (loopback)


def policy(corpus: str, work: str, without: str = "") -> str:
    """The page's policy for two buckets, less one right."""
    (found,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made: dict[str, Any] = json.loads(found.replace(":::CORPUS", f":::{corpus}").replace(":::WORK", f":::{work}"))
    for statement in made["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        statement["Action"] = [action for action in actions if action != without] or ["s3:GetBucketLocation"]
    return json.dumps(made)


@pytest.fixture
def places(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Two buckets, a corpus in the first."""
    enforce(server, "inf")
    point_at(server.endpoint, monkeypatch)
    corpus, work = server.make_bucket(), server.make_bucket()
    client, path = filesystem(f"{corpus}/texts/a.jsonl")
    client.pipe_file(path, b'{"id": "a", "text": "the day"}\n{"id": "b", "text": "the night"}\n')
    yield corpus, work
    enforce(server, "inf")


def be(server: S3Server, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as a user with this policy."""
    iam = botocore.session.get_session().create_client("iam", endpoint_url=server.endpoint)
    name = f"user-{abs(hash(policy))}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="corpuscore", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    enforce(server, "0")


def run_here(make_job: MakeJob, corpus: str, work: str) -> Report:
    """All stages in this process, with its rights."""
    job = make_job(corpus=[f"{corpus}/texts"], work=f"{work}/scores", cluster="local")
    planned = stages.plan(job)
    run = Run.open(planned.run)
    context = ScoringContext(run.store.uri, job.reading, job.scoring, run.manifest.scorer)
    for at in run.pending():
        work_id = run.manifest.work_ids[at]
        score_partition(run.manifest.partition(at), work_id, context, "here")
        run.withdraw([work_id])  # a validation that finds damage does
        score_partition(run.manifest.partition(at), work_id, context, "here")
    stages.validate(planned.run)
    stages.load(planned.run)
    return stages.report(planned.run)


def test_the_smallest_policy_is_enough(
    server: S3Server, places: tuple[str, str], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run, with what it deletes."""
    corpus, work = places
    client, path = filesystem(f"{work}/scores/parts/half")
    bucket, _, key = path.partition("/")
    client.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    be(server, policy(corpus.removeprefix("s3://"), work.removeprefix("s3://")), monkeypatch)
    assert run_here(make_job, corpus, work).rows_in_table == 2
    client, _ = filesystem(work)
    assert client.list_multipart_uploads(bucket) == []


@pytest.mark.parametrize("right", ALLOWED)
def test_a_right_that_is_missing_is_told(
    right: str, server: S3Server, places: tuple[str, str], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends at once, and its message says what was refused and where rights are looked up."""
    corpus, work = places
    be(server, policy(corpus.removeprefix("s3://"), work.removeprefix("s3://"), without=right), monkeypatch)
    with pytest.raises(StorageError, match=r"s3://.*access refused.*Next: check AWS_ACCESS_KEY_ID.*rights"):
        run_here(make_job, corpus, work)


@pytest.mark.parametrize("right", COURTESIES)
def test_tidying_up_is_a_courtesy(
    right: str,
    server: S3Server,
    places: tuple[str, str],
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without the right to end uploads a run ends well, and says that they stay."""
    corpus, work = places
    client, path = filesystem(f"{work}/scores/parts/half")
    bucket, _, key = path.partition("/")
    client.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    be(server, policy(corpus.removeprefix("s3://"), work.removeprefix("s3://"), without=right), monkeypatch)
    assert run_here(make_job, corpus, work).rows_in_table == 2
    assert "Uploads that were not ended stay" in caplog.text


@pytest.mark.parametrize("elsewhere", ["corpus", "work"])
def test_the_policy_allows_nothing_else(
    elsewhere: str, server: S3Server, places: tuple[str, str], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written into the corpus, nor read or written in other buckets."""
    corpus, work = places
    other = server.make_bucket()
    be(server, policy(corpus.removeprefix("s3://"), work.removeprefix("s3://")), monkeypatch)
    swapped = (other, work) if elsewhere == "corpus" else (corpus, corpus)
    with pytest.raises(StorageError, match="access refused"):
        run_here(make_job, *swapped)
