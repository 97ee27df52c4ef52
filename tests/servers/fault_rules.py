"""What the proxy of `faults.py` does to which requests, and what it counts.

Tests add rules while it runs; each rule is an action, for requests of a method and of paths that have a pattern.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

Side = Literal["request", "answer"]


@dataclass(frozen=True)
class Answer:
    """Answer in the server's place, which is not asked."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"


@dataclass(frozen=True)
class Reset:
    """Reset both connections after some bytes of a body; 0 of the answer: when it is ready and nothing of it is sent.

    0 bytes of the request: before anything of it is passed on.
    """

    after: int = 0
    of: Side = "answer"


@dataclass(frozen=True)
class Truncate:
    """Close the connection, without an error, after some bytes of the answer's body."""

    after: int
    of: Side = "answer"


@dataclass(frozen=True)
class Stall:
    """Send nothing for some seconds after some bytes of a body, then go on."""

    seconds: float
    after: int = 0
    of: Side = "answer"


@dataclass(frozen=True)
class Flip:
    """Turn round the lowest bit of one byte of a body."""

    offset: int
    of: Side = "answer"


@dataclass(frozen=True)
class Delay:
    """Wait some seconds before the request is passed on."""

    seconds: float


@dataclass(frozen=True)
class Call:
    """Call the test's own function, and pass the request on when it returns."""

    hook: Callable[[], object]


OnBody = Reset | Truncate | Stall | Flip
Action = Answer | OnBody | Delay | Call
SLOW_DOWN = Answer(
    503,
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    "application/xml",
)
HTML_PAGE = Answer(200, b"<!doctype html><html><body><h1>Please sign in</h1></body></html>", "text/html")


@dataclass
class Rule:
    """What happens to requests of a method (empty: any) whose path, with its query, has a match of a pattern.

    `first` is how many of them it happens to (None: all), `every` that it happens to each second, third, … of them.
    """

    action: Action
    method: str = ""
    path: str = ""
    first: int | None = None
    every: int = 1
    matched: int = 0
    applied: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Tell whether it happens to a request, and count it."""
        if self.method not in ("", method) or not re.search(self.path, path):
            return False
        self.matched += 1
        if self.matched % self.every or (self.first is not None and self.applied >= self.first):
            return False
        self.applied += 1
        return True


class Asked(NamedTuple):
    """A request, the bytes of its body that came from the client, and those of the answer's body that went there."""

    method: str
    path: str
    up: int
    down: int


@dataclass
class Count:
    """The same while it runs."""

    method: str
    path: str
    up: int = 0
    down: int = 0


@dataclass
class Faults:
    """A running proxy: its URL, its rules, and what it was asked for.

    `upstream` is the host and port that it passes requests on to; `closing` is set when it ends.
    """

    url: str
    upstream: tuple[str, int]
    rules: list[Rule] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def requests(self) -> list[Asked]:
        """The requests so far, in the order in which they began."""
        with self.lock:
            return [Asked(row.method, row.path, row.up, row.down) for row in self.counts]

    def add(
        self, action: Action, *, method: str = "", path: str = "", first: int | None = None, every: int = 1
    ) -> Rule:
        """Add a rule and return it."""
        rule = Rule(action, method, path, first, every)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Behave from now on, and count from zero."""
        with self.lock:
            self.rules.clear()
            self.counts.clear()

    def begin(self, method: str, path: str) -> tuple[Count, list[Action]]:
        """Count a request and return what is to happen to it."""
        with self.lock:
            self.counts.append(Count(method, path))
            return self.counts[-1], [rule.action for rule in self.rules if rule.takes(method, path)]


class Broken(Exception):
    """The connection ends here: with a reset, or without an error."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


def altered(pieces: Iterable[bytes], actions: Sequence[OnBody], wait: Callable[[float], object]) -> Iterator[bytes]:
    """Pass the pieces of a body on, with what is to happen to it.

    Raises
    ------
    Broken
        When the connection is to end at this place.
    """
    due: list[Reset | Truncate | Stall] = [action for action in actions if not isinstance(action, Flip)]
    due.sort(key=lambda action: action.after)
    offsets = [action.offset for action in actions if isinstance(action, Flip)]
    position = 0
    for whole in chain(pieces, [b""]):
        piece = bytearray(whole)
        for offset in offsets:
            if position <= offset < position + len(piece):
                piece[offset - position] ^= 1
        while due and due[0].after <= position + len(piece):
            action = due.pop(0)
            before = action.after - position
            if before:
                yield bytes(piece[:before])
                position += before
                del piece[:before]
            if not isinstance(action, Stall):
                raise Broken(reset=isinstance(action, Reset))
            wait(action.seconds)
        if piece:
            yield bytes(piece)
            position += len(piece)
