"""What is written to a pack's file is there, however much of it the disk takes straight."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registree.store import pack_file
from registree.store.pack_file import PackFile, PackThreads

KIB = 1 << 10
lengths = st.one_of(st.integers(0, 20 * KIB), st.sampled_from([4 * KIB, 8 * KIB, 16 * KIB]))
steps = st.lists(st.one_of(lengths.map(lambda n: ("write", n)), lengths.map(lambda n: ("cut", n))), max_size=12)


def write_all(folder: Path, plan: list[tuple[str, int]], *, threads: PackThreads | None, kept: bool = False) -> bytes:
    """Write noise as the plan says, and return what ought to be there."""
    noise = random.Random(repr(plan))
    expected = b""
    file = PackFile(str(folder / "pack"), threads)
    file.kept_in_memory = kept
    for what, length in plan:
        if what == "cut":
            expected = expected[:length]
            file.truncate(len(expected))
        else:
            memory = pack_file.aligned_memory(20 * KIB)[:length]
            memory[:] = noise.randbytes(length)
            file.write(memory, len(expected))
            expected += bytes(memory)
    file.flush_and_close()
    file.wait()
    return expected


@pytest.fixture(scope="module", autouse=True)
def _lowered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_file, "_STRAIGHT_FROM", 4 * KIB)
        patch.setattr(pack_file, "_FLUSHED_AT_ONCE", 12 * KIB)
        yield


@given(steps, st.booleans(), st.booleans(), st.sampled_from([1, 4 * KIB]))
@settings(deadline=None)
def test_file_is_what_was_written(plan: list[tuple[str, int]], threaded: bool, kept: bool, aligned: int) -> None:
    threads = PackThreads() if threaded else None
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_file, "_ALIGNED", aligned)  # 1: most disks refuse what it says then
        expected = write_all(Path(folder), plan, threads=threads, kept=kept)
        assert Path(folder, "pack").read_bytes() == expected
    if threads is not None:
        threads.close()


def test_disk_takes_blocks_straight_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        os.close(os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        assert error.errno == errno.EINVAL
        pytest.skip("this disk takes nothing straight")
    through: list[int] = []
    real = pack_file.write_at
    monkeypatch.setattr(
        pack_file, "write_at", lambda number, content, at: (through.append(len(content)), real(number, content, at))
    )
    write_all(tmp_path, [("write", 16 * KIB), ("write", 8 * KIB + 5), ("write", 16 * KIB)], threads=PackThreads())
    assert sorted(filter(None, through)) == [5, 16 * KIB]
