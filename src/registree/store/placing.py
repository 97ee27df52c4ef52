"""Put files of a tree into a folder: from the cache where it has them, from older files on this disk, from packs."""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from itertools import takewhile
from typing import NamedTuple

from registree.errors import FormatError, IntegrityError
from registree.execute import Progress
from registree.model.manifest import Entry, Kind, check_entry
from registree.model.places import Extents, PackRow
from registree.store.batches import Made, write_files
from registree.store.cache import Cache
from registree.store.file_stat import Stat, as_row
from registree.store.files import (
    LinkKind,
    copy_file,
    hash_file,
    try_hardlink,
    try_reflink,
)
from registree.store.gathering import Gathering
from registree.store.payload import LargeFile, Wanted, is_whole
from registree.store.small_files import Row, SmallFiles
from registree.store.tree_reader import TreeReader

_WINDOW_BYTES = 64 << 20
_WINDOW_FILES = 8192
"""Small files that are brought together, so that few reads give many of them."""
_FIRST_WINDOW = 8
"""The first window is this part of a whole one, so that work begins sooner; the next is four times as large."""
_LARGE_AT_ONCE = 2
"""Large files on their way at once: the first pieces of one come while the one before is hashed."""

Reuse = Callable[[Entry], tuple[str, Extents | None] | None]
"""Finds an older file on this disk for an entry: its path, and its extents when only parts of it are the same."""


def choose_link(cache: Cache, folder: str, allowed: Sequence[LinkKind]) -> LinkKind:
    """Find by trying how files get from the cache into a folder: the first kind allowed that the disks can."""
    probe = f"{cache.root}/.probe-{secrets.token_hex(6)}"
    target = f"{folder}/.reg-probe-{secrets.token_hex(6)}"
    try:
        os.makedirs(cache.root, exist_ok=True)
        with open(probe, "xb") as file:
            file.write(b"reg")
        for kind in allowed:
            if kind is LinkKind.REFLINK and try_reflink(probe, target, 0o600):
                return kind
            if kind is LinkKind.HARDLINK and try_hardlink(probe, target):
                return kind
    except OSError:
        return LinkKind.COPY  # a cache that cannot be written is read, and copied from
    finally:
        for path in (probe, target):
            with suppress(OSError):
                os.unlink(path)
    return LinkKind.COPY


class _Large(NamedTuple):
    """A large file on its way, the file in which it is gathered, and what ends with it."""

    wanted: Wanted
    file: LargeFile
    gathering: Gathering
    held: ExitStack


class Placer:
    """Makes files at given paths, which must not exist; their folders are made as needed. It is to be closed.

    Parameters
    ----------
    link
        How files come from the cache. With HARDLINK, files are read-only.
    processes
        How many others may help with small files.
    expected
        How many files there will be at the most.
    keep
        Whether what is brought is kept in the cache.
    learn
        Told what each file is when it is there, by its path in the dataset.
    """

    def __init__(
        self,
        reader: TreeReader | None,
        cache: Cache,
        executor: Executor,
        progress: Progress,
        link: LinkKind,
        *,
        processes: int,
        expected: int,
        keep: bool,
        learn: Callable[[str, Stat], None] | None = None,
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._executor = executor
        self._progress = progress
        self._link = link
        self._processes = processes
        self._expected = expected
        self._keep = keep
        self._learn = learn
        self._is_trusted = keep or learn is not None  # by its size and times: what is not whole must not look so
        mask = os.umask(0)
        os.umask(mask)
        writable = 0o444 if link is LinkKind.HARDLINK else 0o666
        self._modes = (writable & ~mask, (writable | 0o111) & ~mask)
        self._folders: set[str] = set()
        self._links: set[str] = set()
        self._packs_beside: dict[bytes, bool] = {}
        self._window: list[Wanted] = []
        self._copies: list[tuple[Wanted, str]] = []
        self._window_bytes = 0
        self._window_part = _FIRST_WINDOW
        self._small: SmallFiles | None = None
        self._large: deque[_Large] = deque()
        self.placed_bytes = 0

    def place(self, wanted: Wanted, reuse: Reuse | None = None) -> None:
        """Make one file, link or empty folder; files may come only with `finish`."""
        entry, path = wanted.entry, wanted.path
        if entry.kind == Kind.DIRECTORY:
            self._make_folder(path)
            return
        self._make_folder(path.rpartition("/")[0])
        if entry.kind == Kind.LINK:
            check_entry(entry)  # a part of a dataset may leave out what a link in it points to
            os.symlink(entry.target, path)
            self._links.add(path)
            self._progress.advance(1, entry.size)
            return
        if not entry.size:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode(entry)))
            self._is_there(wanted, entry.size)
            return
        while any(coming.wanted.entry.content == entry.content for coming in self._large):
            self._end_large()  # the cache may have it then
        if self._link is LinkKind.COPY and is_whole(wanted):
            source = self._to_copy_from(wanted)
            if source is not None:
                self._copies.append((wanted, source))
                self._grow_window(entry.size)
                return
        elif self._from_cache(entry, path):
            self._is_there(wanted, entry.size)
            return
        if wanted.content is not None:
            self._write(wanted, wanted.content)
            return
        older = reuse(entry) if reuse is not None else None
        if older is not None and older[1] is None and self._copy_same(older[0], entry, path):
            self._adopt(entry, path)
            self._is_there(wanted, entry.size)
        elif is_whole(wanted):
            self._window.append(wanted)
            self._grow_window(entry.size)
        else:
            self._begin_large(wanted, older)
            if len(self._large) == _LARGE_AT_ONCE:
                self._end_large()

    def _to_copy_from(self, wanted: Wanted) -> str | None:
        """Return the cache's file, if it has it, or None.

        Where nothing is to be kept, a pack on the cache's own disk is better: one read of it gives many files.
        """
        pack, entry = wanted.extents[0].pack, wanted.entry
        if pack.id not in self._packs_beside:
            self._packs_beside[pack.id] = not self._keep and self._lies_beside(pack)
        if self._packs_beside[pack.id]:
            return None
        return self._cache.likely_file(entry.content, entry.size, executable=entry.kind == Kind.EXECUTABLE)

    def _lies_beside(self, pack: PackRow) -> bool:
        at_hand = takewhile(lambda store: store.is_local, self._packs().stores)  # to ask another would cost more
        return any(store.lies_beside(pack, self._cache.root) for store in at_hand)

    def _from_cache_after_all(self, wanted: Wanted) -> bytes | None:
        """Return a file's bytes from the cache, if it has them."""
        entry = wanted.entry
        source = self._cache.file(entry.content, entry.size, executable=entry.kind == Kind.EXECUTABLE)
        with suppress(FileNotFoundError):  # somebody cleaned the cache just now
            if source is not None:
                with open(source, "rb") as file:
                    return file.read()
        return None

    def finish(self) -> None:
        """Bring what is still waiting and note what the cache got."""
        self._bring()
        if self._small is not None:
            self._small.finish()
        while self._large:
            self._end_large()
        self._cache.flush()

    def close(self) -> None:
        """End what works for it."""
        while self._large:
            self._large.popleft().held.close()
        small, self._small = self._small, None  # they know of each other, and its memory is not to wait for a collector
        if small is not None:
            small.close()

    def _packs(self) -> TreeReader:
        if self._reader is None:
            raise AssertionError("content without a reader holds no extents")
        return self._reader

    def _mode(self, entry: Entry) -> int:
        return self._modes[entry.kind == Kind.EXECUTABLE]

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            above = folder
            while len(above) > 1 and above not in self._folders:
                if above in self._links:
                    raise FormatError(f"an entry of the dataset lies below its link {os.path.basename(above)!r}")
                above = os.path.dirname(above)
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)

    def _from_cache(self, entry: Entry, path: str) -> bool:
        source = self._cache.file(entry.content, entry.size, executable=entry.kind == Kind.EXECUTABLE)
        if source is None:
            return False
        try:
            self._link_or_copy(source, path, entry)
        except (FileNotFoundError, PermissionError):  # somebody cleaned the cache just now, or it is theirs
            return False
        return True

    def _link_or_copy(self, source: str, path: str, entry: Entry) -> None:
        if self._link is LinkKind.REFLINK and try_reflink(source, path, self._mode(entry)):
            return
        if self._link is LinkKind.HARDLINK and try_hardlink(source, path):
            return
        copy_file(source, path, self._mode(entry))

    def _copy_same(self, source: str, entry: Entry, path: str) -> bool:
        try:
            copy_file(source, path, self._mode(entry))
        except OSError:  # it has gone, or is no file any more
            with suppress(FileNotFoundError):
                os.unlink(path)
            return False
        if hash_file(path) == entry.content:
            return True
        os.unlink(path)
        return False

    def _grow_window(self, size: int) -> None:
        self._small_files()  # its processes start while the window fills
        self._window_bytes += size
        files, part = len(self._window) + len(self._copies), self._window_part
        if self._window_bytes >= _WINDOW_BYTES // part or files >= _WINDOW_FILES // part:
            self._window_part = max(1, part // 4)
            self._bring()

    def _bring(self) -> None:
        window, copies = self._window, self._copies
        self._window, self._copies, self._window_bytes = [], [], 0
        if not window and not copies:
            return
        small = self._small_files()
        small.copy(copies)
        small.make(window)

    def _small_files(self) -> SmallFiles:
        if self._small is None:
            self._small = SmallFiles(
                self._packs(), self._executor, self._row, self._made, self._processes, self._expected,
                self._from_cache_after_all,
            )  # fmt: skip
        return self._small

    def _row(self, wanted: Wanted) -> Row:
        entry, second = wanted.entry, ""
        executable = entry.kind == Kind.EXECUTABLE
        if self._keep and self._link is LinkKind.HARDLINK:
            second = self._cache.room_for(entry.content, executable=executable)
        return wanted.path, self._modes[executable], second

    def _write(self, wanted: Wanted, content: bytes) -> None:
        path, mode, second = self._row(wanted)
        row = (path, mode, 0, len(content), wanted.entry.content, second)
        self._made([wanted], write_files(memoryview(content), [row]), are_copies=False)

    def _made(self, files: Sequence[Wanted], made: Sequence[Made], are_copies: bool) -> None:
        keep_copies = self._keep and self._link is not LinkKind.HARDLINK and not are_copies
        size = 0
        for (entry, _, path, _), one in zip(files, made, strict=True):
            if one is None:
                raise AssertionError("bytes that are not those of a file were not made one")
            inode, modified, changed, is_kept = one
            if self._learn is not None:
                self._learn(entry.path, Stat(entry.size, modified, changed, inode, entry.content))
            if is_kept:
                self._cache.note(entry.content, inode, modified, entry.size, executable=entry.kind == Kind.EXECUTABLE)
            elif keep_copies:
                self._cache.adopt_copy(path, entry.content, executable=entry.kind == Kind.EXECUTABLE)
            size += entry.size
        self.placed_bytes += 0 if are_copies else size
        self._progress.advance(len(files), size)

    def _begin_large(self, wanted: Wanted, older: tuple[str, Extents | None] | None) -> None:
        base = (older[0], older[1]) if older is not None and older[1] is not None else None
        with ExitStack() as stack:
            gathering = stack.enter_context(Gathering(self._cache, wanted))
            file = LargeFile(
                self._packs(), self._executor, wanted._replace(path=gathering.path), gathering.descriptor,
                is_flushed=self._is_trusted and gathering.is_beside, base=base, progress=self._progress,
            )  # fmt: skip
            stack.enter_context(file)
            self._large.append(_Large(wanted, file, gathering, stack.pop_all()))

    def _end_large(self) -> None:
        """Finish the large file that was begun first."""
        wanted, file, gathering, held = self._large.popleft()
        with held:
            try:
                self.placed_bytes += file.finish()
            except IntegrityError:
                gathering.remove()
                file.forget()
                raise
            gathering.move(self._mode(wanted.entry), flush=self._is_trusted)
            file.forget()
        self._adopt(wanted.entry, wanted.path)
        self._is_there(wanted, 0)

    def _adopt(self, entry: Entry, path: str) -> None:
        if not self._keep:
            return
        executable = entry.kind == Kind.EXECUTABLE
        if self._link is LinkKind.HARDLINK:
            self._cache.adopt(path, entry.content, executable=executable)
        else:
            self._cache.adopt_copy(path, entry.content, executable=executable)

    def _is_there(self, wanted: Wanted, size: int) -> None:
        """Tell of a file that was not made by `SmallFiles`, and of the bytes not told of yet."""
        if self._learn is not None:
            self._learn(wanted.entry.path, as_row(os.stat(wanted.path), wanted.entry.content))
        self._progress.advance(1, size)
