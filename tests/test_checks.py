from __future__ import annotations

import re
import subprocess

from infra.stack.home import CHECKOUT


def _commands(target: str) -> list[str]:
    """What make would run for a target, with its environment made."""
    made = ["make", "--dry-run", "--no-print-directory", "--assume-old=.venv/.made", target]
    done = subprocess.run(made, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_commit_is_checked_as_make_check_does() -> None:
    """The hooks together run what `make check` runs but the audit, each command once and in the same order."""
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    targets = re.findall(r"entry: make (\w+)", hooks)
    assert len(targets) == hooks.count("- {id:")
    assert len(_commands("check")) == 5
    assert [command for target in (*targets, "audit") for command in _commands(target)] == _commands("check")
