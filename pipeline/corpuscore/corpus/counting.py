"""What a reader counts beside its documents: lines by themselves, and what is odd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from corpuscore.oddities import Oddities


@dataclass(slots=True)
class ReadCounts:
    """What was seen of a partition so far; complete once all of its documents were read.

    Attributes:
        oddities: Suspicions.
        lines: Lines (or rows of Parquet) of the partition, counted on its bytes (or in its footer); None where the
            format has none that documents could be compared with.
        other_lines: How many of these are no document, by what they are: header, blank, comment, inside (of a row).
    """

    oddities: Oddities = field(default_factory=Oddities)
    lines: int | None = None
    other_lines: dict[str, int] = field(default_factory=dict)

    def note_line(self, kind: str, count: int = 1) -> None:
        """Count lines that are no document."""
        self.other_lines[kind] = self.other_lines.get(kind, 0) + count

    def counted(self, blocks: Iterable[bytes], offset: int, start: int, stop: int) -> Iterator[bytes]:
        r"""The same blocks, while `lines` becomes the number of lines that start in a range.

        A line starts at the object's start, and behind each line end that is not its last byte.

        Args:
            blocks: The object from `offset` on.
            offset: Where the first block starts; before `start` where that isn't the object's start.
            start, stop: The range.
        """
        self.lines, block = 0, b""
        for block in blocks:
            if block and not start and not offset:
                self.lines += 1
            first, last = max(0, start - 1 - offset), stop - 1 - offset
            if first < last:
                self.lines += block.count(b"\n", first, last)
            offset += len(block)
            yield block
        if offset < stop and block.endswith(b"\n"):  # the object's last byte, behind which nothing starts
            self.lines -= 1


def note_missing(counts: ReadCounts, uri: str, path: str) -> None:
    """Note that a document lacks a kept column."""
    counts.oddities.note("missing_column", f"{path!r} of {uri}")
