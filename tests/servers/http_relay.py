"""HTTP/1.1 as a relay needs it (RFC 9112): heads are kept as they came, bodies pass in pieces of bounded size.

What comes in is a stream of a connection; what goes out are heads and pieces, and the bytes to send for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PIECE = 64 << 10
"""Bytes of a body that are in memory at once."""


@dataclass(frozen=True)
class Head:
    """The first line and the fields of a request or an answer, in their order."""

    first: str
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return a field's value in lower case; empty when it is not there."""
        return next((value.lower() for field, value in self.fields if field.lower() == name), "")

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.get("transfer-encoding")

    @property
    def is_last(self) -> bool:
        """Whether the connection ends after this message."""
        return "close" in self.get("connection") or "HTTP/1.0" in self.first

    def encode(self, *, without: str = "") -> bytes:
        """Return the bytes to send, without a field."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.fields if name.lower() != without)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def read_head(stream: BinaryIO) -> Head | None:
    """Read a head; None when the connection ended before it."""
    first = stream.readline()
    if not first.endswith(b"\n"):
        return None
    fields = []
    while (line := stream.readline()) not in (b"\r\n", b"\n"):
        if not line:
            raise ConnectionError("the connection ended within a head")
        name, _, value = line.decode("latin-1").partition(":")
        fields.append((name, value.strip()))
    return Head(first.decode("latin-1").rstrip("\r\n"), tuple(fields))


def request_body(stream: BinaryIO, head: Head) -> Iterator[bytes]:
    """Read a request's body, piece by piece."""
    if head.chunked:
        return _chunks(stream)
    return _sized(stream, int(head.get("content-length") or 0))


def has_body(head: Head, method: str) -> bool:
    """Tell whether an answer to a request of this method has a body (RFC 9112, section 6.3)."""
    return method != "HEAD" and head.first.split()[1] not in ("204", "304")


def answer_body(stream: BinaryIO, head: Head, method: str) -> Iterator[bytes]:
    """Read an answer's body, piece by piece; one that says nothing of its length lasts as long as the connection."""
    if not has_body(head, method):
        return iter(())
    if head.chunked:
        return _chunks(stream)
    if head.get("content-length"):
        return _sized(stream, int(head.get("content-length")))
    return iter(lambda: stream.read(PIECE), b"")


def ends_with_connection(head: Head, method: str) -> bool:
    """Tell whether no other answer can follow on the same connection."""
    return head.is_last or (has_body(head, method) and not head.chunked and not head.get("content-length"))


def framed(piece: bytes, head: Head) -> bytes:
    """Return a piece of a body as it is sent after a head."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if head.chunked else piece


def ending(head: Head) -> bytes:
    """Return what is sent after the last piece."""
    return b"0\r\n\r\n" if head.chunked else b""


def _sized(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.read(min(size, PIECE))
        if not piece:
            raise ConnectionError("the connection ended within a body")
        size -= len(piece)
        yield piece


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline().split(b";")[0] or b"-", 16):
        yield from _sized(stream, size)
        stream.readline()
    while stream.readline().strip():
        pass
