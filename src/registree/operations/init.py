"""`reg init` and the registry's remotes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from typing import Any

import msgspec

from registree.config import (
    DEFAULT_REMOTE,
    EMBEDDED_REMOTE,
    LOCAL_DIRECTORY,
    REGISTRY_FILE,
    RegistryFile,
    Remote,
    make_remote,
)
from registree.errors import AlreadyExists, NotFound
from registree.git.ignore import gitignore_edits, with_line
from registree.git.repository import Edit, GitRepository, chain
from registree.source import Machine
from registree.store.opening import check_store, is_local, local_path
from registree.workspace import Workspace

_MERGED = ".gitignore merge=union"
"""Two people who add datasets in one folder each add a line to its `.gitignore`: Git keeps both."""


class InitResult(msgspec.Struct, frozen=True):
    """The new registry: its root, its remote, and the commit that made it one."""

    root: str
    remote: Remote
    embedded: bool
    commit: str | None


def init(path: str, machine: Machine, *, base: str, remote: str | None = None, template: bool = False) -> InitResult:
    """Make a registry of a new or an existing Git repository; what it made is committed.

    Parameters
    ----------
    base
        Where a relative path of a remote starts; it is written relative to the registry.
    remote
        URL or path of the remote; None makes one inside `.reg/`.
    template
        Also copy the template of a complete registry.

    Raises
    ------
    AlreadyExists
        When it is a registry already.
    """
    repository = _repository(path)
    workspace = Workspace(repository, machine)
    if workspace.is_registry:
        raise AlreadyExists(f"{workspace.root} is a registry already", hint="reg status; reg remote list")
    repository.identity()
    made = make_remote(DEFAULT_REMOTE, _written_url(remote, workspace.root, base), {})
    check_store(made.url, made.options)
    with workspace.writing():
        if is_local(made.url):
            machine.open_store(made.url, workspace.root, {}).ensure_marker()
        edits: dict[str, Edit] = {REGISTRY_FILE: RegistryFile((made,)).render().encode()}
        edits |= gitignore_edits(LOCAL_DIRECTORY, ignored=True)
        edits[".gitattributes"] = with_line(_MERGED)
        edits = _ignoring(edits, made, workspace.root)
        if template:
            edits |= _template(workspace.root)
        commit = repository.edit(edits, "Make this repository a registry of data")
    return InitResult(workspace.root, made, remote is None, commit)


def _repository(path: str) -> GitRepository:
    """Open the repository that a folder lies in; a folder that is new becomes one of its own, wherever it lies."""
    if os.path.exists(path):
        try:
            return GitRepository.discover(path)
        except NotFound:
            pass
    return GitRepository.init(path)


def _written_url(remote: str | None, root: str, base: str) -> str:
    if remote is None:
        return EMBEDDED_REMOTE
    if not is_local(remote) or remote.startswith("file://"):
        return remote
    path = local_path(remote, base)
    return path if os.path.isabs(os.path.expanduser(remote)) else os.path.relpath(path, root)


def _ignoring(edits: dict[str, Edit], remote: Remote, root: str) -> dict[str, Edit]:
    """A remote in a folder of the registry itself is kept out of Git."""
    place = os.path.relpath(local_path(remote.url, root), root) if is_local(remote.url) else ".."
    if place.split("/")[0] in ("..", ".", LOCAL_DIRECTORY):
        return edits
    for path, edit in gitignore_edits(place, ignored=True).items():
        edits[path] = chain(edits[path], edit) if path in edits else edit
    return edits


def _template(root: str) -> dict[str, Edit]:
    source = resources.files("registree") / "template"
    edits: dict[str, Edit] = {}
    with resources.as_file(source) as folder:
        if not folder.is_dir():  # an editable install: the template lies beside the sources
            folder = folder.parents[2] / "registry-template"  # noqa: PLW2901
        for top, _, names in os.walk(folder):
            for name in names:
                place = os.path.join(top, name)
                path = os.path.relpath(place, folder)
                if not os.path.exists(os.path.join(root, path)) and path != REGISTRY_FILE:
                    with open(place, "rb") as file:
                        edits[path] = file.read()
    return edits


def add_remote(
    workspace: Workspace, name: str, url: str, options: Mapping[str, Any], *, base: str, message: str | None = None
) -> Remote:
    """Add a remote to `reg.yaml`, or change its URL and options.

    Raises
    ------
    InvalidInput
        When the URL or an option looks like a secret (`reg.yaml` is tracked), there is no such option, or the package
        for that kind of URL is not installed.
    """
    with workspace.writing():
        before = workspace.registry_file()
        remote = make_remote(name, _written_url(url, workspace.root, base), options)
        check_store(remote.url, remote.options)
        others = [other for other in before.remotes if other.name != name]
        position = next((i for i, other in enumerate(before.remotes) if other.name == name), len(others))
        others.insert(position, remote)
        text = RegistryFile(tuple(others), before.text).render()
        workspace.repository.edit(_ignoring({REGISTRY_FILE: text.encode()}, remote, workspace.root), message)
    return remote


def remove_remote(workspace: Workspace, name: str, *, message: str | None = None) -> Remote:
    """Take a remote out of `reg.yaml`; what it holds stays there.

    Raises
    ------
    NotFound
        When there is none of that name.
    """
    with workspace.writing():
        before = workspace.registry_file()
        remote = before.remote(name)
        kept = tuple(other for other in before.remotes if other.name != name)
        workspace.repository.edit({REGISTRY_FILE: RegistryFile(kept, before.text).render().encode()}, message)
    return remote
