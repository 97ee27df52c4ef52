"""An honest relay that keeps the heads of the requests it passed on: before one server, or as the proxy of a client.

As a proxy it takes requests for whole URLs and tunnels (RFC 9110, sections 7.7 and 9.3.6); names of hosts that nobody
knows can be told to lead somewhere.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest

from tests.servers.http_relay import (
    PIECE,
    Head,
    answer_body,
    ending,
    framed,
    has_body,
    read_head,
    request_body,
)

_OF_THE_MACHINE = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC")


def leave_network_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no proxy, authority or password of this machine's get into a test."""
    for name in list(os.environ):
        if name in _OF_THE_MACHINE or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@dataclass(frozen=True)
class Recorded:
    """A request as it came: its method, its target, and its fields with names in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path of the target, without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """The query of the target."""
        return urlsplit(self.target).query


@dataclass
class Recorder:
    """A running relay and what passed it; `leads` says where a host is, and every host below it."""

    url: str = ""
    upstream: tuple[str, int] | None = None
    leads: dict[str, tuple[str, int]] = field(default_factory=dict)
    requests: list[Recorded] = field(default_factory=list)

    def forget(self) -> None:
        """Count from zero."""
        self.requests.clear()

    def of(self, method: str) -> list[Recorded]:
        """Return the requests of a method."""
        return [row for row in self.requests if row.method == method]

    def values(self, name: str) -> set[str]:
        """Return the values of a field in all requests; one that was not there is empty."""
        return {row.fields.get(name, "") for row in self.requests}

    def place(self, authority: str) -> tuple[str, int]:
        """Return where a host of a URL is to be found."""
        parts = urlsplit(f"//{authority}")
        host = parts.hostname or ""
        found = (place for name, place in self.leads.items() if host == name or host.endswith(f".{name}"))
        return next(found, (host, parts.port or 80))


@contextmanager
def recording(upstream_url: str = "") -> Iterator[Recorder]:
    """Pass requests on to the server at an ``http://`` URL, or wherever they are for."""
    parts = urlsplit(upstream_url)
    state = Recorder(upstream=(parts.hostname or "", parts.port or 80) if upstream_url else None)

    class Connection(_Connection):
        recorder = state

    class Server(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that went away."""

    with Server(("127.0.0.1", 0), Connection) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join(10)


class _Connection(BaseRequestHandler):
    """One connection of a client; each request has a connection of its own to the server."""

    recorder: Recorder
    request: socket.socket

    def handle(self) -> None:
        with suppress(OSError, ValueError), self.request.makefile("rb") as incoming:
            while (head := read_head(incoming)) is not None and self._exchange(head, incoming):
                pass

    def _exchange(self, head: Head, incoming: BinaryIO) -> bool:
        method, target, version = head.first.split(" ", 2)
        fields = {name.lower(): value for name, value in head.fields}
        self.recorder.requests.append(Recorded(method, target, fields))
        if method == "CONNECT":
            self._tunnel(target)
            return False
        place = self.recorder.upstream
        if place is None:
            parts = urlsplit(target)
            assert parts.scheme == "http", f"{target} is not asked of a proxy"
            place = self.recorder.place(parts.netloc)
            head = Head(f"{method} {target.split(parts.netloc, 1)[1] or '/'} {version}", head.fields)
        with socket.create_connection(place) as upstream, upstream.makefile("rb") as outgoing:
            if head.get("expect"):
                self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            upstream.sendall(head.encode(without="expect"))
            for piece in request_body(incoming, head):
                upstream.sendall(framed(piece, head))
            upstream.sendall(ending(head))
            answer = read_head(outgoing)
            while answer is not None and answer.first.split()[1].startswith("1"):
                answer = read_head(outgoing)
            if answer is None:
                return False
            self.request.sendall(answer.encode())
            for piece in answer_body(outgoing, answer, method):
                self.request.sendall(framed(piece, answer))
            if has_body(answer, method):
                self.request.sendall(ending(answer))
        unknown_length = has_body(answer, method) and not answer.chunked and not answer.get("content-length")
        return not (head.is_last or answer.is_last or unknown_length)

    def _tunnel(self, authority: str) -> None:
        with socket.create_connection(self.recorder.place(authority)) as upstream:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(upstream, self.request), daemon=True)
            back.start()
            _pump(self.request, upstream)
            back.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
