"""The fingerprint of a large work tree: `status` and `add` trust it, so nothing may change without changing it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from registree.model.diff import Change
from registree.model.ids import hash_bytes
from registree.model.manifest import Entry, boundary_level
from registree.operations import observing, status
from registree.operations.writing import DatasetWriter, OutboxWriter
from registree.store.file_stat import CLOCK_STEP
from registree.store.fingerprint import Fingerprint, fingerprint
from tests.conftest import Reg, git, tree

FILES = 40
"""Files that are enough for a fingerprint here."""
ENDS_A_PAGE = next(path for number in range(100, 100_000) if boundary_level(path := f"c0/{number:05d}"))
EDITS: dict[str, Callable[[Path], object]] = {
    "a file is changed": lambda root: write(root / "c0/00006", b"another text, longer"),
    "a file gets other bytes and its old time": lambda root: rewrite(root / "c0/00006"),
    "a file is replaced by a copy of the same size and time": lambda root: replace(root / "c0/00006"),
    "a file is removed": lambda root: (root / "c0/00006").unlink(),
    "a file is added": lambda root: write(root / "c1/new", b"new"),
    "an empty file is added": lambda root: write(root / "c1/new", b""),
    "a folder with a file is added": lambda root: write(root / "c1/new/deep/file", b"new"),
    "an empty folder is added": lambda root: (root / "c1/new").mkdir(),
    "a file gets another name": lambda root: (root / "c0/00006").rename(root / "c0/moved"),
    "a file moves to another folder": lambda root: (root / "c0/00006").rename(root / "c1/moved"),
    "two files change places": lambda root: change_places(root / "c0/00006", root / "c0/00008"),
    "a file becomes executable": lambda root: (root / "c0/00006").chmod(0o755),
    "a file becomes a link": lambda root: (
        (root / "c0/00006").unlink(),
        (root / "c0/00006").symlink_to("00008"),
    ),
    "a link points elsewhere": lambda root: (
        (root / "link").unlink(),
        (root / "link").symlink_to("c0/00010"),
    ),
    "a folder becomes a link to its like": lambda root: (
        (root / "c1").rename(root.parent / "elsewhere"),
        (root / "c1").symlink_to(root.parent / "elsewhere"),
    ),
    "an empty folder goes": lambda root: (root / "empty").rmdir(),
    "a rule in the dataset leaves a file out": lambda root: write(root / "c0/.regignore", b"00006\n"),
    "a rule above the dataset leaves a file out": lambda root: write(root.parent / ".regignore", b"many/c0/00006\n"),
}


def write(path: Path, content: bytes) -> None:
    """Write a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def rewrite(path: Path) -> None:
    """Give a file other bytes, as many, and the times it had."""
    before = path.stat()
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file in its place that looks the same."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def change_places(one: Path, other: Path) -> None:
    """Let two files change their names."""
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


def fail(*_: object, **__: object) -> None:
    """Stand for what must not be called."""
    raise AssertionError("the work tree was compared")


def noted(registry: Path) -> bool:
    """Tell whether the state holds a fingerprint."""
    connection = sqlite3.connect(registry / ".reg/state.sqlite")
    try:
        return bool(connection.execute("SELECT count(*) FROM clean").fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def many(registry: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg) -> Path:
    """A dataset of two pages with as many files as it takes, added, whose fingerprint was noted."""
    monkeypatch.setattr(observing, "FINGERPRINT_FROM", FILES)
    root = registry / "many"
    for number in range(FILES):
        write(root / f"c{number % 2}/{number:05d}", f"text {number:05d}".encode())
    write(root / ENDS_A_PAGE, b"the last of its page")
    (root / "empty").mkdir()
    (root / "link").symlink_to("c0/00002")
    time.sleep(2 * CLOCK_STEP / 1e9)
    reg(registry, "add", "many", "-m", "Add")
    assert noted(registry)
    return root


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_every_change_is_seen(registry: Path, many: Path, reg: Reg, edit: Callable[[Path], object]) -> None:
    edit(many)
    for _ in range(2):
        assert "changed" in reg(registry, "status", code=None).out


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_every_change_is_added(registry: Path, many: Path, reg: Reg, edit: Callable[[Path], object]) -> None:
    edit(many)
    if reg(registry, "add", "many", "-m", "Add again", code=None).code:
        assert (many / "c1").is_symlink(), "all else may be added"
        return
    assert "changed" not in reg(registry, "status").out
    assert reg(registry, "diff", "HEAD~1", "HEAD", code=None).out.strip()


def test_what_did_not_change_is_not_walked_when_it_is_added_again(
    registry: Path, many: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    monkeypatch.setattr(DatasetWriter, "_walk", fail)
    for _ in range(2):
        assert "unchanged many" in reg(registry, "add", "many", "-m", "Nothing").out
        reg(registry, "push")
    assert git(registry, "rev-list", "--count", "HEAD").strip() == "2"


@pytest.mark.parametrize("kind", ["packs", "the manifest"])
def test_what_the_outbox_lost_is_stored_when_it_is_added_again(
    registry: Path, consumer: Path, many: Path, reg: Reg, kind: str
) -> None:
    outbox = registry / ".reg/outbox"
    for pack in [path for path in (outbox / "packs").rglob("*") if path.is_file()] if kind == "packs" else ():
        pack.unlink()
    if kind == "the manifest":
        shutil.rmtree(outbox / "manifests")
    reg(registry, "add", "many", "-m", "Add again")
    reg(registry, "push")
    reg(consumer, "get", registry, "many")
    assert tree(consumer / "many") == tree(many)


def test_what_was_added_in_place_is_copied_when_it_is_added_again_without(
    registry: Path, consumer: Path, many: Path, reg: Reg
) -> None:
    reg(registry, "push")
    write(many / "c0/new", b"new")
    time.sleep(2 * CLOCK_STEP / 1e9)
    reg(registry, "add", "many", "--in-place", "-m", "Add in place")
    reg(registry, "add", "many", "-m", "Add a copy")
    (many / "c0/new").unlink()
    reg(registry, "push")
    reg(consumer, "get", registry, "many")
    assert (consumer / "many/c0/new").read_bytes() == b"new"


def test_what_did_not_change_is_not_compared(
    registry: Path, many: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    (many / "c0/00006").touch()
    reg(registry, "status")
    time.sleep(2 * CLOCK_STEP / 1e9)
    reg(registry, "status")
    monkeypatch.setattr(status, "diff_entries", fail)
    assert "changed" not in reg(registry, "status").out


def test_change_that_its_times_would_not_show_is_not_trusted(registry: Path, many: Path, reg: Reg) -> None:
    later = time.time_ns() + 3600 * 10**9
    os.utime(many / "c0/00006", ns=(later, later))
    reg(registry, "status")
    connection = sqlite3.connect(registry / ".reg/state.sqlite")
    stored = [row[0] for row in connection.execute("SELECT fingerprint FROM clean")]
    connection.close()
    found = fingerprint(str(many), FILES, 0)
    assert found.newest == later
    assert not found.is_older(time.time_ns())
    assert found.digest not in stored


def test_older_means_by_more_than_a_step_of_the_clock() -> None:
    assert Fingerprint(b"", 1000).is_older(1000 + CLOCK_STEP)
    assert not Fingerprint(b"", 1000).is_older(999 + CLOCK_STEP)


def test_change_while_it_is_compared_is_seen_by_the_next(
    registry: Path, many: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    (many / "c0/00008").touch()
    real = status.diff_entries

    def disturbed(before: Iterable[Entry], after: Iterable[Entry]) -> Iterator[Change]:
        yield from real(before, after)
        (many / "c0/00006").unlink()

    time.sleep(2 * CLOCK_STEP / 1e9)
    monkeypatch.setattr(status, "diff_entries", disturbed)
    assert "changed" not in reg(registry, "status").out
    monkeypatch.setattr(status, "diff_entries", real)
    assert "c0/00006" in reg(registry, "status").out


@pytest.mark.parametrize(
    ("owner", "step", "edit"),
    [
        (DatasetWriter, "write_work_tree", "a file is removed"),
        (DatasetWriter, "write_work_tree", "an empty folder goes"),
        (DatasetWriter, "write_work_tree", "a folder with a file is added"),
        (OutboxWriter, "publish", "a rule above the dataset leaves a file out"),
    ],
)
def test_change_while_it_is_added_is_seen_by_status(
    registry: Path, many: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg, owner: type, step: str, edit: str
) -> None:
    write(many / "c0/new", b"new")
    time.sleep(2 * CLOCK_STEP / 1e9)
    real = getattr(owner, step)

    def disturbed(writer: object) -> None:
        real(writer)
        EDITS[edit](many)

    monkeypatch.setattr(owner, step, disturbed)
    reg(registry, "add", "many", "-m", "Add more")
    assert "changed" in reg(registry, "status").out


def test_next_version_is_noted_by_add_too(
    registry: Path, many: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(many / "c0/new", b"new")
    time.sleep(2 * CLOCK_STEP / 1e9)
    reg(registry, "add", "many", "-m", "Add more")
    monkeypatch.setattr(status, "diff_entries", fail)
    assert "changed" not in reg(registry, "status").out


def test_dataset_whose_manifest_was_lost_is_not_removed(registry: Path, many: Path, reg: Reg) -> None:
    shutil.rmtree(registry / ".reg/outbox")
    assert "not on this machine" in reg(registry, "status").out
    reg(registry, "remove", "many", code=7)
    assert many.is_dir()


def test_verify_deep_does_not_trust_it(registry: Path, many: Path, reg: Reg) -> None:
    damaged = many / "c0/00006"
    rewrite(damaged)
    found, now = fingerprint(str(many), FILES, 0), damaged.stat()
    connection = sqlite3.connect(registry / ".reg/state.sqlite")  # as if the disk had changed it: no time tells
    with connection:
        row = (hash_bytes(found.digest), found.newest)
        connection.execute("UPDATE clean SET fingerprint = ?, newest = ?", row)
        connection.execute("UPDATE stat SET ctime = ? WHERE path = 'many/c0/00006'", (now.st_ctime_ns,))
    connection.close()
    assert "changed" not in reg(registry, "status").out
    assert "00006" in reg(registry, "verify", "--deep", code=None).out
    assert "changed" in reg(registry, "status", code=None).out


def test_it_belongs_to_one_version(registry: Path, many: Path, reg: Reg) -> None:
    metafile = registry / "many.reg.yaml"
    before = metafile.read_text()
    write(many / "c0/new", b"new")
    reg(registry, "add", "many", "-m", "Add another")
    time.sleep(2 * CLOCK_STEP / 1e9)
    reg(registry, "status")
    reg(registry, "status")
    metafile.write_text(before)
    assert "c0/new" in reg(registry, "status", code=None).out


def test_processes_see_what_one_sees(many: Path) -> None:
    alone = fingerprint(str(many), FILES, 0)
    assert fingerprint(str(many), 100_000, 1) == alone
    assert alone.newest <= time.time_ns()


@pytest.mark.parametrize("path", ["nothing", "c0/00006", "link"])
def test_what_is_no_folder_has_none(many: Path, path: str) -> None:
    with pytest.raises(OSError, match=path):
        fingerprint(str(many / path), 1, 0)
