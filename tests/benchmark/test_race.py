"""A small race in real processes, and the arithmetic of its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from corpuscore.benchmark.limits import operations_a_token, product_rate
from corpuscore.benchmark.race import Lap
from corpuscore.benchmark.report import BenchmarkReport, Effort, Result, as_table, result_of
from corpuscore.benchmark.texts import read_texts
from corpuscore.cli.bench import bench
from corpuscore.errors import CorpusError
from tests.scoring.checkpoints import MAX_POSITIONS, SAMPLE, write_checkpoint

TEXTS = [f"{text} {number}" for number in range(2) for text in dict.fromkeys(SAMPLE)]


def test_the_command_races_in_real_processes(tmp_path: Path) -> None:
    """The engine and one alternative score a file: both agree with the reference, and all figures are there."""
    model = write_checkpoint(tmp_path / "model")
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": text}) for text in [*TEXTS, TEXTS[0]]))
    arguments = ["--model", model, "--texts", texts, "--against", "sorted-padded", "--max-tokens", MAX_POSITIONS]
    done = CliRunner().invoke(bench, [*map(str, arguments), "--rounds", "1", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["documents"], report["distinct"]) == (11, 10)
    assert [result["name"] for result in report["results"]] == ["corpuscore", "sorted-padded"]
    for result in report["results"]:
        assert result["why_not"] == ""
        assert result["largest_difference"] < 1e-5
        assert 0 < result["documents_per_second"] < result["tokens_per_second"]


def test_the_engine_may_run_against_itself_without_kernels(tmp_path: Path) -> None:
    """What a kernel is worth on this CPU, also for a model that transformers does not have."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    done = CliRunner().invoke(
        bench, ["--texts", str(texts), "--against", "without-kernels", "--rounds", "1", "--device", "cpu", "--json"]
    )
    assert done.exit_code == 0, done.output
    other = json.loads(done.stdout)["results"][1]
    assert (other["name"], other["why_not"]) == ("without-kernels", "")
    assert other["largest_difference"] < 1e-5


def test_alternatives_may_run_another_model(tmp_path: Path) -> None:
    """A small model races against another one: its rates are there, and nothing is said about differences."""
    model = write_checkpoint(tmp_path / "model", labels=("one", "two"))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    arguments = ["--model", "bundled", "--against-model", model, "--texts", texts, "--against", "sorted-padded"]
    arguments += ["--max-tokens", MAX_POSITIONS, "--rounds", "1", "--device", "cpu"]
    done = CliRunner().invoke(bench, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    engine, other = report["results"]
    assert report["against_model"] == str(model)
    assert engine["largest_difference"] < 1e-5
    assert other["largest_difference"] is None
    assert other["why_not"] == ""
    assert other["documents_per_second"] > 0
    assert " against " in as_table(
        BenchmarkReport(**{**report, "results": [Result(**item) for item in report["results"]]})
    )


def test_unknown_alternatives_are_refused(tmp_path: Path) -> None:
    """A name that is none is named, with those that are."""
    (tmp_path / "texts.txt").write_text("One paragraph.\n\nAnother.")
    done = CliRunner().invoke(bench, ["--texts", str(tmp_path / "texts.txt"), "--against", "magic"])
    assert "alternatives are without-kernels, transformers-pipeline" in str(done.exception)


def test_a_contestant_that_did_not_run_is_named() -> None:
    """Its row has the reason and no figures."""
    engine = Lap("corpuscore", seconds=[1.0], rows=np.zeros((1, 2), np.float32))
    missing = Lap("openvino", why_not="not installed (openvino)")
    result = result_of(missing, engine, np.zeros((1, 2), np.float32), Effort(1, 10, 10), 10.0)
    assert result.why_not == "not installed (openvino)"
    assert result.documents_per_second == 0


def test_figures_are_medians_and_ratios_of_rounds() -> None:
    """Ratios are taken round by round; the share is of the product rate; differences are the largest and 99.9%."""
    reference = np.zeros((1_000, 2), np.float32)
    rows = reference.copy()
    rows[3, 1] = 0.5
    engine = Lap("corpuscore", seconds=[1.0, 2.0, 4.0], rows=reference)
    other = Lap("other", seconds=[3.0, 8.0, 12.0], rows=rows)
    result = result_of(other, engine, reference, Effort(1_000, 4_000, 20), limit=20_000.0)
    assert result.engine_ratio == 3.0
    assert result.documents_per_second == 1_000 / 8
    assert result.product_share == pytest.approx(4_000 * 20 / 8 / 20_000)
    assert (result.largest_difference, result.difference_999) == (0.5, 0.0)


def test_operations_are_those_of_the_layers() -> None:
    """Two for each weight of a layer's matrices; embeddings, biases and the head do not count."""
    shapes = {
        "bert.embeddings.word_embeddings.weight": (1000, 8),
        "bert.encoder.layer.0.intermediate.dense.weight": (32, 8),
        "bert.encoder.layer.0.intermediate.dense.bias": (32,),
        "bert.pooler.dense.weight": (8, 8),
        "classifier.weight": (3, 8),
    }
    assert operations_a_token(shapes) == 2 * 32 * 8
    shapes = {"embedding.weight": (90, 8), "encoder.rnn_lst.0.transform_module.linear1.weight": (4, 8)}
    assert operations_a_token({**shapes, "head.weight": (3, 8)}) == 2 * 4 * 8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_bare_product_has_a_rate(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some operations a second in each precision of the CPU."""
    monkeypatch.setattr("corpuscore.benchmark.limits._SIZE", {"cpu": 128})
    assert product_rate(precision, "cpu", threads=1) > 1e6


def test_texts_are_read_as_a_run_reads_them(tmp_path: Path) -> None:
    """The first texts of a CSV, empty ones skipped; another column is an error."""
    path = tmp_path / "texts.csv"
    path.write_text("id,body\n1,first\n2,\n3,second\n4,third\n")
    assert read_texts(str(path), "body", 2) == ["first", "second"]
    with pytest.raises(CorpusError):
        read_texts(str(path), "nothing", None)
