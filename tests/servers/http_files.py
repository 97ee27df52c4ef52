"""A folder over plain HTTP, read-only, with byte ranges, counts of what was asked, and ways to misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class HttpFiles:
    """A running server.

    `asked` lists the method and path of each request, `sent` counts bytes of bodies. `ranges` says whether the
    server knows ranges; `status` is answered in place of files when it is set; `cut` bytes are left out at the end
    of each body of a pack.
    """

    url: str = ""
    ranges: bool = True
    status: int = 0
    cut: int = 0
    asked: list[str] = field(default_factory=list)
    sent: int = 0

    def forget(self) -> None:
        """Count from zero."""
        self.asked.clear()
        self.sent = 0


@contextmanager
def http_files(folder: Path) -> Iterator[HttpFiles]:
    """Serve a folder."""
    state = HttpFiles()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            with lock:
                state.asked.append(f"{self.command} {self.path}")
            path = folder / self.path.lstrip("/")
            if state.status or not path.is_file():
                self.send_response(state.status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = path.read_bytes()
            total = len(content)
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if state.ranges else None
            if found:
                first = int(found[1])
                last = min(int(found[2] or total), total - 1)
                content = content[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            else:
                self.send_response(200)
            if state.cut and "/packs/" in self.path:
                content = content[: -state.cut]
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                with lock:
                    state.sent += len(content)
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that went away."""

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
