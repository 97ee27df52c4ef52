"""Progress on stderr: one changing line on a terminal, a plain line every ten seconds elsewhere."""

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
        self._shown = False

    def begin(self, verb: str, files: int, size: int) -> None:
        """See `execute.Progress`."""
        self._verb, self._total, self._done = verb, (files, size), [0, 0]
        self._started = self._last = time.monotonic()
        self._shown = False

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
        files = f"{self._done[0]:,}/{self._total[0]:,} files, " if self._total[0] else ""
        text = (
            f"{self._verb}: {files}{size_text(self._done[1])} of {size_text(self._total[1])}, "
            f"{size_text(rate)}/s, {left:.0f} s left"
        )
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        """See `execute.Progress`."""
        if self._shown and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
