"""A registry's upstream behind a connection that breaks, and behind gateways that answer in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import Reg, git, tree
from tests.remotes.upstreams import Upstream, at, follow, send_password, there
from tests.servers.faults import HTML_PAGE, SLOW_DOWN, Answer, Faults, Flip, Reset, Rule, Truncate, faulty
from tests.servers.nginx import WebServer
from tests.servers.published import one_sentence

pytestmark = pytest.mark.servers

AUTH, STORE, INTEGRITY = 4, 5, 6


@pytest.fixture
def proxy(web: WebServer, home: Path) -> Iterator[Faults]:
    """A proxy before the web server, which lets this user in."""
    with faulty(web.url) as faults:
        send_password(home, faults.url, web.password)
        yield faults


@pytest.fixture
def upstream(proxy: Faults, web: WebServer, curated: Path, reg: Reg) -> Upstream:
    """What the registry was pushed to, through the proxy; most of it are bytes that do not compress."""
    name = f"{uuid4().hex}.git"
    git(web.repositories, "init", "-q", "--bare", name)
    found = Upstream(web.repositories / name, f"{proxy.url}/git/{name}")
    (curated / "noise").write_bytes(os.urandom(400_000))
    git(curated, "add", "noise")
    git(curated, "commit", "-q", "-m", "Add noise")
    follow(curated, found.url)
    reg(curated, "push")
    proxy.clear()
    return found


REFS, FETCH, SEND = "/info/refs", "/git-upload-pack$", "/git-receive-pack$"
BREAKS = {
    "busy": Rule(SLOW_DOWN, path=REFS),
    "too many requests": Rule(Answer(429), path=FETCH),
    "broken": Rule(Answer(500, b"<html></html>", "text/html"), path=FETCH),
    "page for the pack": Rule(HTML_PAGE, path=FETCH),
    "reset before the refs": Rule(Reset(), path=REFS),
    "reset within the refs": Rule(Reset(100), path=REFS),
    "reset within the pack": Rule(Reset(200_000), path=FETCH),
    "pack cut short": Rule(Truncate(200_000), path=FETCH),
}


@pytest.mark.parametrize("name", BREAKS)
def test_import_over_a_connection_that_breaks_leaves_nothing_and_works_later(
    proxy: Faults, upstream: Upstream, curated: Path, consumer: Path, reg: Reg, name: str
) -> None:
    rule = BREAKS[name]
    proxy.add(rule.action, path=rule.path)
    ran = reg(consumer, "import", upstream.url, "images/cats", code=STORE)
    assert upstream.url in one_sentence(ran.err)
    assert there(consumer) == []
    proxy.clear()
    reg(consumer, "import", upstream.url, "images/cats")
    assert tree(consumer / "cats") == tree(curated / "images/cats")


@pytest.mark.parametrize("verb", ["import", "push"])
def test_sign_in_page_in_place_of_the_refs_is_one_sentence(
    proxy: Faults, upstream: Upstream, curated: Path, consumer: Path, reg: Reg, verb: str
) -> None:
    proxy.add(HTML_PAGE, path=REFS)
    ran = (
        reg(consumer, "import", upstream.url, "cats", code=None)
        if verb == "import"
        else reg(curated, "push", code=None)
    )
    assert ran.code in (AUTH, STORE)
    assert upstream.url in one_sentence(ran.err)


def test_pack_that_is_damaged_on_its_way_is_one_sentence(
    proxy: Faults, upstream: Upstream, consumer: Path, reg: Reg
) -> None:
    proxy.add(Flip(200_000), path=FETCH)
    ran = reg(consumer, "import", upstream.url, "images/cats", code=None)
    assert ran.code in (STORE, INTEGRITY)
    assert upstream.url in one_sentence(ran.err)
    assert there(consumer) == []


def test_gateway_that_forbids_is_an_auth_error(proxy: Faults, upstream: Upstream, consumer: Path, reg: Reg) -> None:
    proxy.add(Answer(403), path=REFS)
    ran = reg(consumer, "import", upstream.url, "images/cats", code=AUTH)
    assert upstream.url in one_sentence(ran.err)


@pytest.mark.parametrize("action", [Reset(), Reset(of="request"), Reset(200_000, of="request"), SLOW_DOWN])
def test_push_over_a_connection_that_breaks_is_completed_by_the_next(
    proxy: Faults, upstream: Upstream, curated: Path, reg: Reg, action: Reset | Answer
) -> None:
    before = at(upstream.bare, "main")
    (curated / "noise").write_bytes(os.urandom(500_000))
    git(curated, "commit", "-q", "-a", "-m", "More noise")
    proxy.add(action, path=SEND)
    ran = reg(curated, "push", code=STORE)
    assert upstream.url in one_sentence(ran.err)
    assert at(upstream.bare, "main") == (at(curated, "HEAD") if action == Reset() else before)
    proxy.clear()
    reg(curated, "push")
    assert at(upstream.bare, "main") == at(curated, "origin/main") == at(curated, "HEAD")


def test_update_over_a_connection_that_breaks_keeps_what_was_there(
    proxy: Faults, upstream: Upstream, curated: Path, consumer: Path, reg: Reg
) -> None:
    reg(consumer, "import", upstream.url, "images/cats")
    before = tree(consumer / "cats")
    (curated / "images/cats/train/3.png").write_bytes(b"three")
    (curated / "noise").write_bytes(os.urandom(500_000))
    reg(curated, "add", "images/cats", "-m", "More cats")
    git(curated, "commit", "-q", "-a", "-m", "More noise")
    reg(curated, "push")
    proxy.add(Reset(200_000), path=FETCH)
    one_sentence(reg(consumer, "update", code=STORE).err)
    assert tree(consumer / "cats") == before
    reg(consumer, "sync", "--check")
    proxy.clear()
    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(curated / "images/cats")
