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
