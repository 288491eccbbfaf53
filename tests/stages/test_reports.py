from __future__ import annotations

import getpass
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from corpuscore import stages
from corpuscore.cli import main
from corpuscore.job import Job
from corpuscore.report import Report
from corpuscore.stages.reporting import _timeline
from corpuscore.storage import Store, link_of
from tests.servers.jobs import MakeJob, run_all, write_jsonl
from tests.test_tally import receipt_of


@pytest.fixture
def job(make_job: MakeJob, tmp_path: Path) -> Job:
    """Sixty documents in two objects, and one reject."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [f"a{number}" for number in range(40)])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [f"b{number}" for number in range(20)])
    (tmp_path / "corpus" / "c.jsonl").write_text('{"id": "c", "text": ""}\n')
    return make_job(max_reject_fraction=0.5, partition_rows=500)


def _page(report: Report) -> str:
    return Path(urlsplit(report.page).path).read_text("utf-8")


def test_each_execution_has_a_report_of_its_own(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that finds nothing to do says what the table holds, and leaves the one before as it was."""
    for name, value in (("DAG_ID", "score_corpus"), ("DAG_RUN_ID", "manual__1")):
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    first = run_all(job)
    written = _page(first)
    assert "<h1>60 documents scored</h1>" in written
    assert first.asked_by.startswith(f"{getpass.getuser()}@")
    assert first.asked_by.endswith(", Airflow score_corpus manual__1")

    again = stages.report(first.run)  # the same execution
    assert again.page == first.page
    second = run_all(job)
    assert second.page != first.page
    assert "<h1>Nothing to do: 60 documents were there already</h1>" in _page(second)
    assert "<h1>60 documents scored</h1>" in _page(first)
    assert stages.status(first.run).report == second.page
    assert [Path(key).suffix for key in Store(first.run).find("reports/")] == [".html", ".json"] * 2


def test_a_report_tells_where_documents_and_time_went(job: Job) -> None:
    """By object, by step, over time, and which were rejects; what a later run adds is compared with the first."""
    report = run_all(job)
    assert [(Path(item.uri).name, item.rows, item.rejected) for item in report.objects] == [
        ("a.jsonl", 40, 0),
        ("b.jsonl", 20, 0),
        ("c.jsonl", 1, 1),
    ]
    assert (report.objects_total, report.workers > 0, report.worker_seconds > 0) == (3, True, True)
    assert [(Path(item.place).name, item.reason) for item in report.rejects] == [("c.jsonl#0", "empty")]
    assert len(report.timeline) == 60
    assert report.options["--partition-rows"] == 500
    assert report.previous_means == {}
    assert run_all(job).previous_means == pytest.approx(report.label_means, abs=1e-6)


def test_rates_over_time_add_up_to_the_documents() -> None:
    """A partition's documents are spread over the time that it took, however its ends fall on the steps."""
    receipts = [
        replace(receipt_of("1"), rows=100, seconds=30.0, ended=1030.0),
        replace(receipt_of("2"), rows=50, seconds=0.5, ended=1060.0),
    ]
    rates = _timeline(receipts)
    assert sum(rates) * 60.0 / len(rates) == pytest.approx(150, rel=1e-3)
    assert rates[0] == pytest.approx(100 / 30, rel=1e-3)
    assert rates[40] == 0.0
    assert _timeline([receipt_of("old")]) == []


def test_a_page_opens_in_a_browser(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its address; where there is no browser, the address is told."""
    report = run_all(job)
    opened: list[str] = []

    def no_browser(url: str) -> bool:
        opened.append(url)
        return False

    monkeypatch.setattr("webbrowser.open", no_browser)
    told = CliRunner().invoke(main, ["report", report.run, "--open"])
    assert opened == [report.page]
    assert f"no browser was found; the page is {report.page}" in told.stderr


def test_a_page_in_a_bucket_gets_a_signed_link(s3: str) -> None:
    """One that opens without credentials, and is nothing but that object's."""
    Store(s3).write("page.html", b"<h1>here</h1>")
    link = link_of(f"{s3}/page.html")
    with urllib.request.urlopen(link) as answer:  # noqa: S310  # of a server on this machine
        assert answer.read() == b"<h1>here</h1>"
    assert "Signature" in link
