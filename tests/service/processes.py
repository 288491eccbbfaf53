"""`corpuscore serve` as a process, with ports of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue

_LINE = re.compile(r"Serving (\S+) .* at grpcs?://[^ ]*?:(\d+)/\S+; try it at https?://[^ ]*?:(\d+)/")


@dataclass
class Serving:
    """A service that answers.

    Attributes:
        name: Of its model.
        port, http_port: Where.
        lines: What it has said since.
    """

    process: subprocess.Popen[str]
    name: str = ""
    port: int = 0
    http_port: int = 0
    lines: list[str] = field(default_factory=list)


@contextmanager
def serving(*arguments: str, token: str | None = None) -> Iterator[Serving]:
    """A service on free ports of loopback, ended at the end of the block."""
    environment = {key: value for key, value in os.environ.items() if key != "CORPUSCORE_SERVICE_TOKEN"}
    environment |= {} if token is None else {"CORPUSCORE_SERVICE_TOKEN": token}
    command = [sys.executable, "-m", "corpuscore", "serve", "--port", "0", "--http-port", "0", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    made, first = Serving(process), SimpleQueue[str]()
    assert process.stdout is not None
    output = process.stdout

    def read() -> None:
        for line in output:
            made.lines.append(line)
            if _LINE.search(line):
                first.put(line)
        first.put("")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        found = _LINE.search(first.get(timeout=120))
        assert found, "".join(made.lines)
        made.name, made.port, made.http_port = found[1], int(found[2]), int(found[3])
        yield made
    finally:
        process.kill()
        process.wait()
        reader.join()
        output.close()
