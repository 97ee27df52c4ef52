"""A registry's upstream behind each transport of Git's, and clients set up for it as Git's documentation has it.

A user to whom `git clone URL` works expects `reg import URL` to.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import git
from tests.servers.nginx import USER, WebServer
from tests.servers.sshd import SshServer

KINDS = ["ssh", "scp", "https", "git"]
ONE, TWO, THREE = b"one" * 3000, b"two" * 3000, b"three" * 3000
CATS: dict[str, bytes | str] = {"images/cats/train/1.png": ONE, "images/cats/train/2.png": TWO}


@dataclass(frozen=True)
class Upstream:
    """A bare repository and the URL that it is served at."""

    bare: Path
    url: str


Serve = Callable[[str], Upstream]


def follow(registry: Path, url: str) -> None:
    """Have a registry's branch follow an upstream, as a clone of an empty repository does."""
    git(registry, "remote", "add", "origin", url)
    git(registry, "config", "branch.main.remote", "origin")
    git(registry, "config", "branch.main.merge", "refs/heads/main")


def have_ssh_config(home: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `ssh` find a configuration as if it were ~/.ssh/config, which OpenSSH does not look for in $HOME."""
    folder = home / "bin"
    if not folder.exists():
        folder.mkdir()
        (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        (folder / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (folder / "ssh_config").write_text(text)


def let_in_by_ssh(home: Path, server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `ssh` log in with the key that may."""
    have_ssh_config(home, server.configuration(), monkeypatch)


def trust(home: Path, web: WebServer) -> None:
    """Have Git trust the authority of a web server."""
    configure(home, "http.sslCAInfo", str(web.ca_file))


def send_password(home: Path, url: str, password: str) -> None:
    """Have Git send a password with each request to a server, as CI services set it up."""
    configure(home, f"http.{url}/.extraHeader", f"Authorization: {basic(password)}")


def basic(password: str) -> str:
    """Return what stands in the header of basic authentication (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def with_password(url: str, password: str) -> str:
    """Return a URL with the user and a password in it."""
    return url.replace("://", f"://{USER}:{password}@", 1)


def configure(home: Path, key: str, value: str) -> None:
    """Set a key of the user's configuration of Git."""
    git(home, "config", "--global", key, value)


def script(place: Path, text: str) -> Path:
    """Write a program for `sh`."""
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)
    return place


def at(repository: Path, revision: str) -> str:
    """Return the object that a revision of a repository names."""
    return git(repository, "rev-parse", revision).strip()


def there(consumer: Path) -> list[str]:
    """List what lies in a consumer, without Git's and reg's own folders."""
    return [path.name for path in consumer.iterdir() if path.name not in (".git", ".reg")]


def holding(secret: str, *places: Path) -> list[Path]:
    """List the files below some folders that hold a text."""
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]
