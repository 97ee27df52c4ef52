"""What is written to a pack's file is there, however much of it is written directly."""

from __future__ import annotations

import os
import random
import resource
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
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
        patch.setattr(pack_file, "_DIRECT_FROM", 4 * KIB)
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


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no way past its memory")
def test_blocks_are_written_directly_where_the_disk_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        os.close(os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("this disk knows no direct I/O")
    through: list[int] = []
    real = pack_file.write_at

    def recorded(descriptor: int, content: memoryview, position: int) -> None:
        through.append(len(content))
        real(descriptor, content, position)

    monkeypatch.setattr(pack_file, "write_at", recorded)
    with closing(PackThreads()) as threads:
        write_all(tmp_path, [("write", 16 * KIB), ("write", 8 * KIB + 5), ("write", 16 * KIB)], threads=threads)
    assert sorted(filter(None, through)) == [5, 16 * KIB]


def test_what_the_disk_refuses_is_said(tmp_path: Path) -> None:
    """With a limit to a file's size, as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(PackThreads()) as threads:
        file = PackFile(str(tmp_path / "pack"), threads)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * KIB, before[1]))
        try:
            file.write(pack_file.aligned_memory(16 * KIB), 0)
            refused = file.write(pack_file.aligned_memory(16 * KIB), 16 * KIB)
            with pytest.raises(OSError, match=r"File too large"):
                file.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert refused.done()
        file.abandon()


def test_later_run_is_not_written_to_by_one_that_failed(tmp_path: Path) -> None:
    """Both call their packs alike."""
    waits = threading.Event()
    with closing(PackThreads()) as threads:
        threads.disk.submit(waits.wait)
        old = PackFile(str(tmp_path / "1"), threads)
        memory = pack_file.aligned_memory(8 * KIB)
        memory[:] = b"o" * len(memory)
        old.write(memory, 0)
        (tmp_path / "1").unlink()
        (tmp_path / "1").write_bytes(b"n" * 8 * KIB)
        waits.set()
        old.abandon()
    assert (tmp_path / "1").read_bytes() == b"n" * 8 * KIB
