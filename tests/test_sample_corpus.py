"""The sample corpus of the demo: large enough, clean where it should be and dirty where it means to be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson
import pytest

CORPUS = Path(__file__).parents[1] / "infra" / "demo" / "corpus"
Row = dict[str, str | None]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Every document of the corpus, in file order."""
    return [orjson.loads(line) for path in sorted(CORPUS.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def dirt(rows: list[Row]) -> dict[str, str | None]:
    """The texts of the marginalia by id."""
    return {str(row["id"]): row["text"] for row in rows if row["story"] == "Marginalia"}


def test_holds_many_paragraphs(rows: list[Row]) -> None:
    """There are at least 500 paragraphs in at least 20 stories."""
    paragraphs = [row for row in rows if (row["text"] or "").strip()]
    assert len(paragraphs) >= 500
    assert len({row["story"] for row in paragraphs}) >= 20


def test_every_line_has_the_same_fields_and_its_own_id(rows: list[Row]) -> None:
    """Every document has id, story and text, and no two share an id."""
    assert {tuple(row) for row in rows} == {("id", "story", "text")}
    assert len({row["id"] for row in rows}) == len(rows)


def test_rejects_stay_rare(rows: list[Row]) -> None:
    """Texts that no scorer can take exist, and are fewer than 1% of the documents."""
    rejects = [row for row in rows if not (row["text"] or "").strip()]
    assert 0 < len(rejects) < 0.01 * len(rows)


def test_only_the_margin_repeats_paragraphs(rows: list[Row]) -> None:
    """A paragraph appears once in the stories; its copies are marked as such in the marginalia."""
    counts = Counter(row["text"] for row in rows if row["story"] != "Marginalia")
    assert [text for text, count in counts.items() if count > 1] == []
    for row in rows:
        if row["story"] == "Marginalia" and row["text"]:
            assert (counts[row["text"]] == 1) == str(row["id"]).startswith("marginalia-duplicate-")


def test_the_dirt_is_there(dirt: dict[str, str | None]) -> None:
    """Each kind of dirt that the demo promises is still in the marginalia."""
    texts = {name.removeprefix("marginalia-"): text or "" for name, text in dirt.items()}
    assert dirt["marginalia-null"] is None
    assert texts["empty"] == ""
    assert texts["whitespace"].isspace()
    assert len(texts["long"].split()) > 600
    assert "\u200d" in texts["joiner"]
    assert "\x00" in texts["controls"]
    assert texts["no"] == "No."
