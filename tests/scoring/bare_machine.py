"""A machine without a compiler and without anything built: another process, with an empty PATH and an empty cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_CODE = """
import json, sys
from corpuscore.scoring import load_scorer
folder, options, texts = json.load(sys.stdin)
json.dump(load_scorer(folder, **options).score(texts).tolist(), sys.stdout)
"""


def score_on_bare_machine(
    folder: Path, texts: list[str], cache: Path, **options: Any
) -> tuple[npt.NDArray[np.float64], str]:
    """What load_scorer(folder, **options).score(texts) gives there, and what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        input=json.dumps([str(folder), options, texts]),
        env={**os.environ, "PATH": "", "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout)), done.stderr
