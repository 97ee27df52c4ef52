"""A reverse proxy that misbehaves as it is told, between a client and a real HTTP server; else it changes nothing.

The Host header passes as it came, so that signatures of S3 stay right; connections are kept on both sides, and bodies
pass in small pieces.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import BinaryIO, ClassVar
from urllib.parse import urlsplit

from tests.servers.fault_rules import (
    HTML_PAGE,
    SLOW_DOWN,
    Answer,
    Asked,
    Broken,
    Call,
    Count,
    Delay,
    Faults,
    Flip,
    OnBody,
    Reset,
    Rule,
    Stall,
    Truncate,
    altered,
)
from tests.servers.http_relay import (
    Head,
    answer_body,
    ending,
    ends_with_connection,
    framed,
    has_body,
    read_head,
    request_body,
)

__all__ = [
    "HTML_PAGE",
    "SLOW_DOWN",
    "Answer",
    "Asked",
    "Call",
    "Delay",
    "Faults",
    "Flip",
    "Reset",
    "Rule",
    "Stall",
    "Truncate",
    "faulty",
]


@contextmanager
def faulty(upstream_url: str) -> Iterator[Faults]:
    """Stand between clients and the server at an ``http://`` URL."""
    parts = urlsplit(upstream_url)
    assert parts.scheme == "http", upstream_url
    faults = Faults("", (parts.hostname or "", parts.port or 80))

    class Connection(_Connection):
        state = faults
        sockets: ClassVar[set[socket.socket]] = set()

    class Server(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Connection) as server:
        faults.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield faults
        finally:
            faults.closing.set()
            server.shutdown()
            thread.join(10)
            for each in list(Connection.sockets):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class _Connection(BaseRequestHandler):
    """One connection of a client, and the one to the server that its requests are passed on with."""

    state: ClassVar[Faults]
    sockets: ClassVar[set[socket.socket]]
    request: socket.socket
    incoming: BinaryIO
    outgoing: BinaryIO

    def handle(self) -> None:
        self.upstream: socket.socket | None = None
        self.incoming = self._opened(self.request)
        try:
            while (head := read_head(self.incoming)) is not None and self._exchange(head):
                pass
        except Broken as stop:
            self._close(reset=stop.reset)
        except (OSError, ValueError):  # one of both sides has gone: so does the other
            self._close(reset=True)
        else:
            self._close(reset=False)

    def _exchange(self, head: Head) -> bool:
        """Pass one request on and its answer back; False when no other request can follow."""
        method, path, _ = head.first.split(" ", 2)
        count, actions = self.state.begin(method, path)
        for action in actions:
            if isinstance(action, Call):
                action.hook()
            elif isinstance(action, Delay):
                self.state.closing.wait(action.seconds)
            elif isinstance(action, Answer):
                return self._answer(head, action, count)
        on_body = [action for action in actions if isinstance(action, Reset | Truncate | Stall | Flip)]
        whole = self._pass_up(head, [action for action in on_body if action.of == "request"], count)
        return self._pass_down(method, [action for action in on_body if action.of == "answer"], count) and (
            whole and not head.is_last
        )

    def _answer(self, head: Head, action: Answer, count: Count) -> bool:
        """Answer in the server's place; who waits to be told to go on is told no, and sends no body."""
        expects = bool(head.get("expect"))
        if not expects:
            for piece in request_body(self.incoming, head):
                count.up += len(piece)
        fields = [("Content-Type", action.content_type), ("Content-Length", str(len(action.body)))]
        last = [("Connection", "close")] if expects or head.is_last else []
        body = b"" if head.first.startswith("HEAD ") else action.body
        count.down += len(body)
        self.request.sendall(Head(f"HTTP/1.1 {action.status} Fault", (*fields, *last)).encode() + body)
        return not last

    def _pass_up(self, head: Head, actions: list[OnBody], count: Count) -> bool:
        """Pass a request on; False when the server would not have all of it."""
        if head.get("expect"):
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        upstream = self._connect()
        pending = head.encode(without="expect")

        def counted() -> Iterator[bytes]:
            for piece in request_body(self.incoming, head):
                count.up += len(piece)
                yield piece

        for piece in altered(counted(), actions, self.state.closing.wait):
            if not self._send_up(upstream, pending + framed(piece, head)):
                return False
            pending = b""
        return self._send_up(upstream, pending + ending(head))

    def _pass_down(self, method: str, actions: list[OnBody], count: Count) -> bool:
        """Pass an answer back; False when the server closes the connection after it."""
        head = read_head(self.outgoing)
        while head is not None and head.first.split()[1].startswith("1"):
            self.request.sendall(head.encode())
            head = read_head(self.outgoing)
        if head is None:
            raise Broken(reset=True)
        pending = head.encode()
        for piece in altered(answer_body(self.outgoing, head, method), actions, self.state.closing.wait):
            count.down += len(piece)
            self.request.sendall(pending + framed(piece, head))
            pending = b""
        self.request.sendall(pending + (ending(head) if has_body(head, method) else b""))
        return not ends_with_connection(head, method)

    def _connect(self) -> socket.socket:
        """Return the connection to the server; a new one when there is none, or the server has closed it."""
        if self.upstream is not None and select.select([self.upstream], [], [], 0)[0]:
            self._end(self.upstream, self.outgoing, reset=False)
            self.upstream = None
        if self.upstream is None:
            self.upstream = socket.create_connection(self.state.upstream)
            self.outgoing = self._opened(self.upstream)
        return self.upstream

    def _opened(self, side: socket.socket) -> BinaryIO:
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets.add(side)
        return side.makefile("rb")

    def _send_up(self, upstream: socket.socket, content: bytes) -> bool:
        try:
            upstream.sendall(content)
        except OSError:  # it may have answered before it closed
            return False
        return True

    def _close(self, *, reset: bool) -> None:
        if reset:  # what was sent before it is to arrive: a reset throws away what still waits
            with suppress(OSError):
                while _waiting(self.request) and not self.state.closing.wait(0.001):
                    pass
        self._end(self.request, self.incoming, reset=reset)
        if self.upstream is not None:
            self._end(self.upstream, self.outgoing, reset=reset)

    def _end(self, side: socket.socket, stream: BinaryIO, *, reset: bool) -> None:
        if reset:  # closing without lingering sends a reset (socket(7), SO_LINGER)
            with suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sockets.discard(side)
        stream.close()
        side.close()


def _waiting(side: socket.socket) -> int:
    """Count the bytes that were sent and not yet taken by the other side (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(side, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
