"""What tells that a file is unchanged since it was last read: its size, its times and its inode."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from registree.store.batches import PACKED_STAT, nearest_time, pack_stat

CLOCK_STEP = 20_000_000
"""Nanoseconds: a file changed this shortly before it was read may change again without its times showing it."""

_COARSE = 10_000_000
"""Nanoseconds: a disk whose times are whole multiples of this may keep whole seconds, or every second one, alone."""
_COARSE_STEP = 2_000_000_000
"""Nanoseconds: the coarsest step of a disk's times (FAT)."""
_SIGN = 1 << 63


def clock_step(time: int) -> int:
    """Return for how long a change after a file's time may not show in it: see `CLOCK_STEP`. Both are nanoseconds."""
    return CLOCK_STEP if time % _COARSE else _COARSE_STEP


def signed(inode: int) -> int:
    """Return an inode as SQLite can hold it: one may have 64 bits, its numbers have 63 and a sign."""
    return inode if inode < _SIGN else inode - 2 * _SIGN


def unsigned(number: int) -> int:
    """Return the inode that `signed` made a number of."""
    return number if number >= 0 else number + 2 * _SIGN


class FileStat(NamedTuple):
    """What is known of a file without reading it; see `registree.store.batches.PACKED_STAT`."""

    mode: int
    size: int
    mtime: int
    ctime: int
    inode: int


def file_stat(found: os.stat_result) -> FileStat:
    """Return what a listing would say of a file."""
    return FileStat(*PACKED_STAT.unpack(pack_stat(found)))


class Stat(NamedTuple):
    """What tells that a file is unchanged: size in bytes, times in nanoseconds, inode; and its content id."""

    size: int
    mtime: int
    ctime: int
    inode: int
    content: bytes

    def matches(self, found: FileStat) -> bool:
        """Tell whether a file is as it was; one with several links has no time of change to compare (0)."""
        return (
            self.size == found.size
            and self.mtime == found.mtime
            and self.inode == found.inode
            and found.ctime in (self.ctime, 0)
        )

    def is_older(self, moment: int) -> bool:
        """Tell whether a change after a moment (nanoseconds since the epoch) would show in its times."""
        return self.mtime <= moment - clock_step(self.ctime or self.mtime) >= self.ctime


def stat_row(found: FileStat, content: bytes, read_at: int) -> Stat | None:
    """Return the row for a file, or None when it is too young to be trusted.

    Parameters
    ----------
    read_at
        Nanoseconds since the epoch, taken before the file was read.
    """
    row = Stat(found.size, found.mtime, found.ctime, found.inode, content)
    return row if row.is_older(read_at) else None


def as_row(found: os.stat_result, content: bytes) -> Stat:
    """Return the row for a file, trusted or not."""
    mtime, ctime = nearest_time(found.st_mtime_ns), nearest_time(found.st_ctime_ns)
    return Stat(found.st_size, mtime, ctime, found.st_ino, content)


def wait_for_clock(newest: int) -> int:
    """Wait until a change after a time would show in a file's times, 20 ms at most, and return the time then.

    Both are nanoseconds since the epoch.
    """
    time.sleep(min(max(0, newest + CLOCK_STEP - time.time_ns()), CLOCK_STEP) / 1e9)
    return time.time_ns()
