from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from corpuscore.cli import main
from infra.stack.home import CHECKOUT

DAGS = sorted(path.name for path in (CHECKOUT / "dags").glob("*.py"))


def install(folder: Path, *more: str, status: int = 0) -> Result:
    """Install into a folder."""
    done = CliRunner().invoke(main, ["airflow", "install", str(folder), *more])
    assert done.exit_code == status, done.output
    return done


def test_dags_are_written_where_airflow_finds_them(tmp_path: Path) -> None:
    """Those of the checkout, into a folder that is made; again is fine; a file that somebody changed stays."""
    folder = tmp_path / "dags" / "corpuscore"
    install(folder)
    assert [path.name for path in sorted(folder.iterdir())] == DAGS == ["distil_student.py", "score_corpus.py"]
    assert all((folder / name).read_bytes() == (CHECKOUT / "dags" / name).read_bytes() for name in DAGS)
    install(folder)
    (folder / DAGS[0]).write_text("# mine\n")
    assert f"{folder} has {DAGS[0]}" in install(folder, status=2).stderr
    assert (folder / DAGS[0]).read_text() == "# mine\n"
    install(folder, "--force")
    assert (folder / DAGS[0]).read_bytes() == (CHECKOUT / "dags" / DAGS[0]).read_bytes()
