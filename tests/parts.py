"""Parts and receipts as a scorer would leave them, in a local folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpuscore.records import CheckedPart, Partition, Receipt, Status, part_schema

LABELS = ("joy", "anger", "calm")
PLANNED_AT = datetime(2026, 1, 1, tzinfo=UTC)
KEPT = pa.schema([("author", pa.string()), ("year", pa.int32())])


def opened(path: str) -> BinaryIO:
    """Open a part by its path."""
    return Path(path).open("rb")


@dataclass
class PartMaker:
    """Writes parts into a folder.

    Attributes:
        folder: Where they go.
        labels, kept: Their columns.
    """

    folder: Path
    labels: tuple[str, ...] = LABELS
    kept: pa.Schema = field(default_factory=lambda: KEPT)

    def rows(self, uri: str, scored: int, rejected: int = 0, *, first: int = 0, seed: int = 0) -> pa.Table:
        """Rows of a part: rejects first, then scored documents with sigmoid scores."""
        total = scored + rejected
        columns: dict[str, Any] = {
            "document_id": [f"{uri}#{first + at}" for at in range(total)],
            "position": range(first, first + total),
            "status": [Status.REJECTED.value] * rejected + [Status.OK.value] * scored,
            "reason": ["null"] * rejected + [None] * scored,
            "detail": [None] * total,
            "token_count": [None] * rejected + [7] * scored,
        }
        for name, kind in zip(self.kept.names, self.kept.types, strict=True):
            columns[name] = pa.array([str(at) for at in range(total)]).cast(kind)
        random = np.random.default_rng(seed)
        for label in self.labels:
            columns[label] = [None] * rejected + random.random(scored, np.float32).tolist()
        schema = part_schema(self.kept, self.labels)
        return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)

    def write(self, rows: pa.Table, work_id: str) -> tuple[Path, str]:
        """Write a part; its path and the sha256 of its bytes."""
        path = self.folder / f"{work_id}-{len(list(self.folder.iterdir()))}.parquet"
        pq.write_table(rows, path)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    def checked(self, work_id: str, uri: str, scored: int, rejected: int = 0, **more: int) -> CheckedPart:
        """A part as validation hands it to load."""
        path, digest = self.write(self.rows(uri, scored, rejected, **more), work_id)
        return CheckedPart(work_id, uri, str(path), digest, scored, rejected)

    def work(
        self, rows: pa.Table, uri: str = "file:///a", changes: dict[str, Any] | None = None
    ) -> tuple[Partition, str, Receipt]:
        """A partition, its work id and its receipt for these rows, with changes that make it wrong."""
        status = rows.column("status").to_pylist()
        scored = sum(value in ("ok", "truncated") for value in status)
        partition = Partition(uri, "etag", 1, "jsonl", "bytes", 0, 1)
        work_id = partition.work_id("model", "options")
        path, digest = self.write(rows, work_id)
        rejected = len(status) - scored
        values: dict[str, Any] = {
            "work_id": work_id,
            "uri": uri,
            "etag": "etag",
            "part": str(path),
            "digest": digest,
            "size_bytes": path.stat().st_size,
            "rows": len(status),
            "scored": scored,
            "rejected": rejected,
            "truncated": status.count("truncated"),
            "reasons": {"null": rejected} if rejected else {},
            "tokens": 7 * scored,
            "unique_texts": scored,
            "seconds": 1.0,
            "busy": {},
            "worker": "test",
        }
        return partition, work_id, Receipt(**{**values, **(changes or {})})
