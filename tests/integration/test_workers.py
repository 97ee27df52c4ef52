"""Small files made and read by processes beside this one: what they make is right, and what happens to them is said."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from registree.errors import StoreError
from registree.model.ids import hash_bytes
from registree.source import Machine
from registree.store.batches import NewFile, copy_files, read_files, write_files
from registree.store.file_stat import file_stat
from registree.store.reading_ahead import read_ahead, reading_workers
from registree.store.small_files import SmallFiles
from registree.store.tree_reader import TreeReader
from registree.store.workers import Memory, Spares, Workers
from tests.conftest import Reg, tree

MANY = 6000
"""Files enough for other processes to be started."""

needs_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor has no use for another")


def children() -> set[int]:
    """Return the processes that this one started and that are alive."""
    return {child.pid for child in psutil.Process().children()}


def write_many(folder: Path, count: int = MANY) -> None:
    """Write small files of noise, some of them alike."""
    noise = random.Random(3)
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:05d}").write_bytes(noise.randbytes(noise.randrange(1, 400)) if number % 7 else b"alike")


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until something holds, for ten seconds."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def rows_for(folder: Path, content: bytes, numbers: range) -> list[NewFile]:
    """Return the rows of files that all have one content."""
    return [(str(folder / str(number)), 0o644, 0, len(content), hash_bytes(content), "") for number in numbers]


@pytest.fixture
def memory() -> Memory:
    """Two pieces of memory."""
    found = Memory(2, 1 << 16)
    found.piece(0)[:5] = b"hello"
    return found


@needs_processors
def test_many_files_come_through_a_registry_as_they_were(registry: Path, consumer: Path, reg: Reg) -> None:
    write_many(registry / "many")
    reg(registry, "add", "many", "-m", "Add")
    reg(registry, "push")
    reg(consumer, "import", registry, "many", "-m", "Import")
    assert tree(consumer / "many") == tree(registry / "many")
    assert reg(consumer, "status", code=None).code == 0
    assert children() == set(), "a worker lives on"


def test_copies_of_a_cache_that_are_wrong_or_gone_come_from_the_registry(
    registry: Path, consumer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    monkeypatch.setenv("REG_CACHE_DIR", str(tmp_path / "cache"))
    write_many(registry / "many")
    reg(registry, "add", "many", "-m", "Add")
    reg(registry, "push")
    reg(consumer, "import", registry, "many", "-m", "Import")
    cached = {path: path.read_bytes() for path in (tmp_path / "cache/files").rglob("*") if path.is_file()}
    for number, (path, content) in enumerate(cached.items()):
        if number % 10 < 3:
            path.unlink()
            if number % 10 == 1:
                path.write_bytes(bytes(255 - byte for byte in content))  # as long as it was
            elif number % 10 == 2:
                path.write_bytes(content + b"more")
    reg(consumer, "config", "link", "copy")
    reg(consumer, "import", registry, "many", "-o", "copy", "-m", "Import")
    assert tree(consumer / "copy") == tree(registry / "many")
    kept = [path.read_bytes() == content for path, content in cached.items() if path.exists()]
    assert all(kept), "a damaged file stays in the cache"
    assert all((consumer / f"copy/{number:05d}").stat().st_nlink == 1 for number in range(MANY))


def test_one_job_is_one_process(registry: Path, consumer: Path, reg: Reg) -> None:
    write_many(registry / "many")
    reg(registry, "config", "jobs", "1")
    machine = Machine.from_environment(os.environ).with_settings(str(registry / ".reg/config.yaml"))
    assert machine.processes == 0
    assert Machine.from_environment(os.environ).processes == min(len(os.sched_getaffinity(0)), 4) - 1
    reg(registry, "add", "many", "-m", "Add")
    reg(registry, "push")
    reg(consumer, "get", registry, "many")
    assert tree(consumer / "many") == tree(registry / "many")


@needs_processors
def test_damaged_file_among_many_is_named_and_nothing_is_placed(consumer: Path, tmp_path: Path, reg: Reg) -> None:
    registry = tmp_path / "registry"
    reg(tmp_path, "init", registry, "--remote", tmp_path / "remote")
    write_many(registry / "many")
    reg(registry, "add", "many", "-m", "Add")
    reg(registry, "push")
    wrong = (registry / "many/04321").read_bytes()
    pack = next(
        path for path in (tmp_path / "remote/packs").rglob("*") if path.is_file() and wrong in path.read_bytes()
    )
    content = bytearray(pack.read_bytes())
    content[content.index(wrong)] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(content)
    said = reg(consumer, "import", registry, "many", code=6).err
    assert "04321" in said
    assert not (consumer / "many").exists()
    assert children() == set(), "a worker lives on"


@needs_processors
def test_spare_processes_do_what_comes_first_and_end_with_it(tmp_path: Path) -> None:
    write_many(tmp_path / "many", 10)
    spares = Spares(2)
    assert len(children()) == 2
    workers = reading_workers(1, spares)
    wait_until(lambda: len(children()) == 1)  # there was work for one alone
    paths = [str(tmp_path / f"many/{number:05d}") for number in range(10)]
    found = list(read_ahead(paths, lambda path: (path, os.path.getsize(path)), workers))
    assert [read is not None for _, read in found] == [True] * 10
    workers.close()
    assert children() == set()
    assert spares.take(2) == (None, [])


@needs_processors
@pytest.mark.parametrize("error", [[], ["--in-place", "missing"]])
def test_spare_processes_end_with_the_command(registry: Path, reg: Reg, error: list[str]) -> None:
    write_many(registry / "many")
    reg(registry, "config", "jobs", "1")  # there is no work for another
    reg(registry, "add", "many", *error, code=None)
    assert children() == set()


@needs_processors
@pytest.mark.parametrize(("expected", "others"), [(999, 0), (1000, 1)])
def test_others_start_before_the_first_of_many_files_comes(expected: int, others: int) -> None:
    with ThreadPoolExecutor(1) as executor:
        reader = TreeReader((), None, executor)
        small = SmallFiles(reader, executor, lambda file: (file.path, 0o644, ""), lambda *_: None, 1, expected)
        assert len(children()) == others
        small.close()
    assert children() == set()


def test_memory_of_a_placement_goes_with_it(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write_many(registry / "few", 10)
    reg(registry, "add", "few", "-m", "Add")
    reg(registry, "push")

    def memories() -> list[str]:
        found = []
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # that of the listing
                found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return [name for name in found if name.startswith("/memfd:reg")]

    gc.collect()
    gc.disable()  # a large command runs it seldom
    try:
        for number in range(3):
            reg(tmp_path, "get", registry, "few", "-o", f"got{number}")
        wait_until(lambda: not memories())  # a thread may still have it
    finally:
        gc.enable()


@needs_processors
def test_worker_that_is_killed_is_said(tmp_path: Path, memory: Memory) -> None:
    workers = Workers(memory, 1)
    before = children()
    first = [
        workers.submit(write_files, 0, rows_for(tmp_path, b"hello", range(at, at + 100))) for at in range(0, 2100, 100)
    ]
    wait_until(lambda: children() - before)
    os.kill((children() - before).pop(), signal.SIGKILL)
    try:
        for future in first:
            workers.result(future)
    except StoreError as error:
        assert "ended from outside" in error.message
    else:
        assert len(list(tmp_path.iterdir())) == 2100, "all was done here"
    finally:
        workers.close()


@needs_processors
def test_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from registree.source import Machine
from registree.store.batches import write_files
from registree.store.small_files import SmallFiles
from registree.store.tree_reader import TreeReader
from registree.store.workers import Memory, Spares, Workers
from registree.model.ids import hash_bytes
memory = Memory(1, 1 << 16)
memory.piece(0)[:5] = b"hello"
workers = Workers(memory, 1)
for at in range(0, 100_000, 1000):
    rows = [(f"{tmp_path}/{{n}}", 0o644, 0, 5, hash_bytes(b"hello"), "") for n in range(at, at + 1000)]
    workers.submit(write_files, 0, rows)
print(workers._processes[0].pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        wait_until(lambda: next(tmp_path.iterdir(), None))
        parent.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"))
    made = len(list(tmp_path.iterdir()))
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == made < 100_000
    assert all(path.read_bytes() in (b"", b"hello") for path in tmp_path.iterdir())


@pytest.mark.parametrize("others", [0, 1])
def test_error_of_the_disk_is_raised_where_the_result_is_asked(tmp_path: Path, memory: Memory, others: int) -> None:
    workers = Workers(memory, others)
    futures = [
        workers.submit(write_files, 0, rows_for(tmp_path / "missing", b"hello", range(at, at + 1000)))
        for at in range(0, 4000, 1000)
    ]
    for future in futures:
        with pytest.raises(FileNotFoundError) as caught:
            workers.result(future)
        assert str(caught.value.filename).startswith(str(tmp_path / "missing"))
    workers.close()


def test_wrong_bytes_make_no_file(tmp_path: Path, memory: Memory) -> None:
    good, bad = rows_for(tmp_path, b"hello", range(2))
    made = write_files(memory.piece(0), [good, (*bad[:4], hash_bytes(b"other"), "")])
    assert made[0] is not None
    assert made[1] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]


def test_second_name_that_is_taken_stays_as_it_is(tmp_path: Path, memory: Memory) -> None:
    taken = tmp_path / "taken"
    taken.write_bytes(b"before")
    (row,) = rows_for(tmp_path, b"hello", range(1))
    (made,) = write_files(memory.piece(0), [(*row[:5], str(taken))])
    assert made is not None
    assert not made[3]
    assert taken.read_bytes() == b"before"


def test_file_of_another_length_is_not_read(tmp_path: Path, memory: Memory) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"123456")
    found = read_files(memory.piece(0), [(str(path), 0, size) for size in (5, 6, 7)])
    assert [row is not None for row in found] == [False, True, False]
    assert found[1] is not None
    assert found[1][0] == hash_bytes(b"123456")


@pytest.mark.parametrize("count", [1, 700, MANY])
def test_steps_come_in_order_with_what_their_files_hold(tmp_path: Path, count: int) -> None:
    write_many(tmp_path / "many", count)
    steps = [path for number in range(count) for path in (str(tmp_path / f"many/{number:05d}"), "between")]
    seen = 0
    workers = reading_workers(1)
    found = read_ahead(steps, lambda path: (path, os.path.getsize(path)) if path != "between" else None, workers)
    for step, (path, read) in zip(steps, found, strict=True):
        assert path == step
        assert (read is None) == (path == "between")
        if read is not None:
            assert bytes(read.content) == Path(path).read_bytes()
            assert read.row.content == hash_bytes(read.content)
            assert read.row.matches(file_stat(os.stat(path)))
            seen += 1
    workers.close()
    assert seen == count


@pytest.mark.parametrize("others", [0, 1])
def test_error_of_ours_is_raised_where_the_result_is_asked(tmp_path: Path, memory: Memory, others: int) -> None:
    workers = Workers(memory, others)
    workers.begin()
    rows = [(str(tmp_path / "file"), 0o644, "no number", 5, b"", "")]
    for _ in range(3):
        with pytest.raises(TypeError):
            workers.result(workers.submit(write_files, 0, rows))
    workers.close()


@needs_processors
@pytest.mark.parametrize("missing", ["threads", "pipes", "memory"])
def test_what_a_machine_does_not_give_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise {"threads": RuntimeError, "pipes": OSError, "memory": PermissionError}[missing]

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        if missing == "threads":
            patched.setattr(threading.Thread, "start", refused)
        else:
            patched.setattr(os, {"pipes": "pipe", "memory": "memfd_create"}[missing], refused)
        memory = Memory(1, 1 << 16)
        workers = Workers(memory, 1)
        workers.begin()
        memory.piece(0)[:5] = b"hello"
        made = workers.result(workers.submit(write_files, 0, rows_for(tmp_path, b"hello", range(100))))
        assert len(children()) == (missing == "memory")
    workers.close()
    assert len(made) == 100
    assert all(path.read_bytes() == b"hello" for path in tmp_path.iterdir())
    del memory, workers
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert children() == set()


def test_copy_of_what_cannot_be_read_is_left_where_it_is(tmp_path: Path, memory: Memory) -> None:
    """As a link that leads round in a circle, so a file of somebody else's, or of a disk that fails."""
    source = tmp_path / "cached"
    source.symlink_to("cached")
    row = (str(tmp_path / "file"), 0o644, 0, 6, hash_bytes(b"cached"), "")
    assert copy_files(memory.piece(0), [(str(source), row)]) == [None]
    assert source.is_symlink()
    assert not (tmp_path / "file").exists()
