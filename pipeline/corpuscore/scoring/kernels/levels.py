"""Instruction sets that kernels are compiled for, and which of them this CPU has.

CORPUSCORE_CPU=avx2 (or another level) holds all kernels to that level or a lower one; CORPUSCORE_CPU=none does without.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

from corpuscore.errors import JobError

#: Instruction sets, best first, each with the CPU flags that it takes, as /proc/cpuinfo spells them.
LEVELS: Mapping[str, tuple[str, ...]] = {
    "avx512vnni": ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
    "avx512": ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avxvnni": ("avx2", "fma", "avx_vnni"),
    "avx2": ("avx2", "fma"),
    "plain": (),
}
#: Environment variable that names the highest level to use; `none` for no kernel at all.
HELD_TO = "CORPUSCORE_CPU"


def of_cpu() -> tuple[str, ...]:
    """Those that this CPU has, best first."""
    return tuple(name for name in LEVELS if not missing_flags(name))


def usable() -> tuple[str, ...]:
    """Those that this CPU has and CORPUSCORE_CPU allows, best first.

    Raises:
        JobError: It names no level.
    """
    names = [*LEVELS, "none"]
    wanted = os.environ.get(HELD_TO, names[0])
    if wanted not in names:
        raise JobError(f"{HELD_TO}={wanted!r}", rule=f"a level is one of {', '.join(names)}", next_step="correct it")
    allowed = names[names.index(wanted) :]
    return tuple(name for name in of_cpu() if name in allowed)


def missing_flags(name: str) -> list[str]:
    """What this CPU lacks for a level, in order."""
    return sorted(set(LEVELS[name]) - _cpu_flags())


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()
