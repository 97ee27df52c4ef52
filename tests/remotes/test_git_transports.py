"""The main job with the registry's upstream behind SSH, HTTPS and git://, and what is said when one is not let in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Reg, git, tree, write
from tests.remotes.upstreams import (
    KINDS,
    THREE,
    Serve,
    at,
    follow,
    have_ssh_config,
    holding,
    script,
    send_password,
    there,
    trust,
    with_password,
)
from tests.servers.nginx import WebServer, nginx
from tests.servers.published import one_sentence
from tests.servers.sshd import SshServer

pytestmark = pytest.mark.servers

NOT_FOUND, AUTH, STORE, CONFLICT = 3, 4, 5, 7


@pytest.mark.parametrize("kind", KINDS)
def test_main_job(published: Serve, curated: Path, consumer: Path, tmp_path: Path, reg: Reg, kind: str) -> None:
    upstream = published(kind)
    assert at(upstream.bare, "main") == at(curated, "HEAD")
    reg(consumer, "import", upstream.url, "images/cats")
    assert tree(consumer / "cats") == tree(curated / "images/cats")
    git(tmp_path, "clone", "-q", upstream.url, "colleague")

    write(curated, {"images/cats/train/3.png": THREE, "notes.txt": os.urandom(1_500_000).hex()})
    git(curated, "add", "notes.txt")
    git(curated, "commit", "-q", "-m", "Add notes")
    reg(curated, "add", "images/cats", "-m", "More cats")
    git(curated, "tag", "-a", "-m", "Two", "v2")
    assert reg(curated, "push", "--json").json["refs"] == ["main", "v2"]
    assert at(upstream.bare, "v2") == at(curated, "v2")

    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(curated / "images/cats")
    reg(tmp_path, "get", upstream.url, "images/cats@v2:train", "-o", "part")
    assert tree(tmp_path / "part") == tree(curated / "images/cats/train")
    reg(tmp_path / "colleague", "pull")
    assert at(tmp_path / "colleague", "HEAD") == at(curated, "HEAD")
    assert tree(tmp_path / "colleague/images/cats") == tree(curated / "images/cats")


@pytest.mark.parametrize("kind", KINDS)
def test_registry_in_a_clone_of_an_empty_upstream_is_pushed_there(
    let_in: Serve, tmp_path: Path, consumer: Path, reg: Reg, kind: str
) -> None:
    upstream = let_in(kind)
    git(tmp_path, "clone", "-q", upstream.url, "clone")
    reg(tmp_path / "clone", "init", "--remote", tmp_path / "payload")
    write(tmp_path / "clone", {"prices.csv": "1\n"})
    reg(tmp_path / "clone", "add", "prices.csv", "-m", "Add prices")
    reg(tmp_path / "clone", "push")
    reg(consumer, "import", upstream.url, "prices.csv")
    assert (consumer / "prices.csv").read_text() == "1\n"


@pytest.mark.parametrize("kind", KINDS)
def test_second_of_two_who_push_is_told_and_can_go_on(
    published: Serve, curated: Path, tmp_path: Path, reg: Reg, kind: str
) -> None:
    upstream = published(kind)
    git(tmp_path, "clone", "-q", str(upstream.bare), "colleague")
    git(tmp_path / "colleague", "commit", "-q", "--allow-empty", "-m", "First")
    git(tmp_path / "colleague", "push", "-q")
    write(curated, {"images/cats/train/3.png": THREE})
    reg(curated, "add", "images/cats", "-m", "More cats")
    assert "somebody pushed first" in one_sentence(reg(curated, "push", code=CONFLICT).err)
    git(curated, "pull", "-q", "--rebase")
    reg(curated, "push")
    assert at(upstream.bare, "main") == at(curated, "HEAD")


# --- who is not let in ------------------------------------------------------------------------------------------


def lock_out(kind: str, request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this user come with a key or a password that is not right."""
    if kind == "https":
        send_password(home, request.getfixturevalue("web").secure_url, "hunter2")
    else:
        server: SshServer = request.getfixturevalue("sshd_server")
        have_ssh_config(home, server.configuration(key=server.stranger_key), monkeypatch)


@pytest.mark.parametrize("kind", ["ssh", "scp", "https"])
def test_wrong_key_or_password_is_one_sentence_for_every_command(
    request: pytest.FixtureRequest,
    published: Serve,
    curated: Path,
    consumer: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
    kind: str,
) -> None:
    upstream = published(kind)
    git(curated, "commit", "-q", "--allow-empty", "-m", "Not pushed")
    before = at(upstream.bare, "main")
    lock_out(kind, request, home, monkeypatch)
    for place, command in (
        (consumer, ["import", upstream.url, "images/cats"]),
        (consumer, ["get", upstream.url, "images/cats"]),
        (curated, ["push"]),
        (curated, ["pull"]),
    ):
        ran = reg(place, *command, code=AUTH)
        assert upstream.url in one_sentence(ran.err)
        assert "hunter2" not in ran.out + ran.err
    assert there(consumer) == []
    assert at(upstream.bare, "main") == before


@pytest.mark.parametrize(
    "password",
    [
        "hunter2",
        "hunter%2Fter2",
        "hun@hunter2",
    ],
)
def test_wrong_password_in_a_url_is_never_said(
    serve: Serve, web: WebServer, home: Path, consumer: Path, curated: Path, reg: Reg, password: str
) -> None:
    upstream = serve("https")
    trust(home, web)
    url = with_password(upstream.url, password)
    follow(curated, url)
    for place, command in ((consumer, ["import", url, "images/cats"]), (curated, ["push"]), (curated, ["pull"])):
        ran = reg(place, *command, code=AUTH)
        assert upstream.url in one_sentence(ran.err)
        assert "ter2" not in ran.out + ran.err


@pytest.mark.parametrize(
    "password",
    [
        "hun%40ter2",
        "hun@ter2",
    ],
)
def test_password_in_a_url_is_used_and_never_written(
    tmp_path: Path, curated: Path, consumer: Path, home: Path, reg: Reg, password: str
) -> None:
    with nginx(tmp_path, repositories=tmp_path / "served", password="hun@ter2") as web:
        git(tmp_path, "init", "-q", "--bare", "served/acme.git")
        url = f"{web.url}/git/acme.git"
        follow(curated, with_password(url, password))
        pushed = reg(curated, "push")
        ran = reg(consumer, "import", with_password(url, password), "images/cats")
        assert "ter2" not in pushed.out + pushed.err + ran.out + ran.err
        assert holding("ter2", consumer, home / "cache", curated / ".reg") == []
        assert "credentials" in one_sentence(reg(consumer, "update", code=AUTH).err)


@pytest.mark.parametrize("known", ["nothing", "another key"])
def test_server_whose_key_is_not_known_is_one_sentence(
    published: Serve,
    sshd_server: SshServer,
    consumer: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
    known: str,
) -> None:
    upstream = published("ssh")
    other = sshd_server.stranger_key.with_suffix(".pub").read_text()
    (home / "known_hosts").write_text("" if known == "nothing" else f"{sshd_server.alias} {other}")
    have_ssh_config(home, sshd_server.configuration(known_hosts=home / "known_hosts"), monkeypatch)
    ran = reg(consumer, "import", upstream.url, "images/cats", code=AUTH)
    assert "Host key verification failed" in one_sentence(ran.err)


def test_certificate_that_nobody_vouches_for_is_named_as_the_cause(serve: Serve, consumer: Path, reg: Reg) -> None:
    ran = reg(consumer, "import", serve("https").url, "images/cats", code=None)
    assert ran.code in (AUTH, STORE)
    assert "certificate" in one_sentence(ran.err).lower()


# --- what the other side refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "https",
        "ssh",
        "scp",
        "git",
    ],
)
def test_repository_that_is_not_there_is_not_found(let_in: Serve, consumer: Path, reg: Reg, kind: str) -> None:
    url = let_in(kind).url.replace(".git", "-gone.git")
    ran = reg(consumer, "import", url, "images/cats", code=NOT_FOUND)
    assert url in one_sentence(ran.err)


def test_user_who_may_read_and_not_push_is_told(published: Serve, curated: Path, reg: Reg) -> None:
    upstream = published("https")
    git(upstream.bare, "config", "http.receivepack", "false")
    git(curated, "commit", "-q", "--allow-empty", "-m", "Not pushed")
    assert upstream.url in one_sentence(reg(curated, "push", code=AUTH).err)


def decline(bare: Path) -> None:
    """Have a repository take no pushes."""
    script(bare / "hooks/pre-receive", "echo 'main is protected: open a request' >&2; exit 1")


@pytest.mark.parametrize("kind", KINDS)
def test_push_that_a_hook_declines_moves_nothing(published: Serve, curated: Path, reg: Reg, kind: str) -> None:
    upstream = published(kind)
    before = at(upstream.bare, "main")
    decline(upstream.bare)
    git(curated, "commit", "-q", "--allow-empty", "-m", "Not pushed")
    assert "hook declined" in one_sentence(reg(curated, "push", code=CONFLICT).err)
    assert at(upstream.bare, "main") == at(curated, "origin/main") == before


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_a_hook_that_declines_are_shown(published: Serve, curated: Path, reg: Reg, kind: str) -> None:
    upstream = published(kind)
    decline(upstream.bare)
    git(curated, "commit", "-q", "--allow-empty", "-m", "Not pushed")
    assert "main is protected: open a request" in reg(curated, "push", code=CONFLICT).err
