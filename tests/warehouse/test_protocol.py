from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from corpuscore.errors import WarehouseError
from corpuscore.job import WAREHOUSE_SCHEMES
from corpuscore.warehouse import open_warehouse, warehouse_kinds


def test_the_job_knows_every_backend() -> None:
    """What a form accepts is what there is a file for."""
    assert set(warehouse_kinds()) == set(WAREHOUSE_SCHEMES)


@pytest.mark.parametrize("url", ["oracle://host/db", "scores.duckdb", "", "os:path"])
def test_an_unknown_kind_names_those_that_are_known(url: str) -> None:
    """The message lists the kinds and shows a URL."""
    with pytest.raises(WarehouseError, match="duckdb, postgresql"):
        open_warehouse(url)


@pytest.mark.parametrize(
    ("driver", "url", "extra"),
    [
        ("adbc_driver_postgresql", "postgresql://host/db", "corpuscore[postgresql]"),
        ("duckdb", "duckdb:///file", "corpuscore[duckdb]"),
    ],
)
def test_a_missing_driver_names_what_to_install(driver: str, url: str, extra: str) -> None:
    """Without the driver the package imports, and opening says what is missing."""
    script = textwrap.dedent(
        f"""
        import sys
        sys.modules[{driver!r}] = None
        from corpuscore.errors import WarehouseError
        from corpuscore.warehouse import open_warehouse
        try:
            open_warehouse({url!r})
        except WarehouseError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert extra in done.stdout


def test_no_driver_is_imported_before_it_is_needed() -> None:
    """An Airflow image needs no database driver."""
    script = "import sys, corpuscore.warehouse, corpuscore.validation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"duckdb", "adbc_driver_postgresql", "torch"} & set(done.stdout.split())
