"""Whose credentials open a private Git server, in which order, and what becomes of them; proxies on the way there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from registree.model.targets import Target
from registree.operations.imports import import_dataset
from registree.source import Machine
from registree.workspace import Workspace
from tests.conftest import Reg, git, tree
from tests.remotes.recording import leave_network_of_the_machine, recording
from tests.remotes.upstreams import Serve, configure, follow, holding, send_password, trust, with_password
from tests.servers.nginx import USER, WebServer

pytestmark = pytest.mark.servers
TOKEN = "REG_TOKEN_127_0_0_1"


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, authority or CI token of this machine's gets in."""
    leave_network_of_the_machine(monkeypatch)
    for name in ("GITHUB_TOKEN", "GITHUB_SERVER_URL", "CI_JOB_TOKEN", "CI_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def private(serve: Serve, web: WebServer, curated: Path, home: Path, reg: Reg) -> str:
    """The URL of a private registry whose authority is trusted; nobody here has its password."""
    upstream = serve("https")
    trust(home, web)
    kept = (home / ".gitconfig").read_text()
    send_password(home, web.secure_url, web.password)
    follow(curated, upstream.url)
    reg(curated, "push")
    (home / ".gitconfig").write_text(kept)
    return upstream.url


def test_token_of_the_environment_opens_it_and_is_not_written(
    private: str, web: WebServer, curated: Path, consumer: Path, home: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    assert TOKEN in reg(consumer, "import", private, "images/cats", code=4).err
    monkeypatch.setenv(TOKEN, f"{USER}:{web.password}")
    ran = reg(consumer, "import", private, "images/cats", "-m", "Import")
    assert tree(consumer / "cats") == tree(curated / "images/cats")
    assert web.password not in ran.out + ran.err
    assert holding(web.password, consumer, home) == []
    rows = reg(consumer, "auth", "status", "--json").json["hosts"]
    assert {"kind": "git", "source": TOKEN, "user": USER}.items() <= rows[0].items()


def test_push_takes_the_token_too(
    private: str, web: WebServer, curated: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    git(curated, "commit", "-q", "--allow-empty", "-m", "More")
    reg(curated, "push", code=4)
    monkeypatch.setenv(TOKEN, f"{USER}:{web.password}")
    assert "pushed main" in reg(curated, "push").out


def test_token_that_is_refused_is_followed_by_what_git_knows(
    private: str, web: WebServer, consumer: Path, home: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    monkeypatch.setenv(TOKEN, f"{USER}:wrong")
    (home / ".git-credentials").write_text(f"{with_password(web.secure_url, web.password)}\n")
    configure(home, "credential.helper", "store")
    reg(consumer, "import", private, "images/cats")
    assert web.password in (home / ".git-credentials").read_text()


def test_password_that_git_knew_and_that_is_wrong_is_forgotten_by_its_helper(
    private: str, web: WebServer, consumer: Path, home: Path, reg: Reg
) -> None:
    (home / ".git-credentials").write_text(f"{with_password(web.secure_url, 'outdated')}\n")
    configure(home, "credential.helper", "store")
    ran = reg(consumer, "import", private, "images/cats", code=4)
    assert "outdated" not in ran.out + ran.err
    assert "outdated" not in (home / ".git-credentials").read_text()


@pytest.mark.parametrize(
    ("server", "token"), [("GITHUB_SERVER_URL", "GITHUB_TOKEN"), ("CI_SERVER_URL", "CI_JOB_TOKEN")]
)
def test_token_of_a_ci_system_is_for_its_own_host_alone(
    private: str, web: WebServer, consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg, server: str, token: str
) -> None:
    monkeypatch.setenv(token, web.password)
    monkeypatch.setenv(server, "https://ci.example.org")
    git(consumer, "remote", "add", "origin", private)
    assert reg(consumer, "auth", "status", "--json").json["hosts"][0]["source"] == "none"
    monkeypatch.setenv(server, web.secure_url)
    assert reg(consumer, "auth", "status", "--json").json["hosts"][0]["source"] == token


def test_person_is_asked_last_and_the_helper_keeps_the_answer(
    private: str, web: WebServer, consumer: Path, curated: Path, home: Path, reg: Reg
) -> None:
    configure(home, "credential.helper", "store")
    asked: list[tuple[str, bool]] = []

    def ask(question: str, secret: bool) -> str:
        asked.append((question, secret))
        return web.password if secret else USER

    machine = replace(Machine.from_environment(os.environ), ask=ask)
    import_dataset(Workspace.find(str(consumer), machine), private, Target.parse("images/cats"), base=str(consumer))
    assert tree(consumer / "cats") == tree(curated / "images/cats")
    assert [secret for _, secret in asked] == [False, True]
    assert "127.0.0.1" in asked[0][0]
    assert web.password in (home / ".git-credentials").read_text()
    reg(consumer, "update")  # and nobody is asked again


def test_git_goes_through_the_proxy_of_the_environment(
    private: str, web: WebServer, consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    monkeypatch.setenv(TOKEN, f"{USER}:{web.password}")
    with recording() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        reg(consumer, "import", private, "images/cats")
        assert {row.method for row in proxy.requests} == {"CONNECT"}
        assert proxy.values("authorization") == {""}
        proxy.forget()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        reg(consumer, "update")
        assert proxy.requests == []
