"""`corpuscore check`: what is odd about a corpus and a checkpoint, told before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from corpuscore.cli import main


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def _check(corpus: Path | str, model: str, *more: str) -> Result:
    return CliRunner().invoke(main, ["check", "--corpus", str(corpus), "--model", model, *more])


def _found(corpus: Path | str, model: str, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was found as JSON, and its findings by name."""
    result = _check(corpus, model, "--json", "--max-tokens", "64", *more)
    made = json.loads(result.stdout)
    assert result.exit_code == int(made["stops"]), result.output
    return made, {finding["check"]: finding for finding in made["findings"]}


def _lines(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_a_sound_corpus_has_facts_and_nothing_odd(corpus: Path, tiny_model: str) -> None:
    """Counts, lengths, scripts, labels and the path, as a table and as JSON; exit status 0, and nothing is written."""
    _lines(corpus / "a.jsonl", *({"id": n, "text": f"the day {n} was bright"} for n in range(50)))
    result = _check(corpus, tiny_model, "--id-column", "id", "--max-tokens", "64")
    assert result.exit_code == 0, result.output
    for told in (
        "objects",
        "documents looked at         50, all of them",
        "Latin 100.0%",
        "joy, fear, anger",
        "unpadded",
    ):
        assert told in result.stdout
    made, findings = _found(corpus, tiny_model, "--id-column", "id")
    assert made["columns"] == {"id": "integer", "text": "string"}
    assert (made["objects"], made["partitions"], made["formats"]) == (1, 1, {"jsonl": 1})
    assert set(findings) <= {"unknown_tokens"}  # the model is a random one
    assert sorted(path.name for path in corpus.parent.iterdir()) == ["corpus"]


def test_odd_documents_are_told(corpus: Path, tiny_model: str) -> None:
    """Copies, ids that repeat, rejects, damage and other scripts, each with how many."""
    _lines(corpus / "a.jsonl", *({"id": "x", "text": "the same"} for _ in range(9)), {"id": "y", "text": ""})
    _lines(corpus / "b.jsonl", {"id": "z", "text": "cafÃ© au lait"}, {"id": "w", "text": "lost \ufffd"})
    _lines(corpus / "c.jsonl", {"id": "v", "text": "привет мир"}, {"id": "u", "text": "<p>tags &amp; bells\x07</p>"})
    made, findings = _found(corpus, tiny_model, "--id-column", "id")
    assert findings["duplicate_ids"]["values"] == {"ids": 1}
    assert findings["duplicate_texts"]["values"] == {"texts": 8}
    assert findings["rejects"]["values"] == {"reason": "empty", "documents": 1}
    assert findings["wrong_encoding"]["values"] == findings["lost_characters"]["values"] == {"texts": 1}
    assert findings["markup"]["values"] == findings["control_characters"]["values"] == {"texts": 1}
    assert set(made["scripts"]) == {"Latin", "Cyrillic"}
    assert findings["reject_fraction"]["level"] == "error"


def test_columns_that_differ_are_told(corpus: Path, tiny_model: str) -> None:
    """Types of the columns that were asked for, and where one is missing; others are of no concern."""
    pq.write_table(pa.table({"text": ["a b"], "year": [1], "other": [1]}), corpus / "a.parquet")
    pq.write_table(pa.table({"text": ["c d"], "year": ["1"], "other": ["1"]}), corpus / "b.parquet")
    made, findings = _found(corpus, tiny_model, "--id-column", "year")
    assert made["columns"]["year"] == "int64 or string"
    assert findings["column_types"]["values"] == {"column": "year", "types": ["int64", "string"]}
    assert "other" not in json.dumps(made["findings"])


@pytest.mark.parametrize(
    ("body", "check"),
    [
        ("text,id\nx,1\n".encode("utf-16-le"), "encoding"),
        ("text,id\ncaf\xe9,1\n".encode("latin-1"), "encoding"),
        (b'text,id\n"a \\"b\\" c",1\n', "quotes"),
        (b"text\tid\nx\t1\n", "delimiter"),
    ],
)
def test_how_a_csv_is_written_is_told(corpus: Path, tiny_model: str, body: bytes, check: str) -> None:
    """Encodings, backslashes and delimiters, whatever else stops the reading."""
    (corpus / "a.csv").write_bytes(body)
    assert check in _found(corpus, tiny_model)[1]


def test_what_would_stop_a_run_is_an_error(corpus: Path, tiny_model: str, tmp_path: Path) -> None:
    """Of the corpus, of the columns and of the model: each is told, and the rest is looked at all the same."""
    _lines(corpus / "a.jsonl", {"id": 1, "text": "a b"})
    made, findings = _found(corpus, tiny_model, "--id-column", "absent")
    assert findings["documents"]["level"] == "error"
    assert "no column 'absent'" in findings["documents"]["message"]
    assert made["labels"].startswith("3 (")
    made, findings = _found(corpus, str(tmp_path / "nothing"))
    assert "is not a folder" in findings["model"]["message"]
    assert made["documents looked at"] == "1, all of them"
    _, findings = _found(corpus, tiny_model, "--work", str(corpus / "work"))
    assert "lie in one another" in findings["corpus"]["message"]


def test_what_the_model_makes_of_the_texts_is_told(corpus: Path, tiny_model: str) -> None:
    """Texts above the window, and tokens that the model does not know."""
    _lines(corpus / "a.jsonl", {"text": "day " * 100}, {"text": "語" * 40})
    made, findings = _found(corpus, tiny_model)
    assert made["texts above 64 tokens"] == "50.0%"
    assert findings["long_texts"]["values"] == {"fraction": 0.5}
    assert findings["unknown_tokens"]["level"] == "warning"
