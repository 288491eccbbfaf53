from __future__ import annotations

from dataclasses import replace

from corpuscore.report import Report, Strongest

REPORT = Report(
    run="file:///work/runs/abc", run_id="abc", page="file:///work/runs/abc/report.html",
    corpus=["file:///corpus"], model="bundled", precision="fp32", fingerprint="0123456789abcdef",
    warehouse="duckdb:////data/s.duckdb", table="scores",
    partitions=3, scored_partitions=3, rows=1000, scored=990, rejected=10, truncated=2, reasons={"empty": 10},
    rows_loaded=990, rejects_loaded=10, superseded=0, rows_in_table=990, rejects_in_table=10,
    tokens=50_000, unique_texts=900, seconds=2.0, busy={"read": 0.5, "forward": 2.0},
    label_means={"joy": 0.3, "anger": 0.1}, label_shares={"joy": 0.7, "anger": 0.3},
    strongest=[Strongest("joy", 0.98, "d-1", "<b>What a morning!</b> " + "word " * 100)],
    findings=[{"check": "duplicate_ids", "level": "warning", "message": "2 ids appear twice", "values": {}}],
)  # fmt: skip


def test_the_summary_has_what_people_ask_for() -> None:
    """Counts, rate, distribution, strongest paragraph, findings and addresses are all in the text."""
    text = REPORT.text(width=200)
    for wanted in (
        "1,000",
        "990",
        "10 empty",
        "495 documents/s",
        "joy",
        "70.0%",
        "What a morning!",
        "2 ids appear twice",
    ):
        assert wanted in text
    assert REPORT.page in text


def test_a_report_survives_its_own_json() -> None:
    """What was written is what is read back."""
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_the_page_escapes_texts_of_the_corpus() -> None:
    """A document cannot put markup into the page."""
    page = REPORT.html()
    assert "<b>What a morning" not in page
    assert "&lt;b&gt;What a morning" in page


def test_a_run_with_nothing_to_do_says_so() -> None:
    """No partition scored and no row loaded is called that."""
    idle = replace(REPORT, scored_partitions=0, rows_loaded=0, rejects_loaded=0, seconds=0.0, busy={})
    assert idle.nothing_new
    assert "nothing to do" in idle.text()
    assert "nothing to do" in idle.html()
