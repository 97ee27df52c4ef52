"""Packing: what goes into packs comes out of them, each chunk is kept once, and a large file is its own object."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registree import Registry
from registree.errors import Conflict
from registree.model.ids import hash_bytes
from registree.model.places import Extent, Extents
from registree.registry import get
from registree.store import block_reader, open_pack, pack_file, packing
from registree.store.chunk_list import decode_chunks, encode_chunks, extents_of
from registree.store.open_pack import OpenPack, read_sources, settle
from registree.store.packing import CHUNKED_FROM, OWN_PACK_FROM, Packer

SMALL_FROM, OWN_FROM, TARGET, LIMIT = 1 << 12, 1 << 15, 1 << 15, 1 << 16
KIB = 1 << 10
WHERE = {"BLOCK": block_reader, "_BUFFER": open_pack, "_FLUSHED_AT_ONCE": pack_file, "_DIRECT_FROM": pack_file}


@pytest.fixture(scope="module", autouse=True)
def lowered() -> Iterator[None]:
    """Every size of the format divided by some hundred, so that a file of 100 KiB crosses all boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {
            "OWN_PACK_FROM": OWN_FROM,
            "PACK_TARGET": TARGET,
            "PACK_LIMIT": LIMIT,
            "CHUNK_MIN": KIB // 2,
            "CHUNK_AVERAGE": 2 * KIB,
            "CHUNK_MAX": 8 * KIB,
            "BLOCK": 16 * KIB,
            "_BUFFER": 4 * KIB,
            "_FLUSHED_AT_ONCE": 16 * KIB,
            "_DIRECT_FROM": 4 * KIB,
        }.items():
            patch.setattr(WHERE.get(name, packing), name, size)
        yield


@dataclass
class Packed:
    """Files in packs: the ids and places of each, and all packs that there are."""

    packs: dict[bytes, bytes]
    chunks: dict[bytes, Extent]
    files: list[tuple[bytes, Extents]]
    stored: int
    opened: list[OpenPack]

    def content(self, index: int) -> bytes:
        """Read a file back, as any reader would."""
        return b"".join(self.packs[e.pack.id][e.offset : e.offset + e.length] for e in self.files[index][1])


def pack_all(contents: list[bytes], before: Packed | None = None, *, in_place: bool = False) -> Packed:
    """Pack files after what was packed before, as a second `add` would."""
    known = dict(before.chunks) if before else {}
    packs = dict(before.packs) if before else {}
    with _folder() as folder:
        packer = Packer(str(folder), known.get, in_place=in_place)
        placed = []
        for index, content in enumerate(contents):
            path = folder / f"file-{index}"
            path.write_bytes(content)
            if len(content) < SMALL_FROM:
                placed.append((hash_bytes(content), packer.store_small(content, hash_bytes(content), str(path))))
            else:
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    placed.append(packer.store_large(descriptor, len(content), str(path)))
                finally:
                    os.close(descriptor)
        packer.finish()
        stored = 0
        for pack in packer.closed:
            raw = b"".join(read_sources(pack.sources)) if pack.sources is not None else Path(pack.path).read_bytes()
            assert len(raw) == pack.row.size
            assert hash_bytes(raw) == pack.id
            packs[pack.id] = raw
            stored += len(raw)
        known |= {chunk: extent for row, chunks in packer.packs() for chunk, extent in extents_of(row, chunks)}
        for chunk, (pack_row, offset, length) in known.items():
            assert hash_bytes(packs[pack_row.id][offset : offset + length]) == chunk
        files = [(identifier, settle(row)) for identifier, row in placed]
        assert not [path for path in folder.iterdir() if path.name.isdigit() and not _is_closed(packer, path)]
    return Packed(packs, known, [(i, row) for i, row in files if row is not None], stored, packer.closed)


def _is_closed(packer: Packer, path: Path) -> bool:
    return any(pack.path == str(path) for pack in packer.closed)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def noise(size: int, seed: int) -> bytes:
    """Return bytes that hold nothing twice."""
    return random.Random(seed).randbytes(size)


AROUND = [size + step for size in (SMALL_FROM, OWN_FROM, LIMIT) for step in (-1, 0, 1)]
sizes = st.sampled_from([0, 1, 5000, 20_000, *AROUND, 2 * LIMIT, 3 * LIMIT + 7])
some_files = st.lists(st.builds(noise, sizes, st.integers(0, 3)), max_size=6)
dull = st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 1), sizes)


@settings(max_examples=30)
@given(st.lists(st.one_of(st.builds(noise, sizes, st.integers(0, 3)), dull), max_size=6), st.booleans())
def test_files_of_any_size_come_back(contents: list[bytes], in_place: bool) -> None:
    packed = pack_all(contents, in_place=in_place)
    assert len(packed.files) == len(contents)
    for index, content in enumerate(contents):
        assert packed.content(index) == content
        assert packed.files[index][0] == hash_bytes(content)


@settings(max_examples=20)
@given(some_files)
def test_no_pack_is_larger_than_its_limit(contents: list[bytes]) -> None:
    for pack in pack_all(contents).packs.values():
        assert 0 < len(pack) <= LIMIT


@settings(max_examples=20)
@given(some_files)
def test_same_files_again_store_nothing(contents: list[bytes]) -> None:
    first = pack_all(contents)
    again = pack_all(contents, first)
    assert again.stored == 0
    assert [again.content(i) for i in range(len(contents))] == contents


@settings(max_examples=20)
@given(some_files)
def test_packing_is_the_same_every_time_and_in_place(contents: list[bytes]) -> None:
    first = pack_all(contents)
    assert pack_all(contents).files == first.files
    assert pack_all(contents, in_place=True).files == first.files


@pytest.mark.parametrize("size", [OWN_FROM, OWN_FROM + 1, LIMIT])
def test_new_large_file_is_one_object_with_the_files_own_id(size: int) -> None:
    content = noise(size, 9)
    packed = pack_all([b"small", content])
    assert packed.packs[hash_bytes(content)] == content


def test_file_past_the_limit_is_packs_whose_bytes_in_order_are_the_file() -> None:
    content = noise(3 * LIMIT + 123, 9)
    packed = pack_all([content])
    extents = packed.files[0][1]
    assert len(extents) >= 4
    assert all(e.offset == 0 and e.length == e.pack.size for e in extents)
    assert all(e.pack.size > LIMIT - 8 * KIB for e in extents[:-1])
    assert packed.content(0) == content


edits = st.lists(
    st.tuples(st.sampled_from(["insert", "overwrite", "delete", "append"]), st.floats(0, 1), st.integers(1, 3000)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=30)
@given(st.sampled_from([OWN_FROM - 1, 2 * OWN_FROM, 2 * LIMIT]), edits, st.booleans())
def test_edited_file_stores_little_more_than_the_edit(
    size: int, changes: list[tuple[str, float, int]], own: bool
) -> None:
    before = noise(size, 1)
    after, new = bytearray(before), 0
    for number, (kind, where, length) in enumerate(changes):
        at = int(where * len(after))
        fresh = noise(length, 100 + number) if kind != "delete" else b""
        end = at if kind in ("insert", "append") else at + length
        after[len(after) if kind == "append" else at : len(after) if kind == "append" else end] = fresh
        new += len(fresh)
    first = pack_all([before] if own else [b"x" * 100, before])
    second = pack_all([bytes(after)], first)
    assert second.content(0) == bytes(after)
    assert second.stored <= new + len(changes) * 3 * 8 * KIB


@settings(max_examples=15)
@given(st.integers(0, 3 * OWN_FROM), st.integers(1, 2 * OWN_FROM))
def test_file_that_repeats_itself_keeps_each_chunk_once(head: int, length: int) -> None:
    part = noise(length, 5)
    content = noise(head, 6) + part + part + part
    packed = pack_all([content])
    if len(content) >= SMALL_FROM:
        assert packed.content(0) == content
        assert packed.stored <= len(content)


def test_file_that_got_shorter_while_it_was_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(noise(OWN_FROM, 1))
    packer = Packer(str(tmp_path), {}.get)
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        with pytest.raises(Conflict, match="changed while it was read"):
            packer.store_large(descriptor, OWN_FROM + 1, "f")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_pack_of_a_file_that_shrank_and_grew_again_is_what_its_name_says(tmp_path: Path, cut: int) -> None:
    path, size = tmp_path / "file", 160 * KIB
    path.write_bytes(random.Random(4).randbytes(size))
    real = OpenPack.append_range

    def disturbed(
        pack: OpenPack, descriptor: int, offset: int, memory: memoryview, name: str
    ) -> tuple[int, Future[None]]:
        if offset == 48 * KIB:
            os.truncate(path, offset + cut)
        taken = real(pack, descriptor, offset, memory, name)
        if offset == 48 * KIB:
            with path.open("ab") as file:
                file.write(bytes(size - path.stat().st_size))
        return taken

    packer = Packer(str(tmp_path), lambda _: None)
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(OpenPack, "append_range", disturbed)
        with pytest.raises(Conflict, match="changed while it was read"):
            packer.store_large(file.fileno(), size, str(path))
    packer.finish()
    for pack in packer.closed:
        content = Path(pack.path).read_bytes()
        assert (hash_bytes(content), len(content)) == (pack.id, pack.row.size)
        assert sum(length for _, length in pack.chunks()) == len(content)


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, 1 << 40)), max_size=5))
def test_chunk_list_is_read_as_it_was_written(chunks: list[tuple[bytes, int]]) -> None:
    assert decode_chunks(encode_chunks(chunks)) == chunks


@given(st.binary(max_size=60))
def test_unreadable_chunk_list_lists_nothing(content: bytes) -> None:
    for head in (b"", b"\x92\x01\x91", b"\x92\x02\x90"):
        assert isinstance(decode_chunks(head + content), list)


def test_wrong_chunk_list_never_becomes_a_wrong_file() -> None:
    content = noise(2 * OWN_FROM, 4)
    first = pack_all([content])
    (pack,) = [pack for pack in first.opened if pack.id]
    with _folder() as folder:
        packer = Packer(str(folder), {}.get)
        packer.learn(pack.row, [(hash_bytes(b"?"), pack.row.size + 1)])
        assert packer.find(hash_bytes(b"?")) is None


def test_files_around_the_real_boundaries_travel_whole(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {
            "OWN_PACK_FROM": OWN_PACK_FROM,
            "PACK_TARGET": 64 << 20,
            "PACK_LIMIT": 1 << 30,
            "CHUNK_MIN": 32 * KIB,
            "CHUNK_AVERAGE": 128 * KIB,
            "CHUNK_MAX": 512 * KIB,
            "BLOCK": 4 << 20,
            "_BUFFER": 4 << 20,
            "_FLUSHED_AT_ONCE": 64 << 20,
            "_DIRECT_FROM": 1 << 20,
        }.items():
            patch.setattr(WHERE.get(name, packing), name, size)
        registry = Registry.init(tmp_path / "registry")
        folder = registry.root / "d"
        folder.mkdir()
        around = [0, 1, *(base + step for base in (CHUNKED_FROM, OWN_PACK_FROM) for step in (-1, 0, 1))]
        contents = {f"{size}": noise(size, size) for size in around}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        registry.add("d", message="Add")
        registry.push()
        get(str(registry.root), "d", out=str(tmp_path / "got"))
        assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == contents
        own = registry.root / ".reg/remote/packs"
        packs = {path.name for path in own.rglob("*") if path.is_file()}
        assert {hash_bytes(contents[f"{OWN_PACK_FROM + step}"]).hex() for step in (0, 1)} <= packs
