"""The ways in which Git is told of passwords, authorities and keys: what lets `git` in lets `reg` in.

Each way is tried with `git` first, so that a test of `reg` that fails is about `reg`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Reg, git, tree
from tests.remotes.upstreams import (
    Serve,
    Upstream,
    at,
    basic,
    configure,
    follow,
    have_ssh_config,
    holding,
    script,
    send_password,
    trust,
    with_password,
)
from tests.servers.nginx import USER, WebServer
from tests.servers.sshd import SshServer

pytestmark = pytest.mark.servers


def let_in_by_password(way: str, web: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell Git of the password of a web server."""
    url, password = web.secure_url, web.password
    if way == "header":
        send_password(home, url, password)
    elif way == "header in the environment":
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", f"http.{url}/.extraHeader")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"Authorization: {basic(password)}")
    elif way == "insteadOf":
        configure(home, f"url.{with_password(url, password)}/.insteadOf", f"{url}/")
    elif way == "helper store":
        (home / ".git-credentials").write_text(f"{with_password(url, password)}\n")
        configure(home, "credential.helper", "store")
    elif way == "helper of one's own":
        helper = script(home / "helper", f'[ "$1" = get ] && echo username={USER} && echo password={password}')
        configure(home, "credential.helper", str(helper))
    elif way == "netrc":
        (home / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {password}\n")
        (home / ".netrc").chmod(0o600)
    else:
        words = f'case "$1" in User*) echo {USER};; *) echo {password};; esac'
        monkeypatch.setenv("GIT_ASKPASS", str(script(home / "askpass", words)))


PASSWORDS = ["header", "header in the environment", "insteadOf", "helper store", "helper of one's own", "netrc", "ask"]


def works_for_git(curated: Path, upstream: Upstream) -> None:
    """Fail unless `git` reads the upstream and writes to it."""
    git(curated, "push", "-q", upstream.url, "HEAD:main")
    assert at(curated, "HEAD") in git(curated, "ls-remote", upstream.url)


def works_for_reg(curated: Path, consumer: Path, upstream: Upstream, reg: Reg) -> None:
    """Fail unless `reg` does."""
    follow(curated, upstream.url)
    reg(curated, "push")
    assert at(upstream.bare, "main") == at(curated, "HEAD")
    reg(consumer, "import", upstream.url, "images/cats")
    assert tree(consumer / "cats") == tree(curated / "images/cats")


@pytest.mark.parametrize("way", PASSWORDS)
def test_password_lets_git_in(
    serve: Serve, web: WebServer, curated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    trust(home, web)
    let_in_by_password(way, web, home, monkeypatch)
    works_for_git(curated, serve("https"))


@pytest.mark.parametrize("way", PASSWORDS)
def test_password_lets_reg_in_and_is_not_written_down(
    serve: Serve,
    web: WebServer,
    curated: Path,
    consumer: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
    way: str,
) -> None:
    trust(home, web)
    let_in_by_password(way, web, home, monkeypatch)
    works_for_reg(curated, consumer, serve("https"), reg)
    assert holding(web.password, consumer, curated, home / "cache") == []


def have_trusted(way: str, web: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell Git of the authority of a web server."""
    if way == "sslCAInfo":
        trust(home, web)
    elif way == "sslCAInfo of the server":
        configure(home, f"http.{web.secure_url}/.sslCAInfo", str(web.ca_file))
    else:
        monkeypatch.setenv("GIT_SSL_CAINFO", str(web.ca_file))


@pytest.mark.parametrize("way", ["sslCAInfo", "sslCAInfo of the server", "GIT_SSL_CAINFO"])
def test_authority_is_trusted_by_git(
    serve: Serve, web: WebServer, curated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    send_password(home, web.secure_url, web.password)
    have_trusted(way, web, home, monkeypatch)
    works_for_git(curated, serve("https"))


@pytest.mark.parametrize("way", ["sslCAInfo", "sslCAInfo of the server", "GIT_SSL_CAINFO"])
def test_authority_is_trusted_by_reg(
    serve: Serve,
    web: WebServer,
    curated: Path,
    consumer: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
    way: str,
) -> None:
    send_password(home, web.secure_url, web.password)
    have_trusted(way, web, home, monkeypatch)
    works_for_reg(curated, consumer, serve("https"), reg)


def let_in_by_key(way: str, server: SshServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell Git how `ssh` is to be run."""
    command = server.command(home)
    if way == "ssh_config":
        have_ssh_config(home, server.configuration(), monkeypatch)
    elif way == "core.sshCommand":
        configure(home, "core.sshCommand", command)
    elif way == "GIT_SSH_COMMAND":
        monkeypatch.setenv("GIT_SSH_COMMAND", command)
    else:
        monkeypatch.setenv("GIT_SSH", str(script(home / "own-ssh", f'exec {command} "$@"')))


KEYS = ["ssh_config", "core.sshCommand", "GIT_SSH_COMMAND", "GIT_SSH"]


@pytest.mark.parametrize("way", KEYS)
def test_key_lets_git_in(
    serve: Serve, sshd_server: SshServer, curated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    let_in_by_key(way, sshd_server, home, monkeypatch)
    works_for_git(curated, serve("ssh"))


@pytest.mark.parametrize("way", KEYS)
def test_key_lets_reg_in(
    serve: Serve,
    sshd_server: SshServer,
    curated: Path,
    consumer: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
    way: str,
) -> None:
    let_in_by_key(way, sshd_server, home, monkeypatch)
    works_for_reg(curated, consumer, serve("ssh"), reg)


def test_url_with_a_user_and_a_port_is_enough(
    let_in: Serve, sshd_server: SshServer, curated: Path, consumer: Path, reg: Reg
) -> None:
    bare = let_in("ssh").bare
    url = f"ssh://{sshd_server.user}@127.0.0.1:{sshd_server.port}{bare}"
    works_for_reg(curated, consumer, Upstream(bare, url), reg)
    assert url in (consumer / "cats.reg.yaml").read_text()
