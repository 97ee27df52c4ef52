"""Progress on stderr: on a terminal a changing line for files and one for bytes, elsewhere one every ten seconds."""

from __future__ import annotations

import sys
import threading
import time

from registree.cli.output import size_text

_EVERY = 0.1
_EVERY_PLAIN = 10.0


class TerminalProgress:
    """Shows files, bytes, rate and time left."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._verb = ""
        self._total = (0, 0)
        self._done = [0, 0]
        self._started = self._last = 0.0
        self._shown = 0

    def begin(self, verb: str, files: int, size: int) -> None:
        """See `execute.Progress`."""
        self._verb, self._total, self._done = verb, (files, size), [0, 0]
        self._started = self._last = time.monotonic()
        self._shown = 0

    def advance(self, files: int, size: int) -> None:
        """See `execute.Progress`."""
        with self._lock:
            self._done[0] += files
            self._done[1] += size
            now = time.monotonic()
            if now - self._last >= (_EVERY if self._terminal else _EVERY_PLAIN):
                self._last = now
                self._show(now)

    def _show(self, now: float) -> None:
        rate = self._done[1] / max(now - self._started, 1e-6)
        left = max(self._total[1] - self._done[1], 0) / rate if rate else 0.0
        files = f"{self._done[0]:,} of {self._total[0]:,} files" if self._total[0] else ""
        size = f"{size_text(self._done[1])} of {size_text(self._total[1])}, {size_text(rate)}/s, {left:.0f} s left"
        lines = [f"{self._verb}: {text}" for text in (files, size) if text]
        if self._terminal:
            sys.stderr.write(self._back() + "\n".join(f"{line}\x1b[K" for line in lines))
        else:
            sys.stderr.write(f"{self._verb}: {', '.join(text for text in (files, size) if text)}\n")
        sys.stderr.flush()
        self._shown = len(lines)

    def _back(self) -> str:
        """Return what moves the cursor to the first of the lines that are shown."""
        return "\r" + "\x1b[A" * (self._shown - 1)

    def end(self) -> None:
        """See `execute.Progress`."""
        if self._shown and self._terminal:
            sys.stderr.write(self._back() + "\x1b[J")
            sys.stderr.flush()
