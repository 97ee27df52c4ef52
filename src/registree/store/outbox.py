"""The outbox, `.reg/outbox/`: a store with the remote's own layout, holding what `add` made and `push` has not sent.

A pack may be there as its bytes (``packs/ab/<id>``) or, after `add --in-place`, as a note of which files of the work
tree hold them (``in-place/ab/<id>``). Reading looks through both.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from registree.errors import DISK_FULL, IntegrityError, ObjectMissing, StoreError
from registree.model.ids import id_text
from registree.store.base import Store
from registree.store.chunk_list import encode_chunks
from registree.store.directory import DirectoryStore, sync_directory
from registree.store.files import hash_file
from registree.store.layout import CHUNKS, MANIFESTS, MAPS, PACKS, compress, id_of_key, key
from registree.store.open_pack import OpenPack, read_sources
from registree.store.tree_writer import WrittenTree

IN_PLACE = "in-place"
_TEMPORARY = "tmp"
_PUBLISHING = "tmp/publishing"
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Outbox(DirectoryStore):
    """The outbox of one repository.

    Parameters
    ----------
    root
        Its directory.
    work_tree
        Where the paths of in-place packs start.
    """

    is_outbox = True

    def __init__(self, root: str, work_tree: str) -> None:
        super().__init__(root, f"the outbox {root}")
        self.work_tree = work_tree
        self._unchanged: frozenset[bytes] = frozenset()
        self._began = 0

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`; bytes in place are read from the work tree, unchecked, as from any store."""
        try:
            return super().read(key, offset, length)
        except ObjectMissing:
            sources = self.sources(key)
            if sources is None:
                raise
            total = sum(row[2] for row in sources)
            wanted = total - offset if length is None else length
            content = b""
            with _reading(key), suppress(*_GONE):
                content = b"".join(read_sources(_slice(sources, offset, wanted)))
            if len(content) < wanted:
                raise ObjectMissing(
                    key, self.address, hint="a file that was added in place is gone or shorter"
                ) from None
            return content

    def copy_range(self, key: str, offset: int, length: int, descriptor: int, position: int) -> memoryview | None:
        """See `Store.copy_range`."""
        if super().size(key) is None and self.sources(key) is not None:
            return Store.copy_range(self, key, offset, length, descriptor, position)
        return super().copy_range(key, offset, length, descriptor, position)

    def fill(self, key: str, offset: int, memory: memoryview) -> None:
        """See `Store.fill`."""
        if super().size(key) is None and self.sources(key) is not None:
            Store.fill(self, key, offset, memory)
        else:
            super().fill(key, offset, memory)

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        found = super().size(key)
        if found is None:
            sources = self.sources(key)
            found = sum(row[2] for row in sources) if sources is not None else None
        return found

    def sources(self, key: str) -> list[tuple[str, int, int]] | None:
        """Return which files hold a pack that was added in place: (path, offset, length); None for others."""
        if not key.startswith(PACKS):
            return None
        try:
            content = super().read(IN_PLACE + key.removeprefix(PACKS))
        except ObjectMissing:
            return None
        try:
            rows = msgspec.json.decode(content, type=list[tuple[str, int, int]])
        except msgspec.DecodeError as error:
            raise self._unreadable(IN_PLACE + key.removeprefix(PACKS), error) from error
        return [(os.path.join(self.work_tree, path), start, length) for path, start, length in rows]

    def in_place_packs(self) -> set[bytes]:
        """Return the packs whose bytes lie in the work tree alone."""
        names = [PACKS + name.removeprefix(IN_PLACE) for name, _ in self.keys(IN_PLACE)]
        return {found for name in names if self.bytes_held(name) is None and (found := id_of_key(name)) is not None}

    def in_place_paths(self, folder: str) -> frozenset[str]:
        """Return the files below a folder (or the file itself) whose only copy they are, relative to it."""
        found = set()
        for name, _ in self.keys(IN_PLACE):
            for path, _, _ in self.sources(PACKS + name.removeprefix(IN_PLACE)) or ():
                if path == folder or path.startswith(folder + "/"):
                    found.add(path[len(folder) + 1 :])
        return frozenset(found)

    def move_in_place(self, folder: str, new: str) -> None:
        """Note that files which were added in place have moved with their folder (absolute paths)."""
        for name, _ in list(self.keys(IN_PLACE)):
            pack = PACKS + name.removeprefix(IN_PLACE)
            rows = self.sources(pack) or []
            moved = [
                (new + path[len(folder) :] if path == folder or path.startswith(folder + "/") else path, start, length)
                for path, start, length in rows
            ]
            if moved != rows:
                self._write_sources(name, moved, self.noted_at(pack))

    def noted_at(self, key: str) -> int:
        """Return when the run began that read the files which hold a pack (nanoseconds since the epoch); 0 for none."""
        try:
            return os.stat(self.path(IN_PLACE + key.removeprefix(PACKS))).st_mtime_ns
        except FileNotFoundError:
            return 0

    def _write_sources(self, name: str, sources: list[tuple[str, int, int]], noted_at: int) -> None:
        rows = [(os.path.relpath(path, self.work_tree), start, length) for path, start, length in sources]
        self.write(name, msgspec.json.encode(rows))
        os.utime(self.path(name), ns=(noted_at, noted_at))

    def place_of(self, pack: bytes) -> str:
        """Return where a pack's bytes lie, relative to the work tree."""
        return os.path.relpath(self.path(key(PACKS, pack)), self.work_tree)

    def trust(self, packs: Iterable[bytes]) -> None:
        """Say which packs are as they were when they were written and hashed: `pack_file` does not hash them again."""
        self._unchanged = frozenset(packs)

    def pack_file(self, key: str, scratch: str) -> str:
        """Return a file with a pack's bytes, checked against its id.

        Parameters
        ----------
        scratch
            A path to gather an in-place pack at; the caller removes it.

        Raises
        ------
        IntegrityError
            When the outbox's copy, or a file added in place, is not what it was.
        """
        with _reading(key):
            return self._checked_file(key, scratch)

    def _checked_file(self, key: str, scratch: str) -> str:
        from_files = self.sources(key) if super().size(key) is None else None
        path = self.path(key)
        if from_files is not None:
            path = scratch
            try:
                with open(scratch, "wb") as file:
                    for block in read_sources(from_files):
                        file.write(block)
            except _GONE as error:
                raise IntegrityError(
                    f"{error.filename} was added in place and is gone, and no store holds its bytes",
                    hint="put it back, or run reg add again for that dataset",
                ) from None
        elif id_of_key(key) in self._unchanged:
            return path
        expected = id_of_key(key)
        if expected is not None and hash_file(path) != expected:
            where = ", ".join(sorted({row[0] for row in from_files})) if from_files else path
            raise IntegrityError(
                f"{where} changed since it was added: pack {id_text(expected)} cannot be sent",
                hint="run reg add again for that dataset" if from_files else f"delete {path} and run reg add again",
            )
        return path

    def manifests(self) -> list[bytes]:
        """Return the ids of the manifests that wait to be sent."""
        return [found for name, _ in self.keys(MANIFESTS) if (found := id_of_key(name)) is not None]

    def packs(self) -> Iterator[tuple[bytes, int]]:
        """List the packs that wait to be sent, with their sizes in bytes."""
        for folder in (PACKS, IN_PLACE):
            for name, size in self.keys(folder):
                found = id_of_key(PACKS + name.removeprefix(folder))
                if found is not None:
                    yield found, size

    def drop_pack(self, pack: bytes) -> None:
        """Forget a pack that the remote has confirmed."""
        for folder in (CHUNKS, IN_PLACE, PACKS):
            self.delete(key(folder, pack))

    def clear(self) -> None:
        """Forget everything: no manifest waits, so what is left was of runs that were interrupted."""
        for folder in (MAPS, CHUNKS, IN_PLACE, PACKS):
            shutil.rmtree(f"{self.root}/{folder}", ignore_errors=True)

    def drop_manifest(self, manifest: bytes) -> None:
        """Forget a manifest that the remote has confirmed."""
        self.delete(key(MAPS, manifest))
        self.delete(key(MANIFESTS, manifest))

    def begin(self) -> str:
        """Return an empty folder for packs that are being written; what an interrupted run left there is removed.

        The caller holds the repository's lock.
        """
        folder = f"{self.root}/{_TEMPORARY}"
        self._roll_back()
        shutil.rmtree(folder, ignore_errors=True)
        self.sweep()
        os.makedirs(folder)
        self._began = time.time_ns()
        return folder

    def _note_publishing(self, packs: Sequence[OpenPack], trees: Sequence[WrittenTree]) -> None:
        """Note what is about to be new here, so that a run that is killed half-way can be undone."""
        ids = [pack.id for pack in packs]
        new = [found.hex() for found in ids if self.size(key(PACKS, found)) is None]
        manifests = [tree.manifest.hex() for tree in trees if self.size(key(MANIFESTS, tree.manifest)) is None]
        self.write(_PUBLISHING, msgspec.json.encode((new, manifests)))

    def _roll_back(self) -> None:
        """Undo a publication that was killed before its last manifest was there."""
        try:
            packs, manifests = msgspec.json.decode(super().read(_PUBLISHING), type=tuple[list[str], list[str]])
        except ObjectMissing:
            return
        except msgspec.DecodeError as error:
            raise self._unreadable(_PUBLISHING, error) from error
        if any(self.size(key(MANIFESTS, bytes.fromhex(found))) is None for found in manifests):
            for found in manifests:
                self.drop_manifest(bytes.fromhex(found))
            for found in packs:
                self.drop_pack(bytes.fromhex(found))
        self.delete(_PUBLISHING)

    def _unreadable(self, key: str, error: msgspec.DecodeError) -> IntegrityError:
        return IntegrityError(
            f"{self.path(key)} is damaged ({error})",
            hint="delete it; reg verify says for which datasets to run reg add",
        )

    def abandon(self) -> None:
        """Remove what `begin` gave, and what a publication that failed half-way has moved already."""
        self._roll_back()
        shutil.rmtree(f"{self.root}/{_TEMPORARY}", ignore_errors=True)

    def bytes_held(self, key: str) -> int | None:
        """Return the size of a pack whose bytes lie in the outbox itself; None for one in place."""
        return super().size(key)

    def publish(self, packs: Sequence[OpenPack], trees: Sequence[WrittenTree]) -> None:
        """Move written datasets into place: packs, chunk lists, maps, manifests, in this order."""
        self.ensure_marker()
        every = (*packs, *(pack for tree in trees for pack in tree.packs))
        self._note_publishing(every, trees)
        for pack in every:
            if pack.sources is None:
                self.adopt(key(PACKS, pack.id), pack.path)
            else:
                self._write_sources(key(IN_PLACE, pack.id), pack.sources, self._began)
            if pack.chunked:
                self.write(key(CHUNKS, pack.id), compress(encode_chunks(pack.chunks())))
        folders = {os.path.dirname(self.path(key(PACKS, pack.id))) for pack in every}
        for folder in (*folders, f"{self.root}/{PACKS}"):
            with suppress(FileNotFoundError):  # packs in place have none
                sync_directory(folder)
        for tree in sorted(trees, key=lambda tree: self.size(key(MANIFESTS, tree.manifest)) is not None):
            # what is here already comes last: when that is written, the new packs are not taken back any more
            self.write(key(MAPS, tree.manifest), compress(tree.root_map))
            self.write(key(MANIFESTS, tree.manifest), compress(tree.root_page))


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """Say what cannot be read, so that another store is tried."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:  # where it is gathered
            raise
        raise StoreError(f"{error.filename or key} cannot be read ({error.strerror})") from error


def _slice(sources: list[tuple[str, int, int]], offset: int, length: int) -> list[tuple[str, int, int]]:
    rows = []
    for path, start, size in sources:
        low, high = max(offset, 0), min(offset + length, size)
        if low < high:
            rows.append((path, start + low, high - low))
        offset -= size
    return rows
