"""Figures that no machine changes: requests, bytes stored, pages read. Only a changed test can worsen them."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registree.model.manifest import LeafPage, Page, decode_page
from registree.model.metafile import DatasetFile, parse_metafile
from registree.store import packing, tree_writer
from registree.store.directory import DirectoryStore
from registree.store.open_pack import Placed
from registree.store.tree_reader import TreeReader
from registree.store.tree_writer import TreeWriter
from tests.conftest import Reg, tree, write


def manifest(registry: Path, name: str) -> bytes:
    """Read the manifest id that a metafile names."""
    found = parse_metafile((registry / f"{name}.reg.yaml").read_text(), f"{name}.reg.yaml")
    assert isinstance(found, DatasetFile)
    return found.manifest


def stored(registry: Path) -> int:
    """Count the bytes of packs in the outbox."""
    return sum(path.stat().st_size for path in (registry / ".reg/outbox/packs").rglob("*") if path.is_file())


def test_appended_bytes_are_what_an_append_stores(registry: Path, reg: Reg) -> None:
    content = random.Random(2).randbytes(64 << 20)
    write(registry, {"large.bin": content})
    reg(registry, "add", "large.bin", "-m", "Add")
    before = stored(registry)
    with (registry / "large.bin").open("ab") as file:
        file.write(random.Random(3).randbytes(1 << 20))
    reg(registry, "add", "large.bin", "-m", "Append")
    assert stored(registry) - before <= 1.2 * (1 << 20)


def test_append_to_what_this_machine_pushed_asks_for_nothing(
    registry: Path, asked: list[tuple[str, str]], reg: Reg
) -> None:
    content = random.Random(2).randbytes(32 << 20)
    write(registry, {"large.bin": content})
    reg(registry, "add", "large.bin", "-m", "Add")
    reg(registry, "push")
    with (registry / "large.bin").open("ab") as file:
        file.write(random.Random(3).randbytes(1 << 20))
    asked.clear()
    reg(registry, "add", "large.bin", "-m", "Append")
    assert not [key for key in asked if key[1] == "chunks"], Counter(asked)
    assert stored(registry) <= 1.2 * (1 << 20)


def test_append_is_as_cheap_on_a_machine_that_knows_nothing(
    registry: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    write(registry, {"large.bin": random.Random(2).randbytes(32 << 20)})
    reg(registry, "add", "large.bin", "-m", "Add")
    reg(registry, "push")
    for name in ("state.sqlite", "outbox"):
        path = registry / ".reg" / name
        path.rename(tmp_path / name)
    (home / "cache").rename(tmp_path / "cache")
    with (registry / "large.bin").open("ab") as file:
        file.write(random.Random(3).randbytes(1 << 20))
    reg(registry, "add", "large.bin", "-m", "Append")
    assert stored(registry) <= 1.2 * (1 << 20)


def test_large_file_is_one_plain_object(registry: Path, reg: Reg) -> None:
    content = os.urandom(20 << 20)
    write(registry, {"large.bin": content})
    reg(registry, "add", "large.bin", "-m", "Add")
    reg(registry, "push")
    objects = [path for path in (registry / ".reg/remote/packs").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in objects] == [content]


def test_pack_that_is_as_it_was_written_is_not_hashed_again(
    registry: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise AssertionError(path)

    write(registry, {"large.bin": os.urandom(20 << 20)})
    reg(registry, "add", "large.bin", "-m", "Add")
    monkeypatch.setattr("registree.store.outbox.hash_file", fail)
    reg(registry, "push")


def test_pack_that_changed_is_not_sent_whatever_its_time_says(registry: Path, reg: Reg) -> None:
    write(registry, {"large.bin": os.urandom(20 << 20)})
    reg(registry, "add", "large.bin", "-m", "Add")
    (pack,) = (path for path in (registry / ".reg/outbox/packs").rglob("*") if path.is_file())
    before = pack.stat()
    with pack.open("r+b") as file:
        file.write(b"changed")
    os.utime(pack, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "cannot be sent" in reg(registry, "push", code=6).err
    assert not (registry / ".reg/remote/manifests").exists()


def test_versions_share_every_page_but_the_one_that_changed(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {f"data/{index:05d}": str(index) for index in range(12_000)})
    reg(registry, "add", "data", "-m", "One")
    reg(registry, "push")
    old = manifest(registry, "data")
    write(registry, {"data/06000": "changed"})
    reg(registry, "add", "data", "-m", "Two")
    reg(registry, "push")
    new = manifest(registry, "data")
    with ThreadPoolExecutor(2) as executor:
        reader = TreeReader((DirectoryStore(str(registry / ".reg/remote")),), None, executor)
        before, after = reader.open(old), reader.open(new)
        assert len(after.leaves) > 6
        shared = {leaf.ref.page for leaf in before.leaves} & {leaf.ref.page for leaf in after.leaves}
        assert len(shared) == len(after.leaves) - 1
        new_packs = {leaf.place.page.pack.id for leaf in after.leaves if leaf.place} - {
            leaf.place.page.pack.id for leaf in before.leaves if leaf.place
        }
        assert len(new_packs) == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What directories that are remotes were asked: a method and a key, one after the other."""
    found: list[tuple[str, str]] = []

    def counted(name: str) -> None:
        real = getattr(DirectoryStore, name)

        def method(self: DirectoryStore, key: str, *args: object, **rest: object) -> object:
            if not self.root.endswith("/outbox"):
                found.append((name, key.partition("/")[0]))
            return real(self, key, *args, **rest)

        monkeypatch.setattr(DirectoryStore, name, method)

    for name in ("read", "fill", "copy_range", "size", "write", "upload", "link", "delete", "keys"):
        counted(name)
    return found


@pytest.mark.timeout(240)
def test_twenty_thousand_small_files_take_at_most_thirty_requests_each_way(
    registry: Path,
    consumer: Path,
    home: Path,
    asked: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
) -> None:
    monkeypatch.setattr(DirectoryStore, "is_local", False)  # reads are as large as those of a bucket then
    noise = random.Random(1)
    for index in range(20_000):
        folder = registry / f"data/c{index // 200:03d}"
        if index % 200 == 0:
            folder.mkdir(parents=True)
        (folder / f"{index:06d}.bin").write_bytes(noise.randbytes(10_240))
    reg(registry, "add", "data", "-m", "Add")
    asked.clear()
    reg(registry, "push")
    assert len(asked) <= 30, Counter(asked)
    assert Counter(asked)["link", "packs"] == 6  # four of payload, and two levels of pages
    monkeypatch.setenv("REG_CACHE_DIR", str(home / "cache-of-the-consumer"))
    asked.clear()
    reg(consumer, "import", registry, "data")
    assert len(list((consumer / "data").rglob("*.bin"))) == 20_000
    assert len(asked) <= 30, Counter(asked)


def test_push_of_a_large_file_asks_for_no_chunk_list_of_what_it_sends(
    registry: Path, asked: list[tuple[str, str]], reg: Reg
) -> None:
    write(registry, {"large.bin": os.urandom(20 << 20)})
    reg(registry, "add", "large.bin", "-m", "Add")
    asked.clear()
    reg(registry, "push")
    assert Counter(asked)["size", "chunks"] == 0
    assert Counter(asked)["write", "chunks"] == 1


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ids of pages that were read, wherever from."""
    found: list[bytes] = []

    def noted(content: bytes, page: bytes) -> Page:
        found.append(page)
        return decode_page(content, page)

    monkeypatch.setattr("registree.store.tree_reader.decode_page", noted)
    return found


def touched(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """Return the paths of files that were made, changed or removed."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def times(root: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and the time of change of every file below a folder."""
    return {
        str(path.relative_to(root)): (found.st_ino, found.st_ctime_ns)
        for path in root.rglob("*")
        if path.is_file()
        for found in (path.stat(),)
    }


def twelve_thousand(registry: Path, reg: Reg) -> None:
    """Publish a dataset of seven pages or more."""
    write(registry, {f"data/{index:05d}": str(index) for index in range(12_000)})
    reg(registry, "add", "data", "-m", "One")
    reg(registry, "push")


def test_push_of_a_change_asks_for_what_is_new(registry: Path, asked: list[tuple[str, str]], reg: Reg) -> None:
    twelve_thousand(registry, reg)
    write(registry, {"data/06000": "changed"})
    reg(registry, "add", "data", "-m", "Two")
    asked.clear()
    reg(registry, "push")
    assert len(asked) <= 18, Counter(asked)


def test_push_of_a_change_does_not_ask_for_all_old_packs(
    registry: Path, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    """As large files have: a pack each, two hundred on one page, which names all of them anew."""
    monkeypatch.setattr(packing, "PACK_CHUNK_LIMIT", 1)
    write(registry, {f"data/{index:03d}": str(index) for index in range(200)})
    reg(registry, "add", "data", "-m", "One")
    asked.clear()
    reg(registry, "push")
    assert Counter(asked)["size", "packs"] >= 200
    write(registry, {"data/100": "changed"})
    reg(registry, "add", "data", "-m", "Two")
    asked.clear()
    reg(registry, "push")
    assert len(asked) <= 18, Counter(asked)


def test_update_reads_what_changed_and_touches_no_other_file(
    registry: Path,
    consumer: Path,
    home: Path,
    asked: list[tuple[str, str]],
    pages: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
) -> None:
    twelve_thousand(registry, reg)
    reg(consumer, "import", registry, "data", "-m", "Import")
    monkeypatch.setenv("REG_CACHE_DIR", str(home / "cache-of-the-registry"))
    write(registry, {"data/06000": "changed", "data/new": "new"})
    (registry / "data/00007").unlink()
    reg(registry, "add", "data", "-m", "Two")
    reg(registry, "push")
    shutil.rmtree(registry / ".reg/outbox")
    monkeypatch.setenv("REG_CACHE_DIR", str(home / "cache"))
    before = times(consumer)
    asked.clear()
    pages.clear()
    reg(consumer, "update", "data", "-m", "Update")
    assert len(asked) <= 5, Counter(asked)
    assert 0 < len(pages) <= 11
    changed = touched(before, times(consumer))
    assert {path for path in changed if path.startswith("data/")} == {"data/00007", "data/06000", "data/new"}
    assert len(changed) <= 25, sorted(changed)


def test_diff_of_two_versions_asks_a_handful(
    registry: Path, home: Path, tmp_path: Path, asked: list[tuple[str, str]], pages: list[bytes], reg: Reg
) -> None:
    twelve_thousand(registry, reg)
    write(registry, {f"data/{number * 100:05d}": "changed" for number in range(100)})
    reg(registry, "add", "data", "-m", "Two")
    reg(registry, "push")
    shutil.rmtree(registry / ".reg/outbox")
    (home / "cache").rename(tmp_path / "cache")
    asked.clear()
    pages.clear()
    assert "100 modified" in reg(registry, "diff", "HEAD~1", "HEAD", "data").out
    assert len(asked) <= 7, Counter(asked)
    assert 0 < len(pages) <= 32


def test_status_and_add_of_what_did_not_change_ask_nothing(
    registry: Path, asked: list[tuple[str, str]], reg: Reg
) -> None:
    twelve_thousand(registry, reg)
    reg(registry, "status")
    asked.clear()
    before = times(registry)
    reg(registry, "status")
    reg(registry, "add", "data")
    assert not asked
    assert touched(before, times(registry)) <= {".git/index", ".reg/lock", ".reg/state.sqlite"}


def test_pages_do_not_wait_in_memory_for_a_pack_that_fills_slowly(
    registry: Path, consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    waiting = []
    add = TreeWriter.add

    def noted(self: TreeWriter, leaf: LeafPage, placed: list[tuple[Placed, ...]], *, keep: bool = False) -> None:
        add(self, leaf, placed, keep=keep)
        waiting.append(len(self._waiting))

    monkeypatch.setattr(tree_writer, "WAITING_PAGES", 2)
    monkeypatch.setattr(TreeWriter, "add", noted)
    twelve_thousand(registry, reg)
    assert len(waiting) > 6
    assert max(waiting) == 2
    packs = {path.name for path in (registry / ".reg/remote/packs").rglob("*") if path.is_file()}
    assert 3 < len(packs) <= len(waiting)
    reg(consumer, "import", registry, "data")
    assert tree(consumer / "data") == tree(registry / "data")
