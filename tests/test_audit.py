from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from infra.audit import verdict
from infra.stack.home import CHECKOUT
from tests.servers.s3 import answering

ADVISORY = {
    "id": "PYSEC-2026-1",
    "affected": [
        {
            "package": {"name": "soup", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}],
        }
    ],
}


@contextmanager
def advisories(known: dict[str, list[Any]]) -> Iterator[str]:
    """The address of a server that speaks OSV's protocol, with the advisories of some packages."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get(asked["package"]["name"])
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *values: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def audit(folder: Path, address: str) -> tuple[int, str]:
    """Exit status and output of `python -m infra.audit` over two pins, with a server in place of the public ones."""
    lock = folder / "requirements.lock"
    lock.write_text("soup==1.0\nstorm==2.0\n")
    asked = {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": address, "XDG_CACHE_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "infra.audit", str(lock)],
        cwd=CHECKOUT, env={**os.environ, **asked}, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr
    return done.returncode, done.stdout.strip()


def test_a_known_vulnerability_fails_the_audit(tmp_path: Path) -> None:
    """The package, its advisory and the version that mends it stand in the message."""
    with advisories({"soup": [ADVISORY]}) as address:
        status, said = audit(tmp_path, address)
    assert status == 1
    assert said.splitlines() == [
        "soup 1.0: PYSEC-2026-1, mended in 1.0.1",
        "2 packages audited, 1 vulnerabilities.",
    ]


def test_clean_packages_are_counted(tmp_path: Path) -> None:
    """Where there is nothing to find, how many were looked at is said."""
    with advisories({}) as address:
        assert audit(tmp_path, address) == (0, "2 packages audited, 0 vulnerabilities.")


def test_where_no_advisories_are_served_nothing_was_audited(tmp_path: Path) -> None:
    """A server without them, and one that is not there, are told from a clean bill, with the reason."""
    with answering(lambda _request: (404, "")) as address:
        status, said = audit(tmp_path, address)
    assert (status, said.partition(":")[0]) == (0, "Nothing was audited")
    status, said = audit(tmp_path, address)
    assert (status, said.partition(":")[0]) == (0, "Nothing was audited")
    assert "refused" in said


def test_packages_that_a_registry_does_not_know_are_not_clean() -> None:
    """All of them: nothing was audited; some of them: they are named."""
    unknown = {"name": "storm", "skip_reason": "not found on PyPI"}
    clean = {"name": "soup", "version": "1.0", "vulns": []}
    assert verdict({"dependencies": [unknown]}, "")[1].startswith("Nothing was audited: 1 packages skipped (not found")
    assert verdict({"dependencies": [unknown, clean]}, "") == (
        0,
        "1 packages audited, 0 vulnerabilities; not audited: storm.",
    )
