"""Where data comes from: the machine that a caller brings, and registries, opened in place or mirrored.

The environment is read by whoever makes a `Machine`, never here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from registree.config import (
    EMBEDDED_REMOTE,
    LOCAL_DIRECTORY,
    REGISTRY_FILE,
    RegistryFile,
    Remote,
    Settings,
    parse_registry_file,
    parse_settings,
)
from registree.errors import FormatError, NotFound
from registree.execute import Meter, Progress, Silent, default_executor, default_processes
from registree.git.connection import is_local_url, strip_credentials
from registree.git.credentials import Access, Ask
from registree.git.mirror import fetch_mirror, open_mirror
from registree.git.repository import GitRepository
from registree.model.metafile import Metafile, parse_metafile
from registree.model.paths import METAFILE_SUFFIX
from registree.model.yamltext import decoding
from registree.network import Network
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.files import LinkKind
from registree.store.layout import MANIFESTS
from registree.store.locking import held_lock
from registree.store.opening import is_local, local_path, open_store
from registree.store.outbox import Outbox
from registree.store.tree_reader import TreeReader
from registree.store.workers import Spares


class Machine(msgspec.Struct, frozen=True, dict=True):
    """What a caller brings: folders, settings, the executor, and whom to tell of progress and warnings.

    `cache_dir` and `config_dir` are directories of the user's. `offline` forbids the network. `meter` counts what is
    asked of stores behind it; `ask` puts a question to a person, where there is one. `spares` are processes that were
    started already.
    """

    cache_dir: str
    config_dir: str
    offline: bool = False
    network: Network = msgspec.field(default_factory=Network)
    settings: Settings = msgspec.field(default_factory=Settings)
    progress: Progress = msgspec.field(default_factory=Silent)
    warn: Callable[[str], None] = lambda text: None
    meter: Meter = msgspec.field(default_factory=Meter)
    ask: Ask | None = None
    spares: Spares | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, offline: bool = False) -> Machine:
        """Return the machine that an environment describes, with the user's settings.

        Read are ``REG_CACHE_DIR``, ``XDG_CACHE_HOME``, ``XDG_CONFIG_HOME``, ``HOME``, and what `Network` reads.
        """
        home = environment.get("HOME") or os.path.expanduser("~")
        caches = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
        configs = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        cache = environment.get("REG_CACHE_DIR") or os.path.join(caches, "registree")
        network = Network.from_environment(environment)
        made = cls(os.path.abspath(cache), os.path.join(configs, "registree"), offline=offline, network=network)
        return made.with_settings(None)

    @cached_property
    def executor(self) -> Executor:
        """Where transfers run."""
        return default_executor(self.settings.jobs)

    @cached_property
    def processes(self) -> int:
        """How many processes may work beside this one."""
        return default_processes(self.settings.jobs)

    @property
    def access(self) -> Access:
        """What stands behind a connection to another repository."""
        return Access(self.network, self.ask)

    @cached_property
    def cache(self) -> Cache:
        """The user's cache."""
        return Cache(self.settings.cache_dir or self.cache_dir)

    @property
    def links(self) -> tuple[LinkKind, ...]:
        """How files may come from the cache, the best first."""
        return tuple(LinkKind(name) for name in self.settings.link)

    def overridden(self, remote: Remote) -> Remote:
        """Return where this machine reads a remote: elsewhere than its registry says, when the settings say so."""
        overrides = self.settings.overrides
        url = overrides.get(remote.url) or overrides.get(remote.name)
        if not url:
            return remote
        same_kind = url.split("://")[0] == remote.url.split("://")[0]
        return replace(remote, url=url, options=remote.options if same_kind else {})

    def open_store(self, url: str, base: str, options: Mapping[str, Any]) -> Store:
        """Open the store at a URL or a path, unless it is in use already; a relative path starts at `base`."""
        wanted = (url, base if is_local(url) else "", repr(sorted(options.items())))
        store = self._stores.get(wanted)
        if store is None:
            store = self._stores[wanted] = open_store(
                url, base, options,
                network=self.network, meter=self.meter, retries=self.settings.retries, offline=self.offline,
            )  # fmt: skip
        return store

    @cached_property
    def _stores(self) -> WeakValueDictionary[tuple[str, str, str], Store]:
        return WeakValueDictionary()

    def with_settings(self, local: str | None) -> Machine:
        """Return it with the user's settings and those of one repository's `.reg/config.yaml`."""
        texts = {}
        for place in (os.path.join(self.config_dir, "config.yaml"), local):
            if place is not None and os.path.exists(place):
                with open(place, encoding="utf-8") as file, decoding(place):
                    texts[place] = file.read()
        return replace(self, settings=parse_settings(texts)) if texts else self


class RegistrySource:
    """A registry to read from: somebody's, opened in place or mirrored, or one's own."""

    def __init__(self, url: str, repository: GitRepository, machine: Machine) -> None:
        self.url = url
        self.repository = repository
        self.machine = machine

    @classmethod
    def open(cls, url: str, machine: Machine, *, base: str, need: str = "") -> RegistrySource:
        """Open a registry by its Git URL or path; a URL is fetched into its mirror, unless offline.

        Parameters
        ----------
        base
            Where a relative path starts.
        need
            A commit that is enough: a mirror that has it is not fetched again.

        Raises
        ------
        NotFound, AuthError, StoreError
            When there is none, it wants credentials, or it cannot be reached.
        """
        if is_local_url(url):
            path = local_path(url, base)
            if not os.path.isdir(path):
                raise NotFound(f"there is no registry at {path}", hint="name a Git URL or the path of a repository")
            return cls(url, GitRepository.discover(path), machine)
        clean = strip_credentials(url)
        folder = machine.cache.mirror(clean)
        if machine.offline:
            return cls(clean, open_mirror(url, folder), machine)
        if need and os.path.isdir(folder):
            mirror = open_mirror(url, folder)
            if mirror.has_commit(need):
                return cls(clean, mirror, machine)
        with held_lock(folder + ".lock", f"the mirror of {clean}", machine.settings.lock_wait * 10, machine.warn):
            return cls(clean, fetch_mirror(url, folder, machine.access), machine)

    @property
    def is_local(self) -> bool:
        """Whether its work tree, with its outbox, is on this machine."""
        return not self.repository.bare

    def registry_file(self, commit: str) -> RegistryFile | None:
        """Read `reg.yaml` at a commit; None when it was no registry then."""
        content, place = self.repository.read(commit, REGISTRY_FILE), f"{REGISTRY_FILE} at {commit[:10]}"
        with decoding(place):
            return parse_registry_file(content.decode(), place) if content is not None else None

    def metafile(self, commit: str, name: str) -> Metafile | None:
        """Read a metafile at a commit; None when there is none."""
        content, place = self.repository.read(commit, name + METAFILE_SUFFIX), f"{name}{METAFILE_SUFFIX}"
        with decoding(place):
            return parse_metafile(content.decode(), place) if content is not None else None

    def metafiles(self, commit: str, broken: dict[str, FormatError]) -> dict[str, Metafile]:
        """Read all metafiles of a commit; broken ones are noted in `broken`."""
        found: dict[str, Metafile] = {}
        for file in self.repository.walk(commit):
            if file.path.endswith(METAFILE_SUFFIX):
                name = file.path.removesuffix(METAFILE_SUFFIX)
                try:
                    with decoding(file.path):
                        found[name] = parse_metafile(self.repository.blob(file.blob).decode(), file.path)
                except FormatError as error:
                    broken[name] = error
        return found

    def dataset_names(self, commit: str) -> list[str]:
        """Return the names of all datasets and imports at a commit."""
        return [
            file.path.removesuffix(METAFILE_SUFFIX)
            for file in self.repository.walk(commit)
            if file.path.endswith(METAFILE_SUFFIX)
        ]

    def remotes(self, commit: str | None, noted: Remote | None = None, *, overridden: bool = True) -> list[Remote]:
        """Return where payload may be, in the order to look.

        This machine's override goes first, then what the default branch says now, then what the pinned commit said,
        then what the lock noted; a remote inside `.reg/` counts as long as it is there.
        """
        commits = [found for found in (self._default_commit(), commit) if found and self.repository.has_commit(found)]
        files = [self.registry_file(found) for found in commits]
        if self.is_local:  # a remote that was added and not committed yet
            path = os.path.join(self.repository.root, REGISTRY_FILE)
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file, decoding(path):
                    files.insert(0, parse_registry_file(file.read()))
        found: dict[str, Remote] = {}
        for registry_file in files:
            for named in registry_file.remotes if registry_file is not None else ():
                remote = self.machine.overridden(named) if overridden else named
                found.setdefault(remote.url, remote)
        if noted is not None:
            found.setdefault(noted.url, noted)
        for named in self.embedded():
            remote = self.machine.overridden(named) if overridden else named
            found.setdefault(remote.url, remote)
        return list(found.values())

    def embedded(self) -> list[Remote]:
        """Return the remote inside `.reg/` when it got data: no matter what `reg.yaml` names, it holds what it got."""
        roots = (self.repository.root, self.repository.main_root)
        there = any(os.path.isdir(os.path.join(root, EMBEDDED_REMOTE, MANIFESTS)) for root in roots)
        return [Remote(EMBEDDED_REMOTE, EMBEDDED_REMOTE)] if there else []

    def _default_commit(self) -> str | None:
        try:
            return self.repository.commit_of(self.repository.default_branch())
        except NotFound:
            return None

    def store(self, remote: Remote, *, overridden: bool = True) -> Store:
        """Open one of its remotes, where this machine reads it or (not `overridden`) where the registry says it is."""
        remote = self.machine.overridden(remote) if overridden else remote
        return self.machine.open_store(remote.url, self._base(remote.url), remote.options)

    def _base(self, url: str) -> str:
        """A relative path starts at the registry; in a clone of a registry of this machine, at that one."""
        root = self.repository.root
        main = self.repository.main_root
        if is_local(url) and not os.path.isdir(local_path(url, root)) and os.path.isdir(local_path(url, main)):
            return main  # a linked work tree: the remote lies in the main one
        if is_local(url) and not os.path.isdir(local_path(url, root)):
            origin = self.repository.remote_url("origin")
            if origin is not None and is_local_url(origin):
                path = local_path(origin, root)
                if os.path.isdir(local_path(url, path)):
                    return path
        return root

    def reader(self, remotes: Sequence[Remote]) -> TreeReader:
        """Return a reader over its outbox (when it is on this machine) and its remotes."""
        stores: list[Store] = []
        if self.is_local:
            outbox = os.path.join(self.repository.root, LOCAL_DIRECTORY, "outbox")
            if os.path.isdir(outbox):
                stores.append(Outbox(outbox, self.repository.root))
        stores += [
            self.store(remote)
            for remote in remotes
            if not is_local(remote.url) or self.is_local or os.path.isabs(local_path(remote.url, ""))
        ]
        if not stores:
            raise NotFound(
                f"{self.url} names no remote that can be reached from here",
                hint="its payload lies on the machine of its curator: reg remote add, then reg push, there",
            )
        return TreeReader(stores, self.machine.cache, self.machine.executor)
