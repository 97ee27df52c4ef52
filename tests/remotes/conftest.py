"""Servers that live as long as the tests run, and places on them that are a test's own.

Each starts when the first test asks for it; no test changes what another one sees of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from tests.conftest import Reg, git, write
from tests.remotes.upstreams import CATS, Serve, Upstream, follow, let_in_by_ssh, send_password, trust
from tests.servers.git_servers import git_daemon
from tests.servers.nginx import WebServer, nginx
from tests.servers.radosgw import S3Server, radosgw
from tests.servers.sshd import SshServer, sshd


@dataclass(frozen=True)
class Served:
    """A folder and the URL that it is served at."""

    folder: Path
    url: str


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    """An S3 server, over HTTP and HTTPS."""
    with radosgw(https=True) as server:
        yield server


@pytest.fixture
def bucket(ceph: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket; this process has the keys of its owner, and forgets the connections of other tests."""
    for name, value in ceph.owner.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield ceph.make_bucket()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="session")
def sshd_server() -> Iterator[SshServer]:
    """An SSH server through which every repository of this machine is reached."""
    with sshd() as server:
        yield server


@pytest.fixture(scope="session")
def web_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files the web server serves."""
    return tmp_path_factory.mktemp("www")


@pytest.fixture(scope="session")
def web(web_folder: Path) -> Iterator[WebServer]:
    """A web server, over HTTP and HTTPS, with bare repositories behind a password."""
    with nginx(web_folder) as server:
        yield server


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Git's own daemon; repositories that allow it take pushes."""
    folder = tmp_path_factory.mktemp("daemon")
    with git_daemon(folder) as url:
        yield Served(folder, url)


@pytest.fixture
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Make an empty bare repository behind a transport; clients are not set up for it."""

    def made(kind: str) -> Upstream:
        name = f"{uuid4().hex}.git"
        if kind in ("ssh", "scp"):
            server: SshServer = request.getfixturevalue("sshd_server")
            bare = tmp_path / name
            found = Upstream(bare, server.url(bare) if kind == "ssh" else server.scp_like(bare))
        elif kind == "https":
            web: WebServer = request.getfixturevalue("web")
            found = Upstream(web.repositories / name, f"{web.secure_url}/git/{name}")
        else:
            daemon: Served = request.getfixturevalue("daemon")
            found = Upstream(daemon.folder / name, f"{daemon.url}/{name}")
        git(tmp_path, "init", "-q", "--bare", str(found.bare))
        git(found.bare, "config", "daemon.receivepack", "true")
        return found

    return made


@pytest.fixture
def let_in(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Serve:
    """The same, and this user is let in."""

    def made(kind: str) -> Upstream:
        if kind in ("ssh", "scp"):
            let_in_by_ssh(home, request.getfixturevalue("sshd_server"), monkeypatch)
        elif kind == "https":
            web: WebServer = request.getfixturevalue("web")
            trust(home, web)
            send_password(home, web.secure_url, web.password)
        return serve(kind)

    return made


@pytest.fixture
def curated(tmp_path: Path, reg: Reg) -> Path:
    """A registry with a dataset, whose payload goes to a folder; it follows no upstream."""
    place = tmp_path / "curated"
    reg(tmp_path, "init", place, "--remote", tmp_path / "payload")
    write(place, CATS)
    reg(place, "add", "images/cats", "-m", "Add cats")
    return place


@pytest.fixture
def published(curated: Path, let_in: Serve, reg: Reg) -> Serve:
    """Push the registry to an upstream behind a transport."""

    def made(kind: str) -> Upstream:
        upstream = let_in(kind)
        follow(curated, upstream.url)
        reg(curated, "push")
        return upstream

    return made
