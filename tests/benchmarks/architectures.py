"""Score a tiny random checkpoint of every model type beside transformers' own pipeline, one text at a time.

    python -m tests.benchmarks.architectures [MODEL_TYPE ...]

A line for each type, and an exit status of 1 where one is further than 1e-5 from its pipeline.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from corpuscore.errors import ModelError
from corpuscore.scoring.families import GROUPED, NATIVE, PACKED
from tests.scoring.pipelines import compare
from tests.scoring.tiny import write_tiny

_BOUND = 1e-5


def main(kinds: list[str]) -> int:
    """Compare these types, or all; the exit status."""
    wrong = [kind for kind in kinds or [*NATIVE, *PACKED, *GROUPED] if not _agrees(kind)]
    print(f"{len(wrong)} are not as their pipeline: {' '.join(wrong) or '-'}")
    return 1 if wrong else 0


def _agrees(kind: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = compare(write_tiny(Path(folder), kind))
        except ModelError as error:
            print(f"{kind:22} {error}")
            return False
    print(
        f"{kind:22} {found.backend:12} from the pipeline {found.beside_the_pipeline:.1e}, alone "
        f"{found.beside_itself_alone:.1e}, spread {found.spread:.2f}, failed {len(found.failed)}",
        flush=True,
    )
    return max(found.beside_the_pipeline, found.beside_itself_alone) < _BOUND and not found.failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
