"""What the operations stand on: one repository with its outbox, its state, its stores and its lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from registree.config import (
    LOCAL_DIRECTORY,
    REGISTRY_FILE,
    RegistryFile,
    Remote,
    parse_registry_file,
)
from registree.errors import FormatError, InvalidInput, ReadOnly, StateError, translate_os_error
from registree.git.repository import GitRepository
from registree.model.metafile import DatasetFile, ImportFile, Metafile, parse_metafile
from registree.model.paths import METAFILE_SUFFIX
from registree.model.selectors import not_found
from registree.model.yamltext import decoding
from registree.source import Machine, RegistrySource
from registree.store.base import Store
from registree.store.directory import DirectoryStore
from registree.store.held_packs import HeldPacks
from registree.store.locking import held_lock
from registree.store.outbox import Outbox
from registree.store.staging import is_staging
from registree.store.state import State
from registree.store.tree_reader import TreeReader


class Workspace:
    """One repository of the user's: a registry, a consumer, or both."""

    def __init__(self, repository: GitRepository, machine: Machine) -> None:
        if repository.bare:
            raise StateError(f"{repository.root} is a bare repository: there is no work tree to work in")
        self.repository = repository
        self.root = repository.root
        self.machine = machine.with_settings(os.path.join(self.root, LOCAL_DIRECTORY, "config.yaml"))
        self.outbox = Outbox(self.local("outbox"), self.root)
        self.state = State(self.local("state.sqlite"))

    @classmethod
    def find(cls, path: str, machine: Machine) -> Workspace:
        """Open the repository that a path lies in.

        Raises
        ------
        NotFound
            When it lies in none.
        """
        return cls(GitRepository.discover(path), machine)

    def local(self, name: str) -> str:
        """Return a path in `.reg/`."""
        return os.path.join(self.root, LOCAL_DIRECTORY, name)

    def make_local(self) -> None:
        """Make `.reg/`, which ignores itself."""
        os.makedirs(self.local(""), exist_ok=True)
        marker = self.local(".gitignore")
        if not os.path.exists(marker):
            with open(marker, "w", encoding="utf-8") as file:
                file.write("*\n")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the repository's lock."""
        try:
            self.make_local()
        except OSError as error:
            raise StateError(f"{self.root} cannot be written ({error.strerror})") from error
        with held_lock(self.local("lock"), self.root, self.machine.settings.lock_wait, self.machine.warn):
            note = self.local("writing")
            self._recover(note)
            try:
                self.note_git_folder(self.repository.control)
            except OSError as error:
                raise translate_os_error(error, "a note of what is done", self.local("")) from error
            try:
                yield
            finally:
                os.unlink(note)

    def note_git_folder(self, folder: str) -> None:
        """Note a Git folder that is written to now: a lock of Git's that a killed run leaves there is removed later."""
        with open(self.local("writing"), "a", encoding="utf-8") as file:
            file.write(f"{time.time():.3f} {folder}\n")

    def _recover(self, note: str) -> None:
        """Clean up after a run that was killed while it held the lock, which is ours now."""
        try:
            with open(note, encoding="utf-8") as file:
                rows = [line.split(" ", 1) for line in file.read().split("\n") if " " in line]
        except FileNotFoundError:
            return
        since = min((float(row[0]) for row in rows), default=0.0)
        self.repository.remove_stale_locks(since, [row[1] for row in rows])
        os.unlink(note)

    @property
    def is_registry(self) -> bool:
        """Whether it has a `reg.yaml`."""
        return os.path.exists(os.path.join(self.root, REGISTRY_FILE))

    def registry_file(self) -> RegistryFile:
        """Read `reg.yaml`.

        Raises
        ------
        StateError
            When there is none.
        """
        place = os.path.join(self.root, REGISTRY_FILE)
        try:
            with open(place, encoding="utf-8") as file, decoding(place):
                return parse_registry_file(file.read(), place)
        except FileNotFoundError:
            raise StateError(f"{self.root} is not a registry", hint="reg init makes it one") from None

    def relative(self, path: str) -> str:
        """Return an absolute path relative to the repository, in normal form with ``/``.

        Raises
        ------
        InvalidInput
            When it lies outside, or is the root itself.
        """
        place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        place = os.path.normpath(place)
        if not place.startswith(self.root + os.sep):
            raise InvalidInput(
                f"{path} is outside the repository {self.root}"
                if place != self.root
                else f"{path} is the repository itself",
                hint="name something inside it",
            )
        return os.path.relpath(place, self.root)

    def metafile_path(self, name: str) -> str:
        """Return the path of a dataset's metafile in the work tree."""
        return os.path.join(self.root, name + METAFILE_SUFFIX)

    def read_metafile(self, name: str) -> Metafile | None:
        """Read a dataset's metafile from the work tree; None when there is none."""
        content, place = self.metafile_bytes(name), name + METAFILE_SUFFIX
        with decoding(place):
            return parse_metafile(content.decode(), place) if content is not None else None

    def metafile_bytes(self, name: str) -> bytes | None:
        """Read what a dataset's metafile in the work tree is, whatever that is; None when there is none."""
        try:
            with open(self.metafile_path(name), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def metafile_names(self) -> list[str]:
        """Find all datasets and imports by their metafiles in the work tree, sorted; payload is not walked."""
        names: list[str] = []
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(os.path.join(self.root, folder)) as listing:
                    entries = list(listing)
            except FileNotFoundError:
                if not folder:
                    raise
                continue  # it has gone just now
            if folder and any(entry.name == ".git" for entry in entries):
                continue  # another repository, with datasets of its own
            own = {e.name.removesuffix(METAFILE_SUFFIX) for e in entries if e.name.endswith(METAFILE_SUFFIX)}
            prefix = f"{folder}/" if folder else ""
            names += [prefix + name for name in own if name]
            pending += [
                prefix + e.name
                for e in entries
                if e.is_dir(follow_symlinks=False)
                and e.name not in (".git", LOCAL_DIRECTORY)
                and e.name not in own
                and not is_staging(e.name)
            ]
        return sorted(names)

    def metafiles(self, broken: dict[str, FormatError] | None = None) -> dict[str, Metafile]:
        """Read all metafiles of the work tree; a broken one stops it, or is noted in `broken` when that is given."""
        found: dict[str, Metafile] = {}
        for name in self.metafile_names():
            try:
                metafile = self.read_metafile(name)
            except FormatError as error:
                if broken is None:
                    raise
                broken[name] = error
                continue
            if metafile is not None:
                found[name] = metafile
        return found

    def dataset(self, name: str) -> DatasetFile:
        """Read a dataset's metafile from the work tree.

        Raises
        ------
        NotFound
            When there is none; the nearest names are given.
        """
        found = self.read_metafile(name)
        if isinstance(found, DatasetFile):
            return found
        there = [other for other, file in self.metafiles({}).items() if isinstance(file, DatasetFile)]
        raise not_found("dataset", name, self.root, there)

    def imported(self, name: str) -> ImportFile:
        """Read an import's metafile from the work tree.

        Raises
        ------
        NotFound
            When there is none; the nearest names are given.
        """
        found = self.read_metafile(name)
        if isinstance(found, ImportFile):
            return found
        there = [other for other, file in self.metafiles({}).items() if isinstance(file, ImportFile)]
        raise not_found("import", name, self.root, there)

    def store(self, remote: Remote) -> Store:
        """Open a remote of this registry where `reg.yaml` says it is, wherever this machine reads it."""
        return self.registry().store(remote, overridden=False)

    def stores(self) -> list[Store]:
        """Open the remotes to read from, where this machine reads them: those of `reg.yaml`, and one inside `.reg/`."""
        source = self.registry()
        remotes = (*(self.registry_file().remotes if self.is_registry else ()), *source.embedded())
        found: dict[object, Store] = {}
        for store in map(source.store, remotes):
            found.setdefault(os.path.realpath(store.root) if isinstance(store, DirectoryStore) else store, store)
        return list(found.values())

    def target(self, remote: Remote) -> Store:
        """Open a remote of this registry to send to.

        Raises
        ------
        ReadOnly
            When it can only be read.
        InvalidInput
            When it is this repository's outbox: what it got would be dropped there as sent.
        """
        store = self.store(remote)
        if isinstance(store, DirectoryStore) and os.path.realpath(store.root) == os.path.realpath(self.outbox.root):
            raise InvalidInput(
                f"{store.address} is the outbox itself", hint="reg remote add NAME URL names another place"
            )
        if not store.writable:
            raise ReadOnly(
                f"{store.address} can only be read",
                hint="reg remote add NAME URL names another, reg remote list shows them",
            )
        return store

    def registry(self) -> RegistrySource:
        """Return this repository as the source of data that it is."""
        return RegistrySource(self.root, self.repository, self.machine)

    def held_packs(self, *, in_place: bool = False) -> HeldPacks:
        """Return what the outbox and the first remote, to which packs are sent, are known to hold."""
        remotes = self.registry_file().remotes if self.is_registry else ()
        address = self.store(remotes[0]).address if remotes else ""
        return HeldPacks(self.outbox, self.state, address, in_place=in_place)

    def reader(self) -> TreeReader:
        """Return a reader over the outbox, the cache and the remotes."""
        return TreeReader([self.outbox, *self.stores()], self.machine.cache, self.machine.executor)
