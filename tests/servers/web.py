"""A web server of the standard library over a folder: with ranges, as most have them, or without, as Python's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class PlainHandler(SimpleHTTPRequestHandler):
    """Python's own: whole files only."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *values: object) -> None:
        """Say nothing."""


class RangeHandler(PlainHandler):
    """Answers `Range: bytes=first-last`."""

    def do_GET(self) -> None:
        """A range where one is asked for."""
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        path = Path(self.translate_path(self.path))
        if not first or not path.is_file():
            super().do_GET()
            return
        body, modified = path.read_bytes(), path.stat().st_mtime_ns
        piece = body[int(first) : int(last) + 1]
        self.send_response(206 if piece else 416)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}" if piece else f"bytes */{len(body)}")
        self.send_header("Content-Length", str(len(piece)))
        self.send_header("ETag", f'"{modified:x}-{len(body)}"')
        self.end_headers()
        self.wfile.write(piece)


@contextmanager
def serving(folder: Path, handler: type[PlainHandler] = RangeHandler) -> Iterator[str]:
    """The address of a server over a folder, which ends with the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
