"""`reg auth status`: where credentials for each host come from; and where this machine finds a registry's remote."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from registree.config import Remote
from registree.errors import NotFound
from registree.git.connection import is_local_url, strip_credentials
from registree.model.metafile import ImportFile
from registree.network import host_of
from registree.operations.settings import settings_path, write_setting
from registree.source import Machine
from registree.store.layout import redact
from registree.store.opening import is_local
from registree.store.s3 import S3Options, credentials_source
from registree.workspace import Workspace


class HostAccess(msgspec.Struct, frozen=True):
    """A host or a bucket, what is there (``git``, ``http``, ``s3``), and the source of its credentials, if any."""

    place: str
    kind: str
    source: str
    user: str = ""


def auth_status(workspace: Workspace) -> tuple[HostAccess, ...]:
    """Name the source of credentials for every host that this repository reaches; nobody is asked, nothing is sent."""
    found: dict[tuple[str, str], HostAccess] = {}
    for url in _git_urls(workspace):
        row = _git_access(workspace, url)
        found.setdefault((row.kind, row.place), row)
    for remote in _remotes(workspace):
        row = _remote_access(workspace.machine, remote)
        found.setdefault((row.kind, row.place), row)
    return tuple(found.values())


def _git_urls(workspace: Workspace) -> Iterator[str]:
    repository = workspace.repository
    urls = [repository.remote_url(name) for name in repository.remote_names()]
    urls += [file.registry for file in workspace.metafiles({}).values() if isinstance(file, ImportFile)]
    yield from (url for url in urls if url is not None and not is_local_url(url))


def _git_access(workspace: Workspace, url: str) -> HostAccess:
    if not url.startswith(("http://", "https://")):
        host = strip_credentials(url).split("://")[-1].split("/")[0] if "://" in url else url.split(":", maxsplit=1)[0]
        is_ssh = not url.startswith("git://")
        return HostAccess(host, "git", "ssh: its agent, keys and configuration" if is_ssh else "none: git:// has none")
    access = workspace.machine.access
    named = access.named(url) or next(access.without_asking(url, workspace.root), None)
    return HostAccess(host_of(url), "git", named.source if named else "none", named.user if named else "")


def _remotes(workspace: Workspace) -> Iterator[Remote]:
    if workspace.is_registry:
        yield from workspace.registry().remotes(workspace.repository.head())
    for file in workspace.metafiles({}).values():
        if isinstance(file, ImportFile) and file.lock.remote:
            yield Remote("import", file.lock.remote, file.lock.remote_options)


def _remote_access(machine: Machine, remote: Remote) -> HostAccess:
    place = redact(remote.url)
    kind = remote.url.split(":", 1)[0] if not is_local(remote.url) else "directory"
    if kind in ("http", "https"):
        named = machine.network.token(remote.url) or machine.network.netrc(remote.url)
        return HostAccess(place, "http", named.source if named else "none", named.user if named else "")
    if kind in ("s3", "s3a"):
        return HostAccess(place, "s3", credentials_source(S3Options.parse(remote.options, place), machine.network))
    return HostAccess(place, kind, "this machine's own rights" if kind == "directory" else f"the package for {kind}")


def override_remote(workspace: Workspace | None, machine: Machine, remote: str, url: str | None) -> str:
    """Say where this machine reads a remote of a registry, or (None) that it reads it where the registry says.

    Parameters
    ----------
    workspace
        The repository for which that counts; None for all of the user's.
    remote
        The remote's URL as its registry writes it, or its name, which then counts for every registry.

    Returns
    -------
    The file that says so now.

    Raises
    ------
    NotFound
        When there is nothing to take back.
    """
    path = settings_path(workspace, machine.config_dir)
    overrides = workspace.machine.settings.overrides if workspace is not None else machine.settings.overrides
    if url is None and remote not in overrides:
        raise NotFound(f"{remote} is not overridden", hint="reg config lists this machine's settings")
    if workspace is not None:
        workspace.make_local()
    write_setting(path, f"remote.{remote}", url)
    return path
