from __future__ import annotations

import json
import re
from dataclasses import replace

from corpuscore.report import ObjectLine, RejectLine, Report, Strongest, page_of
from corpuscore.report.drawing import bar, skyline, spark
from corpuscore.report.queries import queries

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
    page = page_of(REPORT)
    assert "<b>What a morning" not in page
    assert "&lt;b&gt;What a morning" in page


def test_a_run_with_nothing_to_do_says_so() -> None:
    """No partition scored and no row loaded is called that."""
    idle = replace(REPORT, scored_partitions=0, rows_loaded=0, rejects_loaded=0, seconds=0.0, busy={})
    assert idle.nothing_new
    assert "nothing to do" in idle.text()
    assert "Nothing to do: 990 documents were there already" in page_of(idle)


FULL = replace(
    REPORT,
    started="2026-03-01T06:00:00+00:00", ended="2026-03-01T07:30:00+00:00", asked_by="me@here", backend="bert",
    options={"--keep-column": ["book"]}, versions={"corpuscore": "1"}, workers=2, worker_seconds=10_800.0,
    timeline=[0.0, 400.0, 200.0], previous_means={"joy": 0.25, "anger": 0.1001},
    score_bins={"joy": [0] * 19 + [8], "anger": [8] + [0] * 19}, token_bins=[0, 5, 0, 3, *([0] * 7)],
    label_means={"joy": 0.3, "anger": 0.1, **{f"other {n}": 0.0 for n in range(9)}},
    label_shares={"joy": 0.7, "anger": 0.3, **{f"other {n}": 0.0 for n in range(9)}},
    objects=[ObjectLine("file:///corpus/a.jsonl", 600, 590, 10, 30_000)], objects_total=3,
    rejects=[RejectLine("file:///corpus/a.jsonl#17", "empty", "<i>nothing</i>")],
    queries={"the strongest": 'SELECT "joy"\nFROM scores;'},
)  # fmt: skip


def _texts(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_page_has_what_the_screen_has_no_room_for() -> None:
    """When and who, the accounts, drift, the folded labels, where time went, rejects with their places, SQL."""
    page = page_of(FULL)
    said = _texts(page)
    for wanted in (
        "2026-03-01 06:00 to 2026-03-01 07:30 UTC, 1 h 30 min",
        "me@here",
        "2, 3 h 0 min of partitions together",
        "documents read = scored + rejected 1,000 = 1,000 yes",
        "3 more",
        "joy 70.0% 0.300 +0.050",
        "the model 2.0 s",
        "Tokens of a document 9 to 16 5 17 to 32 0 33 to 64 3",
        "400 at the most",
        "a.jsonl#17 empty",
        "9 more: corpuscore rejects file:///work/runs/abc --all",
        "file:///corpus/a.jsonl 600 590 10 30,000",
        "2 more, with fewer documents",
        "--keep-column book",
    ):
        assert wanted in said, wanted
    assert '<td class="number drifted">+0.050</td>' in page
    assert '<td class="number">-0.000</td>' in page
    assert "<i>nothing" not in page
    assert not re.findall(r"<script|https?://|<link", page)
    assert Report.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


def test_accounts_that_differ_are_told() -> None:
    """A number that is not what it must be is no matter of the reader's arithmetic."""
    assert "= in the table + rejects + outdated 1,000 = 999 no" in _texts(page_of(replace(FULL, rows_in_table=989)))


def test_texts_are_hidden_until_somebody_asks() -> None:
    """A mark of the page's own style, without a script; ids and probabilities are there at once."""
    page = page_of(REPORT)
    assert "#texts:not(:checked) ~ .texts q { filter: blur" in page
    assert page.index('id="texts"') < page.index("<q>")


def test_pictures_are_to_scale() -> None:
    """The highest column takes all of the height; nothing is drawn of nothing."""
    drawn = skyline([0.0, 5.0, 10.0], "documents a second")
    assert re.findall(r' height="([0-9.]+)"', drawn) == ["0.0", "60.0", "120.0"]
    assert 'aria-label="documents a second"' in drawn
    assert skyline([], "x") == skyline([0.0], "x") == ""
    drawn = spark([0, 1, 7], "documents by score")
    assert re.findall(r' height="([0-9.]+)"', drawn) == ["0.0", "6.7", "20.0"]
    assert spark([], "x") == spark([0, 0], "x") == ""
    assert "width:50.0%" in bar(0.5)
    assert "width:100.0%" in bar(7)


def test_queries_quote_labels() -> None:
    """And there are none where the tables are read through an engine of the user's own."""
    strongest, _, loaded = queries("duckdb", "a.scores", ['so "sad"', "joy"], "abc").values()
    assert strongest.splitlines()[0] == 'SELECT document_id, "so ""sad"""'
    assert "FROM a.scores_ledger\nWHERE run_id = 'abc'" in loaded
    assert queries("parquet", "scores", ["joy"], "abc") == queries("duckdb", "scores", [], "abc") == {}


def test_the_screen_has_room_for_the_summary() -> None:
    """Two dozen lines of eighty characters, whatever the model's labels; an address stays whole."""
    strongest = [Strongest(f"other {n}", 0.5, f"d-{n}", "word " * 100) for n in range(8)]
    text = replace(FULL, strongest=strongest, findings=[]).text(width=80)
    assert len(text.splitlines()) <= 26
    assert "6 more in the report" in text
    long = replace(FULL, page=f"file:///{'folder/' * 20}report.html")
    assert long.page in "".join(line[14:].strip() for line in long.text(width=80).splitlines())
