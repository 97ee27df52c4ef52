"""The Python API: one-line methods over the operations, with no logic of its own.

>>> from registree import Registry
>>> registry = Registry.open(".")                        # doctest: +SKIP
>>> registry.add("images/cats-dogs", message="Add cats and dogs")      # doctest: +SKIP
>>> registry.push()                                      # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from registree.config import Remote
from registree.model.manifest import Entry
from registree.model.paths import parse_dataset_name
from registree.model.targets import Target
from registree.operations import access as _access
from registree.operations import add as _add
from registree.operations import browsing, editing, imports, moving
from registree.operations import checkout as _checkout
from registree.operations import commit as _commit
from registree.operations import get as _get
from registree.operations import init as _init
from registree.operations import mirror as _mirror
from registree.operations import push as _push
from registree.operations import repair as _repair
from registree.operations import status as _status
from registree.operations import sync as _sync
from registree.operations import update as _update
from registree.operations import verify as _verify
from registree.source import Machine, RegistrySource
from registree.workspace import Workspace

PathLike = str | os.PathLike[str]


def default_machine() -> Machine:
    """Return this machine as the process's environment describes it, without progress."""
    return Machine.from_environment(os.environ)


class Registry:
    """One repository of the user's: a registry of data, a consumer of it, or both.

    Every method takes and returns what the operation of its name does (`registree.operations`).
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @classmethod
    def open(cls, path: PathLike = ".", *, machine: Machine | None = None) -> Registry:
        """Open the repository that a path lies in."""
        return cls(Workspace.find(os.path.abspath(path), machine or default_machine()))

    @classmethod
    def init(
        cls,
        path: PathLike = ".",
        *,
        remote: str | None = None,
        template: bool = False,
        machine: Machine | None = None,
    ) -> Registry:
        """Make a registry of a new or an existing repository."""
        chosen = machine or default_machine()
        _init.init(os.path.abspath(path), chosen, base=os.getcwd(), remote=remote, template=template)
        return cls.open(path, machine=chosen)

    @property
    def root(self) -> Path:
        """The repository's root folder."""
        return Path(self.workspace.root)

    def _place(self, path: PathLike) -> str:
        return os.path.join(self.workspace.root, os.fspath(path))

    def add(self, *paths: PathLike, message: str | None = None, in_place: bool = False) -> _add.AddResult:
        """Add files or directories (relative to the root) as datasets, or as their next versions."""
        return _add.add(self.workspace, [self._place(path) for path in paths], message=message, in_place=in_place)

    def add_into(self, target: str, *sources: PathLike, message: str | None = None) -> editing.EditResult:
        """Put files into a dataset (``NAME[:SUBDIR]``) that is not on this disk."""
        places = [os.path.abspath(source) for source in sources]
        return editing.add_into(self.workspace, Target.parse(target), places, message=message)

    def remove_from(self, *targets: str, message: str | None = None) -> editing.EditResult:
        """Take files (``NAME:PATH``) out of a dataset that is not on this disk."""
        return editing.remove_from(self.workspace, [Target.parse(target) for target in targets], message=message)

    def commit(self, message: str) -> _commit.CommitResult:
        """Commit what was staged."""
        return _commit.commit(self.workspace, message)

    def push(self, *names: str, remote: str | None = None, git: bool = True) -> _push.PushResult:
        """Send payload, then the branch and its tags."""
        return _push.push(self.workspace, names, remote=remote, git=git)

    def pull(self, *names: str) -> _checkout.PullResult:
        """Fast-forward, then bring payload."""
        return _checkout.pull(self.workspace, names)

    def checkout(self, *names: str, revision: str = "", force: bool = False) -> tuple[_sync.Restored, ...]:
        """Make the work tree be what metafiles say."""
        return _checkout.checkout(self.workspace, names, revision=revision, force=force)

    def status(self, *, remote: bool = False) -> _status.Status:
        """Compare the work tree with its metafiles."""
        return _status.status(self.workspace, remote=remote)

    def remove(
        self, name: str, *, message: str | None = None, keep: bool = False, force: bool = False
    ) -> moving.RemoveResult:
        """Stop tracking a dataset or an import."""
        return moving.remove(self.workspace, parse_dataset_name(name), message=message, keep=keep, force=force)

    def move(self, name: str, target: str, *, message: str | None = None) -> moving.MoveResult:
        """Give a dataset or an import another name."""
        return moving.move(self.workspace, parse_dataset_name(name), target, message=message)

    def verify(self, *names: str, deep: bool = False) -> _verify.VerifyResult:
        """Compare files on this disk with their metafiles."""
        return _verify.verify_disk(self.workspace, names, deep=deep)

    def verify_remote(self, *targets: str, remote: str | None = None, deep: bool = False) -> _verify.VerifyResult:
        """Check that every byte of datasets (``NAME`` or ``NAME@REV``; all when none is named) can be fetched."""
        parsed = [Target.parse(text) for text in targets]
        return _verify.verify_remote(self.workspace, parsed, remote=remote, deep=deep)

    def repair(self, *names: str, remote: str | None = None, deep: bool = False) -> _repair.RepairResult:
        """Send again what a remote lost, from whatever on this machine or another remote still has it."""
        return _push.repair_remote(self.workspace, names, remote=remote, deep=deep)

    def mirror(self, source: str, target: str, *targets: str) -> _mirror.MirrorResult:
        """Copy what one remote lacks of another."""
        return _mirror.mirror(self.workspace, source, target, [Target.parse(text) for text in targets])

    def auth_status(self) -> tuple[_access.HostAccess, ...]:
        """Name the source of credentials for each host, never the secret."""
        return _access.auth_status(self.workspace)

    def remotes(self) -> tuple[Remote, ...]:
        """Return the registry's remotes, the default one first."""
        return self.workspace.registry_file().remotes

    def add_remote(self, name: str, url: str, options: Mapping[str, Any] | None = None) -> Remote:
        """Add a remote, or change one."""
        return _init.add_remote(self.workspace, name, url, options or {}, base=self.workspace.root)

    def import_dataset(
        self,
        registry: str,
        target: str,
        *,
        rev: str = "",
        out: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        download: bool = True,
        force: bool = False,
        message: str | None = None,
    ) -> imports.ImportResult:
        """Bring a target of a registry in and keep the connection."""
        return imports.import_dataset(
            self.workspace,
            registry,
            Target.parse(target).with_selector(rev),
            base=self.workspace.root,
            out=out,
            include=include,
            exclude=exclude,
            download=download,
            force=force,
            message=message,
        )

    def update(
        self, *targets: str, rev: str = "", dry_run: bool = False, force: bool = False
    ) -> tuple[_update.UpdatedImport, ...]:
        """Move imports to what their selectors mean now."""
        return _update.update(self.workspace, targets, selector=rev, dry_run=dry_run, force=force)

    def sync(self, *targets: str, check: bool = False, force: bool = False) -> tuple[_sync.Restored, ...]:
        """Make the work tree be what the locks say."""
        return _sync.sync(self.workspace, targets, check=check, force=force)

    def diff(self, before: str = "", after: str = "", names: Sequence[str] = ()) -> list[browsing.DatasetDiff]:
        """Compare two revisions, dataset by dataset."""
        return browsing.diff(self.workspace, before, after, names)


def _source(registry: str, machine: Machine | None) -> RegistrySource:
    return browsing.open_source(machine or default_machine(), registry, os.getcwd())


def get(
    registry: str,
    target: str,
    *,
    rev: str = "",
    out: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    force: bool = False,
    machine: Machine | None = None,
) -> _get.GetResult:
    """Fetch a target (``NAME[@REV][:PATH]``) of a registry once, with no connection kept."""
    return _get.get(
        machine or default_machine(),
        registry,
        Target.parse(target).with_selector(rev),
        base=os.getcwd(),
        out=out,
        include=include,
        exclude=exclude,
        force=force,
    )


def list_datasets(registry: str = "", *, rev: str = "", machine: Machine | None = None) -> list[browsing.ListedDataset]:
    """List the datasets of a registry (empty: of the repository around the working directory)."""
    return browsing.list_datasets(_source(registry, machine), rev)


def show(registry: str, target: str, *, machine: Machine | None = None) -> browsing.ShownDataset:
    """Describe a dataset of a registry."""
    return browsing.show(_source(registry, machine), Target.parse(target))


def files(registry: str, target: str, *, machine: Machine | None = None) -> Iterator[Entry]:
    """Stream the entries of a target of a registry."""
    return browsing.files(_source(registry, machine), Target.parse(target))


def cat(registry: str, target: str, *, machine: Machine | None = None) -> bytes:
    """Return the verified bytes of one file (``NAME@REV:PATH``) of a registry."""
    return b"".join(browsing.cat(_source(registry, machine), Target.parse(target)))


def diff(
    path: PathLike = ".", before: str = "", after: str = "", names: Sequence[str] = ()
) -> list[browsing.DatasetDiff]:
    """Compare two revisions of the registry at a path."""
    return Registry.open(path).diff(before, after, names)
