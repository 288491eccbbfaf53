"""`python -m infra.audit FILE`: which pinned packages have known vulnerabilities, and of how many nobody could say.

pip-audit asks the advisories that its own options and environment name (PIP_AUDIT_VULNERABILITY_SERVICE,
PIP_AUDIT_OSV_URL; PyPI by default). It calls packages that a registry does not know clean; this does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_MOST_SECONDS = 600
_NEXT = "Next: run `make audit` where PyPI or OSV answers (PIP_AUDIT_VULNERABILITY_SERVICE, PIP_AUDIT_OSV_URL)."


def ask(lock: Path) -> tuple[dict[str, Any] | None, str]:
    """What pip-audit found out about each pin of a file; None, and why, where it got no answer."""
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", f"--requirement={lock}"]
    try:
        done = subprocess.run(  # noqa: S603 (a program of this environment, with the arguments above)
            [sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, timeout=_MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {_MOST_SECONDS} s"
    try:
        return json.loads(done.stdout), ""
    except json.JSONDecodeError:
        return None, (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1][:300]


def verdict(found: dict[str, Any] | None, why: str) -> tuple[int, str]:
    """The exit status and what to tell: 1 for a vulnerability, 0 otherwise, also where nothing was audited.

    Args:
        found: What pip-audit prints as JSON: packages with their vulnerabilities, or with why they were skipped.
        why: Why there is nothing, where there is nothing.
    """
    if found is None:
        return 0, f"Nothing was audited: the advisories could not be read ({why}). {_NEXT}"
    packages = found["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    audited = len(packages) - len(skipped)
    if packages and not audited:
        return 0, f"Nothing was audited: {len(packages)} packages skipped ({skipped[0]['skip_reason']}, ...). {_NEXT}"
    lines = [
        f"{package['name']} {package['version']}: {issue['id']}, mended in {', '.join(issue['fix_versions']) or 'none'}"
        for package in packages
        for issue in package.get("vulns", ())
    ]
    names = ", ".join(package["name"] for package in skipped)
    rest = f"; not audited: {names}" if skipped else ""
    return (1 if lines else 0), "\n".join([*lines, f"{audited} packages audited, {len(lines)} vulnerabilities{rest}."])


if __name__ == "__main__":
    status, said = verdict(*ask(Path(sys.argv[1])))
    print(said)  # noqa: T201 (this is a command)
    sys.exit(status)
