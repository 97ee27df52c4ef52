"""The cache of this machine: what it notes of its files."""

from __future__ import annotations

import os
from pathlib import Path

from registree.model.ids import hash_bytes
from registree.store.cache import Cache


def adopted(root: Path, content: bytes) -> str | None:
    """Put a file into a cache, and return where the cache says it is: only with a note it knows that unread."""
    source = root.parent / content.decode()
    source.write_bytes(content)
    cache = Cache(str(root))
    cache.adopt(str(source), hash_bytes(content), executable=False)
    cache.flush()
    kept = cache.file_path(hash_bytes(content), executable=False)
    times = os.stat(kept)
    os.chmod(kept, 0o644)
    Path(kept).write_bytes(content[::-1])  # unread, that is not seen
    os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
    return Cache(str(root)).file(hash_bytes(content), len(content), executable=False)


def test_damaged_notes_cost_one_look_and_begin_anew(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert adopted(root, b"first") is not None
    (root / "notes.sqlite").write_bytes(b"no database" * 1000)
    assert adopted(root, b"second") is None, "it was read, and is not what it should be"
    assert adopted(root, b"third") is not None


def test_notes_hold_inodes_of_64_bits_and_times_of_later_centuries(tmp_path: Path) -> None:
    content = b"content"
    identifier = hash_bytes(content)
    cache = Cache(str(tmp_path / "cache"))
    kept = Path(cache.file_path(identifier, executable=False))
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content[::-1])
    os.utime(kept, (2**34, 2**34))  # the year 2514, of which nanoseconds have more than 63 bits
    found = kept.stat()
    cache.note(hash_bytes(b"other"), 2**64 - 5, found.st_mtime_ns, 5, executable=False)
    cache.note(identifier, found.st_ino, found.st_mtime_ns, len(content), executable=False)
    cache.flush()
    assert cache.file(identifier, len(content), executable=False) == str(kept), "its note says it is what it was"


def test_reader_that_met_damaged_notes_reads_the_new_ones(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert adopted(root, b"first") is not None
    cache = Cache(str(root))
    (root / "notes.sqlite").write_bytes(b"no database" * 1000)
    cache.file(hash_bytes(b"first"), 5, executable=False)
    content = b"second"
    kept = Path(cache.file_path(hash_bytes(content), executable=False))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content[::-1])
    for _ in range(2):  # the first finds out
        cache.note(hash_bytes(content), kept.stat().st_ino, kept.stat().st_mtime_ns, len(content), executable=False)
        cache.flush()
    assert cache.file(hash_bytes(content), len(content), executable=False) == str(kept)


def test_clean_takes_a_journal_that_a_killed_writer_left(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert adopted(root, b"first") is not None
    (root / "notes.sqlite-journal").write_bytes(b"half")
    Cache(str(root)).clean()
    assert not root.exists()
