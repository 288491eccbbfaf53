from __future__ import annotations

from pathlib import Path

import pytest

from corpuscore.errors import JobError
from corpuscore.inference import generate


def test_the_generated_files_are_those_of_the_protocol(tmp_path: Path) -> None:
    """What lies beside the .proto file is what the compiler makes of it now."""
    generate.generate(tmp_path)
    source = Path(generate.__file__).parent
    for name in generate.GENERATED:
        made = (tmp_path / "corpuscore" / "inference" / name).read_text()
        assert made == (source / name).read_text(), "run python -m corpuscore.inference.generate"


def test_a_protocol_that_does_not_compile_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The compiler's status is looked at."""
    monkeypatch.setattr(generate, "_HERE", tmp_path)  # where there is no .proto file
    with pytest.raises(JobError, match="cannot be compiled"):
        generate.generate(tmp_path)
