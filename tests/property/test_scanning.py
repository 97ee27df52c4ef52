"""A walk finds what is there, in the order of a manifest, whoever lists the folders."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registree.model.manifest import Kind
from registree.store.file_stat import FileStat, file_stat
from registree.store.fingerprint import fingerprint
from registree.store.listing import Folders
from registree.store.scanning import STRANGE, Scan
from registree.store.workers import Memory, Workers

part = st.sampled_from(["a", "a-b", "a.b", "a!", "b", "B", "aa", "\u00e9", "\U0001f600", "a b"])
trees = st.lists(st.tuples(st.lists(part, min_size=1, max_size=4).map("/".join), st.booleans()), max_size=12)
"""Paths, and whether each is an empty folder."""


class LeavesOut:
    """Leaves out the names that are given."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __call__(self, path: str, is_dir: bool, /) -> bool:
        return path.rpartition("/")[2] in self.names

    def has_rules(self, folder: str, names: Collection[str]) -> bool:
        return bool(self.names)


@pytest.fixture
def workers() -> Iterator[Workers]:
    started = Workers(Memory(1, mmap.PAGESIZE), 1, worth=0)
    yield started
    started.close()


def make(root: Path, wanted: list[tuple[str, bool]]) -> None:
    for path, is_folder in wanted:
        place = root / path
        if place.exists() or any(above.is_file() for above in place.parents):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if is_folder:
            place.mkdir()
        else:
            place.write_bytes(path.encode())


def there(root: Path, left_out: tuple[str, ...] = ()) -> list[str]:
    """Return the entries that a manifest of a folder has, in order, found by other means."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in left_out]
        kept = [name for name in files if name not in left_out]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in kept]
        if not folders and not kept and folder != str(root):
            found.append(os.path.relpath(folder, root))
    return sorted(found, key=str.encode)


@given(trees, st.sampled_from([(), ("a",), ("a-b", "b")]))
def test_walk_finds_what_is_there_in_order(wanted: list[tuple[str, bool]], left_out: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as top:
        root = Path(top)
        make(root, wanted)
        scan = Scan(top, LeavesOut(*left_out))
        found = list(scan)
        assert [one.path for one in found] == there(root, left_out)
        for one in found:
            is_folder = (root / one.path).is_dir()
            assert (one.kind == Kind.DIRECTORY) == is_folder
            assert is_folder or one.stat == file_stat(os.stat(root / one.path))
        hidden = any(name in left_out for _, folders, _ in os.walk(root) for name in folders)
        assert scan.fingerprint() == (None if hidden else fingerprint(top, 1, 0))


def test_workers_list_a_large_tree_as_one_process_does(tmp_path: Path, workers: Workers) -> None:
    for number in range(120):
        folder = tmp_path / f"{number % 3}/{number:03d}/deep/{number % 7}"
        folder.mkdir(parents=True)
        for name in range(number % 5):
            (folder / f"{name}").write_bytes(b"x")
            (folder.parents[1] / f"{name}").write_bytes(b"x")
    walk = Scan(str(tmp_path), workers=workers)
    assert list(walk) == list(Scan(str(tmp_path)))
    assert walk.fingerprint() == fingerprint(str(tmp_path), 1, 0)


def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, workers: Workers) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    folders = Folders(str(tmp_path), workers)
    folders.expect([""])
    assert folders.take("").names == ["one/", "two/"]
    (tmp_path / "two/file").unlink()
    (tmp_path / "two").rmdir()
    folders.expect(["two"])
    with pytest.raises(FileNotFoundError) as failed:
        folders.take("two")
    assert failed.value.filename == str(tmp_path / "two")


@pytest.mark.parametrize("year", [1960, 2400])
def test_file_of_another_century_is_found(tmp_path: Path, year: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    seconds = (year - 1970) * 31_556_952
    os.utime(path, (seconds, seconds))
    (found,) = Scan(str(tmp_path))
    assert (found.path, found.stat.size) == ("file", 1)


def test_names_come_in_the_order_of_text_not_of_bytes(tmp_path: Path) -> None:
    """As they must where file names are not UTF-8: here the order of the bytes is the other one."""
    for name in (b"\xff", "\U0001f600".encode()):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(name)
    names, numbers = Folders(str(tmp_path), None).take("")
    assert names == ["\udcff", "\U0001f600"]
    assert [FileStat(*row).size for row in numbers] == [1, 4]


def test_folders_nested_deeper_than_calls_may_be(tmp_path: Path) -> None:
    paths = ["/".join(["d"] * depth) for depth in range(1, 1500)]
    for path in paths:
        os.mkdir(f"{tmp_path}/{path}")
    assert [(one.path, one.kind) for one in Scan(str(tmp_path))] == [(paths[-1], Kind.DIRECTORY)]
    for path in reversed(paths):
        os.rmdir(f"{tmp_path}/{path}")


def test_walk_that_was_not_finished_has_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    scan = Scan(str(tmp_path))
    assert scan.fingerprint() is None
    walk = iter(scan)
    next(walk)
    assert scan.fingerprint() is None
    assert not list(walk)
    assert scan.fingerprint() == fingerprint(str(tmp_path), 1, 0)


def test_name_that_is_not_utf8_is_strange(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"x")
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):
        pass
    found = list(Scan(str(tmp_path), lenient=True))
    assert [(one.path, one.target == STRANGE) for one in found] == [("good", False), ("\\xff", True)]
