from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from corpuscore import stages
from corpuscore.cli import COMMANDS, main
from tests.servers.jobs import write_jsonl


@pytest.fixture
def arguments(tmp_path: Path, tiny_model: str, dask_address: str) -> list[str]:
    """A job over forty documents."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [f"d{number}" for number in range(40)])
    return [
        *("--corpus", str(tmp_path / "corpus"), "--id-column", "id", "--model", tiny_model, "--device", "cpu"),
        *("--work", str(tmp_path / "work"), "--warehouse", f"duckdb:///{tmp_path}/scores.duckdb"),
        *("--cluster", dask_address),
    ]


def call(command: str, *arguments: str, status: int = 0) -> Result:
    """Run a command and check its exit status."""
    result = CliRunner().invoke(main, [command, *arguments])
    assert result.exit_code == status, result.output
    return result


def of_json(result: Result) -> dict[str, object]:
    """Standard output alone is JSON; lines for people are on standard error."""
    return dict(json.loads(result.stdout))


def test_a_run_tells_people_and_machines_the_same(arguments: Sequence[str]) -> None:
    """Plain lines on standard error, the summary or its JSON on standard output; the second run says no-op."""
    first = call("run", *arguments)
    assert "score: 1 of 1 partitions" in first.stderr
    assert "40" in first.stdout
    assert "documents/s" in first.stdout
    second = of_json(call("run", "--json", *arguments))
    assert (second["nothing_new"], second["rows"], second["rows_in_table"]) == (True, 40, 40)


def test_a_run_says_which_cuts_it_keeps(arguments: Sequence[str], tmp_path: Path) -> None:
    """Another number of rows a partition is no reason to score again, and who asked for it is told."""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [f"d{number}" for number in range(40)], text="{} " + "word " * 300)
    assert "keep the cut" not in call("run", *arguments, "--partition-rows", "10").stderr
    again = call("run", *arguments, "--partition-rows", "20").stderr
    assert "4 partitions, 0 to score\nplan: 1 object keeps the cut in which it was scored" in again


def test_the_stages_one_by_one_do_what_run_does(arguments: Sequence[str]) -> None:
    """On a planned run's address, or on the same arguments; status follows, with its exit status."""
    planned = of_json(call("plan", "--json", *arguments))
    run = str(planned["run"])
    assert (planned["rows"], planned["partitions"], planned["pending"]) == (None, 1, 1)
    assert of_json(call("status", run, "--json", status=1))["stage"] == "planned"
    assert of_json(call("score", "--run", run, "--json"))["scored"] == 40
    assert of_json(call("validate", "--run", run, "--json"))["errors"] == 0
    assert of_json(call("load", "--json", *arguments))["rows_loaded"] == 40
    assert of_json(call("status", run, "--json"))["stage"] == "loaded"
    assert "strongest paragraph" in call("report", run).stdout


def test_objects_that_left_the_corpus_are_said_or_removed(arguments: Sequence[str], tmp_path: Path) -> None:
    """The default says how many documents of theirs stay, `fail` stops, `remove` takes them out."""
    call("run", *arguments)
    (tmp_path / "corpus" / "a.jsonl").rename(tmp_path / "corpus" / "b.jsonl")
    assert "40 documents of 1 objects" in call("run", "--departed", "fail", *arguments, status=1).stderr
    kept = call("run", *arguments)
    assert "40 documents departed" in kept.stderr
    assert "no longer in the corpus" in " ".join(kept.stdout.split())
    assert of_json(call("run", "--json", "--departed", "remove", *arguments))["removed"] == 40
    assert "departed" not in call("run", *arguments).output


def test_a_dry_run_spends_nothing(arguments: Sequence[str], tmp_path: Path) -> None:
    """Documents, tokens, time and cost are printed; no part, no table, no run."""
    found = of_json(call("run", "--dry-run", "--price-per-hour", "3.5", "--json", *arguments))
    assert (found["documents"], found["partitions"], found["workers"]) == (40, 1, 2)
    assert int(str(found["tokens"])) > 40
    assert float(str(found["cost"])) == pytest.approx(float(str(found["worker_hours"])) * 3.5)
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "scores.duckdb").exists()


def test_a_dry_run_for_people(arguments: Sequence[str], tmp_path: Path) -> None:
    """Units, the currency that was given, and what is scored already; where that is all, no worker is asked."""
    call("run", *arguments)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [f"e{number}" for number in range(20)])
    said = call("run", "--dry-run", "--price-per-hour", "€3.50", *arguments).stdout
    lines = {line[:18].strip(): line[18:] for line in said.splitlines()}
    assert lines["scored already"] == "1 of 2 partitions, 40 documents"
    assert lines["to score"].startswith("about 20 documents, about ")
    assert lines["cost"].startswith("about €less than 0.01 (1 s of workers at €3.50 an hour)")
    call("run", *arguments)
    assert call("run", "--dry-run", *arguments).stdout.splitlines()[-1].split() == ["to", "score", "nothing"]
    priced = of_json(call("run", "--dry-run", "--json", "--price-per-hour", "2 usd", *arguments))
    assert (priced["pending"], priced["cost"], priced["currency"]) == (0, 0.0, "USD")
    assert "is no price" in call("run", "--dry-run", "--price-per-hour", "much", *arguments, status=2).output


def test_a_dry_run_asks_the_warehouse_first(arguments: Sequence[str], tmp_path: Path) -> None:
    """What the load would be refused for is told before anything is estimated."""
    call("run", *arguments)
    assert "another schema" in call("run", "--dry-run", *arguments, "--top-label", status=1).stderr


def test_a_sample_is_apart(arguments: Sequence[str], tmp_path: Path) -> None:
    """Some documents from all over the corpus, with their own ids, in a table of their own; the rest is untouched."""
    for name in "xyz":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [f"{name}{number}" for number in range(40)])
    (tmp_path / "corpus" / "e.jsonl").write_text('{"id": "e0", "text": null}\n{"id": "e1", "text": "one"}\n')
    first = call("run", "--limit", "12", *arguments)
    assert "sample: 12 documents of 5 objects, without 1 reject, for the table scores_sample" in first.stderr
    with duckdb.connect(str(tmp_path / "scores.duckdb")) as connection:
        ids = [row[0] for row in connection.sql("SELECT document_id FROM scores_sample").fetchall()]
        rejects = connection.execute("SELECT count(*) FROM scores_sample_rejects").fetchall()
    assert rejects == [(0,)]
    assert sorted({name[0] for name in ids}) == ["d", "e", "x", "y", "z"]
    assert len(set(ids)) == 12

    second = of_json(call("run", "--limit", "3", "--json", *arguments))
    assert (second["rows_in_table"], second["superseded"]) == (3, 12)
    assert of_json(call("run", "--json", *arguments))["scored"] == 161
    assert "leave one of them out" in call("run", "--limit", "3", "--dry-run", *arguments, status=2).output


def test_a_sample_of_nothing(arguments: Sequence[str], tmp_path: Path) -> None:
    """Where no document has a text there is none."""
    (tmp_path / "corpus" / "a.jsonl").write_text('{"id": "1", "text": null}\n')
    assert "no document has a text" in call("run", "--limit", "3", *arguments, status=1).stderr


def test_a_run_that_goes_while_it_runs_is_no_bad_argument(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deletes its run.json: exit status 1, and the same command again ends well."""
    score = stages.score

    def lose(run: str, **more: Any) -> Any:
        (found,) = (tmp_path / "work" / "runs").glob("*/run.json")
        found.unlink()
        return score(run, **more)

    with monkeypatch.context() as patch:
        patch.setattr("corpuscore.stages.score", lose)
        assert "Next: correct the address, or run the same again" in call("run", *arguments, status=1).stderr
    assert of_json(call("run", "--json", *arguments))["rows_in_table"] == 40


def test_who_interrupts_is_told_what_is_kept(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; exit status 130."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("corpuscore.stages.score", interrupt)
    stopped = call("run", *arguments, status=130).stderr.splitlines()
    assert stopped[-1] == "stopped: 0 of 1 partitions are kept, and the same command goes on from there"


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet"])
def test_a_dry_run_estimates_rows_by_their_bytes(arguments: Sequence[str], tmp_path: Path, name: str) -> None:
    """Where the plan has not counted them, as in Arrow streams and in small objects: about as many as there are."""
    (tmp_path / "corpus" / "a.jsonl").unlink()
    table = pa.table({"id": range(1000), "text": [f"{number * 7919**9:x}" for number in range(1000)]})
    if name.endswith("arrow"):
        with pa.OSFile(str(tmp_path / "corpus" / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, tmp_path / "corpus" / name)
    found = of_json(call("run", "--dry-run", "--json", *arguments))
    assert 250 < int(str(found["documents"])) < 4000


def test_a_planned_run_takes_no_other_options(arguments: Sequence[str], tmp_path: Path) -> None:
    """An option that would have no effect is an error."""
    refused = call("score", "--run", "x/runs/y", "--partition-rows", "7", status=2).output
    assert "--run together with --partition-rows" in refused
    assert "There is no run" in call("status", f"{tmp_path}/runs/nothing", status=2).output
    assert "--dry-run" in call("run", "--price-per-hour", "1", *arguments, status=2).output


def test_every_command_explains_itself() -> None:
    """`--help` works for each of them, and `python -m corpuscore` is the same program."""
    for command in COMMANDS:
        assert "Usage:" in call(command, "--help").output
    done = subprocess.run([sys.executable, "-m", "corpuscore", "--version"], capture_output=True, text=True, check=True)
    assert "corpuscore" in done.stdout


def test_options_are_in_the_sections_of_the_form() -> None:
    """Whoever looks for one knows where."""
    said = call("run", "--help").output
    titles = [line for line in said.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Corpus:", "Reading:", "Model:", "Target:", "Cluster:", "Command:"]
    assert said.index("Model:") < said.index("--max-tokens") < said.index("Target:")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell: str) -> None:
    """The script asks the program, which answers with commands and options, and loads no command for a name."""
    assert "_CORPUSCORE_COMPLETE" in call("completion", shell).output
    look = (
        "import sys\nfrom corpuscore.cli import main\ntry:\n    main(prog_name='corpuscore')\n"
        "finally:\n    print('pyarrow' in sys.modules, file=sys.stderr)"
    )
    asked = {"_CORPUSCORE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "corpuscore st", "COMP_CWORD": "1"}
    environment = {**os.environ, **asked, "FISH": "", **({"COMP_CWORD": "st"} if shell == "fish" else {})}
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, env=environment)
    assert "status" in done.stdout
    assert done.stderr.splitlines()[-1] == "False"


def test_help_imports_nothing_heavy() -> None:
    """Whoever looks for a command waits for none of them to be loaded."""
    look = (
        "import sys\nfrom corpuscore.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    print([name for name in sys.modules if name in sys.argv[1:]])"
    )
    heavy = ["torch", "transformers", "pyarrow", "distributed", "pydantic", "numpy", "airflow"]
    said = subprocess.run([sys.executable, "-c", look, *heavy], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
    assert all(f"  {name} " in said for name in COMMANDS)


@pytest.mark.parametrize(("typed", "meant"), [("rnu", "run"), ("stauts", "status"), ("modles", "models")])
def test_a_command_that_is_misspelt_is_guessed(typed: str, meant: str) -> None:
    """What was meant is said."""
    ended = CliRunner().invoke(main, [typed])
    assert ended.exit_code == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in ended.output
