"""The local state: what it keeps, after a process was killed while it wrote it too."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from registree.model.ids import hash_bytes
from registree.model.places import Extent, PackRow
from registree.store.file_stat import CLOCK_STEP, Stat, as_row
from registree.store.known_files import KEPT_IN_ONE
from registree.store.state import State

KNOWN = Stat(3, 4, 5, 6, b"c" * 32)


def kill_writer(path: Path) -> None:
    """Leave the state as a writer does that is killed when part of a transaction is on the disk already."""
    child = os.fork()
    if not child:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN IMMEDIATE")
        rows = ((f"photos/{number}", *KNOWN) for number in range(5000))
        connection.executemany("INSERT OR REPLACE INTO stat VALUES (?, ?, ?, ?, ?, ?)", rows)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.with_name("state.sqlite-journal").stat().st_size


def test_what_was_known_before_a_killed_writer_is_known_to_the_next_reader(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State(str(path))
    state.update(stats=[("photos/a", KNOWN)], sent=[("there", b"p" * 32)])
    state.close()
    kill_writer(path)
    reader = State(str(path))
    assert list(reader.stats("photos")) == [("a", KNOWN)]
    assert reader.was_sent("there", b"p" * 32)
    assert not reader.was_sent("elsewhere", b"p" * 32)


def test_inode_of_64_bits_is_kept(tmp_path: Path) -> None:
    """Such as network file systems have: SQLite's numbers have a sign."""
    state = State(str(tmp_path / "state.sqlite"))
    large = KNOWN._replace(inode=(1 << 64) - 5)
    state.update(stats=[("photos/a", large), ("photo", large)])
    assert list(state.stats("photos")) == [("a", large)]
    assert state.stat("photo") == large


def test_rows_are_read_on_while_others_are_written(tmp_path: Path) -> None:
    """As `add` does after every fifty thousand files."""
    path = str(tmp_path / "state.sqlite")
    rows = [(f"photos/{number:04d}", KNOWN) for number in range(3000)]
    State(path).update(stats=rows)
    state = State(path)
    known = state.stats("photos")
    first = next(known)
    state.update(stats=[("photos/0000", KNOWN._replace(size=7))], sent=[("there", b"p" * 32)])
    assert [first, *known] == [(name.removeprefix("photos/"), row) for name, row in rows]
    assert State(path).was_sent("there", b"p" * 32)


def test_time_that_sqlite_cannot_hold_becomes_the_nearest(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.sqlite"))
    found = os.stat_result((0o100644, 6, 1, 1, 0, 0, 3, 0, 0, 0), {"st_mtime_ns": -(1 << 65), "st_ctime_ns": 1 << 65})
    row = as_row(found, KNOWN.content)
    state.update(stats=[("photo", row)])
    assert state.stat("photo") == row == KNOWN._replace(mtime=1 - (1 << 63), ctime=(1 << 63) - 1)


def test_times_in_whole_seconds_are_trusted_after_two_of_them() -> None:
    """As of ext3, FAT and many network disks: a second write in the same second shows in nothing."""
    fine, coarse = 1_700_000_000_123_456_789, 1_700_000_000_000_000_000
    assert Stat(1, fine, fine, 7, b"").is_older(fine + CLOCK_STEP)
    assert not Stat(1, coarse, coarse, 7, b"").is_older(coarse + 10 * CLOCK_STEP)
    assert Stat(1, coarse, coarse, 7, b"").is_older(coarse + 2_000_000_000)
    assert Stat(1, coarse, fine, 7, b"").is_older(fine + CLOCK_STEP)


def test_rows_that_are_kept_in_one_are_read_once(tmp_path: Path) -> None:
    """They are megabytes, and `update` asks for one path after the other."""
    path = str(tmp_path / "state.sqlite")
    State(path).update(stats=[(f"photos/{number:04d}", KNOWN) for number in range(KEPT_IN_ONE)])
    state = State(path)
    connection = state._open(create=False)
    assert connection is not None
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    assert all(state.stat(f"photos/{number:04d}") == KNOWN for number in range(KEPT_IN_ONE))
    assert state.stat("photos/0000/below") is None
    assert sum("stats FROM recent_stats" in statement for statement in asked) == 1


def test_chunks_of_a_full_state_are_not_held_in_memory(tmp_path: Path) -> None:
    """A file of 100 GB has more than a million."""
    state = State(str(tmp_path / "state.sqlite"))
    packs = [
        (PackRow(hash_bytes(b"%d" % pack), 65_536), [(hash_bytes(b"%d %d" % (pack, n)), 1) for n in range(65_536)])
        for pack in range(3)
    ]
    state.update(packs=packs[:1])
    assert state.place(packs[0][1][5][0]) == Extent(packs[0][0], 5, 1)
    state.update(packs=packs[1:])
    for pack, chunks in packs:
        assert state.place(chunks[7][0]) == Extent(pack, 7, 1)
    assert len(state._chunks._recent or ()) <= 65_536
