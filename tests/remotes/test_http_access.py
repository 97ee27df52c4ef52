"""A registry whose payload any web server publishes: who may read it, through what, and how little is asked for."""

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from registree.network import host_of, token_name
from tests.conftest import Ran, Reg, git, tree, write
from tests.remotes.recording import Recorder, leave_network_of_the_machine, recording
from tests.servers.git_servers import free_port, wait_for_port
from tests.servers.nginx import USER, WebServer
from tests.servers.processes import program, running
from tests.servers.published import one_sentence

pytestmark = pytest.mark.servers

CATS: dict[str, bytes | str] = {"train/1.png": b"one" * 3000, "train/2.png": b"two" * 3000, "empty.txt": b""}
PLACES = ["plain", "moved", "whole"]
OBJECT = re.compile(r"/data/(reg-store\.json|(packs|maps|manifests|chunks)/[0-9a-f]{2}/[0-9a-f]{64})\Z")
_MORE = """\
daemon off;
worker_processes 1;
pid {own}/nginx.pid;
error_log {own}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    default_type application/octet-stream;
    access_log off;
    client_body_temp_path {own}/body;
    proxy_temp_path {own}/proxy;
    fastcgi_temp_path {own}/fastcgi;
    uwsgi_temp_path {own}/uwsgi;
    scgi_temp_path {own}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /whole/ {{ alias {folder}/; max_ranges 0; }}
        location ~ ^/away/([0-9]+)/(.*)$ {{ return 302 http://127.0.0.1:$1/plain/$2; }}
        location /round/ {{ return 302 /round/; }}
    }}
}}
"""


@pytest.fixture(autouse=True)
def own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing of this machine's network."""
    leave_network_of_the_machine(monkeypatch)


@pytest.fixture(scope="module")
def more_url(web_folder: Path) -> Iterator[str]:
    """A second web server: ``/whole`` knows no ranges, ``/away/PORT`` leads to another one, ``/round`` to itself."""
    with tempfile.TemporaryDirectory(prefix="web-", ignore_cleanup_errors=True) as name, ExitStack() as servers:
        own, port = Path(name), free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        (own / "nginx.conf").write_text(_MORE.format(own=own, folder=web_folder, port=port, user=user))
        command = [program("nginx", "nginx-light"), "-e", own / "error.log", "-p", own, "-c", own / "nginx.conf"]
        wait_for_port(port, servers.enter_context(running(command, own / "nginx.out")))
        yield f"http://127.0.0.1:{port}"


class Site:
    """A registry whose payload lies in a folder that is served; its remote is whatever URL a test names."""

    def __init__(self, root: Path, folder: Path, home: Path, reg: Reg) -> None:
        self.root, self.folder, self.home, self.reg = root, folder, home, reg

    def name(self, url: str) -> str:
        """Name a server's area as the remote, in a commit; return the remote's URL."""
        remote = f"{url}/{self.folder.name}/data"
        self.reg(self.root, "remote", "add", "default", remote, "-m", "Published")
        return remote

    def add(self, files: dict[str, bytes | str], dataset: str = "cats") -> None:
        """Make a version of a dataset and publish it; readers see the web server alone."""
        write(self.root, {f"{dataset}/{path}": content for path, content in files.items()})
        self.reg(self.root, "add", dataset, "-m", f"Change {dataset}")
        self.reg(self.root, "remote", "add", "upload", self.folder / "data")
        self.reg(self.root, "push", "--remote", "upload")
        self.reg(self.root, "remote", "remove", "upload")
        shutil.rmtree(self.root / ".reg/outbox", ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        """Have nothing of it in the cache."""
        shutil.rmtree(self.home / "cache", ignore_errors=True)


@pytest.fixture
def site(registry: Path, web: WebServer, web_folder: Path, home: Path, tmp_path: Path, reg: Reg) -> Site:
    """A published registry with one dataset, and a reader that tries nothing again."""
    folder = Path(tempfile.mkdtemp(dir=web_folder))
    folder.chmod(0o755)
    made = Site(registry, folder, home, reg)
    made.name(f"{web.url}/plain")
    made.add(CATS)
    git(registry, "tag", "v1")
    reg(home, "config", "--user", "retries", "0")
    web.forget()
    return made


@pytest.fixture
def url_of(web: WebServer, more_url: str) -> Callable[[str], str]:
    """The URL of an area of both servers."""
    return lambda place: f"{more_url if place == 'whole' else web.url}/{place}"


def netrc(home: Path, url: str, user: str, password: str) -> None:
    """Have an entry for the host of a URL."""
    (home / ".netrc").write_text(f"machine {urlsplit(url).hostname} login {user} password {password}\n")
    (home / ".netrc").chmod(0o600)


def variable(url: str) -> str:
    """The variable for the host and port of a URL."""
    return token_name(host_of(url))


def hint(ran: Ran) -> str:
    return next((line for line in ran.err.splitlines() if line.startswith("hint: ")), "")


# --- the verbs of readers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_readers_get_import_update_and_verify(
    site: Site, consumer: Path, tmp_path: Path, url_of: Callable[[str], str], place: str, reg: Reg
) -> None:
    site.name(url_of(place))
    reg(tmp_path, "get", site.root, "cats", "-o", "got")
    assert tree(tmp_path / "got") == CATS
    site.forget()
    reg(tmp_path, "get", site.root, "cats:train/2.png", "-o", "two.png")
    assert (tmp_path / "two.png").read_bytes() == CATS["train/2.png"]
    site.forget()
    reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS
    site.add({"train/3.png": b"three" * 3000})
    reg(consumer, "update")
    assert tree(consumer / "cats") == {**CATS, "train/3.png": b"three" * 3000}
    reg(site.root, "verify", "--remote")
    reg(site.root, "verify", "--remote", "--deep")


@pytest.mark.parametrize("place", PLACES)
def test_large_file_comes_whole(site: Site, consumer: Path, url_of: Callable[[str], str], place: str, reg: Reg) -> None:
    content = os.urandom(20_000_000)
    site.add({"big.bin": content}, "big")
    site.name(url_of(place))
    reg(consumer, "import", site.root, "big")
    assert (consumer / "big/big.bin").read_bytes() == content


def test_object_that_was_lost_is_found_by_verify(site: Site, reg: Reg) -> None:
    pack = next(path for path in (site.folder / "data/packs").rglob("*") if path.is_file())
    pack.unlink()
    ran = reg(site.root, "verify", "--remote", code=None)
    assert ran.code in (1, 6)
    assert pack.name in ran.out + ran.err


def test_object_that_was_altered_is_found_by_a_deep_verify(site: Site, reg: Reg) -> None:
    pack = next(path for path in (site.folder / "data/packs").rglob("*") if path.is_file())
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    ran = reg(site.root, "verify", "--remote", "--deep", code=None)
    assert ran.code in (1, 6)
    assert "cats" in ran.out + ran.err


def test_address_with_encoded_characters_is_asked_as_it_is(
    site: Site, web: WebServer, web_folder: Path, consumer: Path, reg: Reg
) -> None:
    odd = web_folder / f"{site.folder.name} ü+1"
    shutil.copytree(site.folder, odd)
    remote = f"{web.url}/plain/{site.folder.name}%20%C3%BC+1/data"
    reg(site.root, "remote", "add", "default", remote, "-m", "Published")
    reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS


@pytest.mark.parametrize("ending", ["", "/"])
def test_address_may_end_with_a_slash(site: Site, web: WebServer, consumer: Path, ending: str, reg: Reg) -> None:
    remote = f"{web.url}/plain/{site.folder.name}/data{ending}"
    reg(site.root, "remote", "add", "default", remote, "-m", "Published")
    reg(consumer, "import", site.root, "cats")
    assert not [row.path for row in web.asked() if "//" in row.path]


# --- what is asked ----------------------------------------------------------------------------------------------


def test_nothing_but_objects_is_ever_asked_for(
    site: Site, web: WebServer, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    reg(consumer, "import", site.root, "cats")
    site.add({"train/3.png": b"three" * 3000})
    reg(consumer, "update")
    site.forget()
    reg(consumer, "sync")
    reg(tmp_path, "get", site.root, "cats@v1:train", "-o", "part")
    reg(tmp_path, "list", site.root)
    reg(site.root, "verify", "--remote", "--deep")
    reg(site.root, "status")
    asked = web.asked()
    assert {row.method for row in asked} <= {"GET", "HEAD"}
    assert [row.path for row in asked if not OBJECT.search(row.path)] == []


def test_push_that_is_refused_asks_for_no_folder(site: Site, web: WebServer, reg: Reg) -> None:
    write(site.root, {"cats/train/3.png": b"three" * 3000})
    reg(site.root, "add", "cats", "-m", "More cats")
    ran = reg(site.root, "push", code=4)
    assert "can only be read" in one_sentence(ran.err)
    assert "reg remote add" in hint(ran)
    assert [row for row in web.asked() if not OBJECT.search(row.path)] == []


@pytest.mark.parametrize("place", PLACES)
def test_import_of_many_files_is_few_requests_and_few_bytes(
    site: Site, web: WebServer, more_url: str, consumer: Path, place: str, reg: Reg
) -> None:
    size = 3000
    site.add({f"{number % 10}/{number}.bin": os.urandom(size) for number in range(2000)}, "many")
    with recording(more_url if place == "whole" else web.url) as recorder:
        site.name(f"{recorder.url}/{place}")
        web.forget()
        reg(consumer, "import", site.root, "many")
    assert len(tree(consumer / "many")) == 2000
    assert len(recorder.requests) <= 6 * (2 if place == "moved" else 1)
    if place == "plain":
        assert sum(row.size for row in web.asked()) < 2000 * size * 1.06


def test_one_file_of_many_costs_little_more_than_itself(site: Site, web: WebServer, tmp_path: Path, reg: Reg) -> None:
    site.add({f"{number % 10}/{number}.bin": os.urandom(30_000) for number in range(500)}, "many")
    web.forget()
    reg(tmp_path, "get", site.root, "many:7/77.bin", "-o", "one.bin")
    asked = web.asked()
    assert len(asked) <= 6
    assert sum(row.size for row in asked) < 30_000 + 60_000


def test_update_asks_for_what_is_new(site: Site, web: WebServer, consumer: Path, reg: Reg) -> None:
    site.add({f"{number % 10}/{number}.bin": os.urandom(30_000) for number in range(200)}, "many")
    reg(consumer, "import", site.root, "many")
    write(site.root, {"many/new.bin": os.urandom(30_000)})
    site.reg(site.root, "add", "many", "-m", "One more")
    site.reg(site.root, "remote", "add", "upload", site.folder / "data")
    site.reg(site.root, "push", "--remote", "upload")
    site.reg(site.root, "remote", "remove", "upload")
    shutil.rmtree(site.root / ".reg/outbox")
    git(consumer, "add", "-A")
    git(consumer, "commit", "-q", "-m", "Import")
    web.forget()
    reg(consumer, "update")
    asked = web.asked()
    assert len(asked) <= 6
    assert sum(row.size for row in asked) < 30_000 + 60_000
    web.forget()
    reg(consumer, "update")
    assert web.asked() == []


# --- redirects --------------------------------------------------------------------------------------------------


@pytest.fixture
def hops(web: WebServer, more_url: str) -> Iterator[tuple[Recorder, Recorder]]:
    """A relay before a server that redirects to another one, and the relay before that."""
    with recording(more_url) as first, recording(web.url) as second:
        yield first, second


@pytest.mark.parametrize("source", ["variable", "netrc"])
def test_redirect_to_another_host_does_not_take_the_credentials_along(
    site: Site, consumer: Path, home: Path, hops: tuple[Recorder, Recorder], source: str, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first, second = hops
    url = first.url.replace("127.0.0.1", "localhost")
    if source == "variable":
        monkeypatch.setenv(variable(url), f"{USER}:open-sesame")
    else:
        netrc(home, url, USER, "open-sesame")
    site.name(f"{url}/away/{urlsplit(second.url).port}")
    reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS
    assert {text.split()[0] for text in first.values("authorization")} == {"Basic"}
    assert second.requests
    assert second.values("authorization") == {""}


def test_redirect_to_another_port_does_not_take_the_token_along(
    site: Site, consumer: Path, hops: tuple[Recorder, Recorder], reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hops
    monkeypatch.setenv(variable(first.url), "a-token")
    site.name(f"{first.url}/away/{urlsplit(second.url).port}")
    reg(consumer, "import", site.root, "cats")
    assert first.values("authorization") == {"Bearer a-token"}
    assert second.values("authorization") == {""}


def test_redirect_of_the_same_host_keeps_the_credentials(
    site: Site, web: WebServer, consumer: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording(web.url) as recorder:
        monkeypatch.setenv(variable(recorder.url), "a-token")
        site.name(f"{recorder.url}/moved")
        reg(consumer, "import", site.root, "cats")
    assert recorder.values("authorization") == {"Bearer a-token"}


def test_redirect_without_end_is_one_sentence(site: Site, consumer: Path, more_url: str, reg: Reg) -> None:
    remote = site.name(f"{more_url}/round")
    ran = reg(consumer, "import", site.root, "cats", code=5)
    assert remote in one_sentence(ran.err)
    assert "redirect" in one_sentence(ran.err)


# --- proxies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_proxy_of_the_environment_is_asked(
    site: Site, web: WebServer, consumer: Path, name: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording() as proxy:
        monkeypatch.setenv(name, proxy.url)
        reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS
    assert proxy.requests
    assert all(row.target.startswith(f"{web.url}/plain/") for row in proxy.requests)


def test_proxy_tunnels_https_and_sees_no_credentials(
    site: Site, web: WebServer, consumer: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(web.ca_file))
    monkeypatch.setenv(variable(web.secure_url), web.token)
    site.name(f"{web.secure_url}/token")
    with recording() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS
    assert {(row.method, row.target) for row in proxy.requests} == {("CONNECT", urlsplit(web.secure_url).netloc)}
    assert proxy.values("authorization") == proxy.values("proxy-authorization") == {""}


@pytest.mark.parametrize("text", ["127.0.0.1", "*", "example.org,127.0.0.1"])
def test_host_that_wants_no_proxy_gets_none(
    site: Site, consumer: Path, text: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", text)
        reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS
    assert proxy.requests == []


@pytest.mark.parametrize("secure", [False, True])
def test_password_of_a_proxy_is_sent_to_it_alone(
    site: Site, web: WebServer, consumer: Path, secure: bool, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(web.ca_file))
    site.name(f"{web.secure_url if secure else web.url}/plain")
    with recording() as proxy:
        monkeypatch.setenv("https_proxy" if secure else "http_proxy", proxy.url.replace("://", "://me:pass%40word@"))
        reg(consumer, "import", site.root, "cats")
    expected = "Basic " + base64.b64encode(b"me:pass@word").decode()
    assert proxy.values("proxy-authorization") == {expected}
    assert proxy.values("authorization") == {""}


def test_proxy_that_is_not_there_is_one_sentence(
    site: Site, consumer: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:hunter2@127.0.0.1:{free_port()}")
    ran = reg(consumer, "import", site.root, "cats", code=5)
    assert "proxy" in one_sentence(ran.err)
    assert "hunter2" not in ran.err + ran.out


# --- authorities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REG_CA_FILE", "REQUESTS_CA_BUNDLE"])
def test_private_authority_is_trusted_when_it_is_named(
    site: Site, web: WebServer, consumer: Path, name: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(web.ca_file))
    site.name(f"{web.secure_url}/plain")
    reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS


def test_authority_that_is_not_trusted_is_named_as_the_cause(
    site: Site, web: WebServer, consumer: Path, reg: Reg
) -> None:
    remote = site.name(f"{web.secure_url}/plain")
    web.forget()
    ran = reg(consumer, "import", site.root, "cats", code=5)
    assert remote in one_sentence(ran.err)
    assert "certificate is not trusted" in one_sentence(ran.err)
    assert "export SSL_CERT_FILE=" in hint(ran)
    assert web.asked() == []


@pytest.mark.parametrize("content", [None, "no certificate\n"])
def test_authority_that_cannot_be_read_is_one_sentence(
    site: Site, web: WebServer, consumer: Path, tmp_path: Path, content: str | None, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    site.name(f"{web.secure_url}/plain")
    ran = reg(consumer, "import", site.root, "cats", code=2)
    assert str(tmp_path / "ca.pem") in one_sentence(ran.err)
    assert "SSL_CERT_FILE" in hint(ran)


# --- credentials ------------------------------------------------------------------------------------------------


def test_bearer_token_of_the_host_lets_in(
    site: Site, web: WebServer, consumer: Path, tmp_path: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(web.url), web.token)
    site.name(f"{web.url}/token")
    reg(consumer, "import", site.root, "cats")
    site.forget()
    reg(tmp_path, "get", site.root, "cats", "-o", "got")
    assert tree(consumer / "cats") == tree(tmp_path / "got") == CATS
    reg(site.root, "verify", "--remote")


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("source", ["port", "host", "netrc"])
def test_password_of_the_host_lets_in(
    site: Site, web: WebServer, consumer: Path, home: Path, secure: bool, source: str, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(web.ca_file))
    url = web.secure_url if secure else web.url
    if source == "netrc":
        netrc(home, url, USER, web.password)
    else:
        name = variable(url) if source == "port" else "REG_TOKEN_127_0_0_1"
        monkeypatch.setenv(name, f"{USER}:{web.password}")
    site.name(f"{url}/private")
    reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS


@pytest.mark.parametrize("place", ["private", "token"])
def test_missing_credentials_name_the_variable(
    site: Site, web: WebServer, consumer: Path, place: str, reg: Reg
) -> None:
    remote = site.name(f"{web.url}/{place}")
    ran = reg(consumer, "import", site.root, "cats", code=4)
    assert remote in one_sentence(ran.err)
    assert "401" in one_sentence(ran.err)
    assert variable(web.url) in hint(ran)
    assert "netrc" in hint(ran)
    assert not (consumer / "cats").exists()


@pytest.mark.parametrize("source", ["variable", "netrc"])
@pytest.mark.parametrize("verb", ["import", "get", "verify"])
def test_wrong_credentials_name_where_they_came_from_and_are_not_shown(
    site: Site, web: WebServer, consumer: Path, home: Path, source: str, verb: str, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if source == "variable":
        monkeypatch.setenv(variable(web.url), f"{USER}:wrong-password")
    else:
        netrc(home, web.url, USER, "wrong-password")
    site.name(f"{web.url}/private")
    site.forget()
    if verb == "verify":
        ran = reg(site.root, "verify", "--remote", code=4)
    else:
        ran = reg(consumer, verb, site.root, "cats", code=4)
    assert (variable(web.url) if source == "variable" else str(home / ".netrc")) in one_sentence(ran.err)
    assert "wrong-password" not in ran.out + ran.err
    assert base64.b64encode(f"{USER}:wrong-password".encode()).decode() not in ran.out + ran.err


def test_malformed_netrc_is_one_sentence_without_what_stands_in_it(
    site: Site, web: WebServer, consumer: Path, home: Path, reg: Reg
) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login me password hunter2 nonsense\n")
    site.name(f"{web.url}/private")
    ran = reg(consumer, "import", site.root, "cats", code=2)
    assert str(home / ".netrc") in one_sentence(ran.err)
    assert "hunter2" not in ran.err


def test_token_of_another_host_is_never_sent(
    site: Site, web: WebServer, consumer: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording(web.url) as recorder:
        port = urlsplit(recorder.url).port or 0
        others = ["example.org", "localhost", f"localhost:{port}", f"127.0.0.1:{port + 1}", f"127-0-0-1:{port}"]
        for other in others:
            monkeypatch.setenv(token_name(other), "a-token-for-another-host")
        monkeypatch.setenv("REG_TOKEN", "a-token-for-nobody")
        monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
        monkeypatch.setenv("GITHUB_TOKEN", "a-token-for-another-host")
        netrc(home, "http://example.org", "me", "a-token-for-another-host")
        site.name(f"{recorder.url}/plain")
        reg(consumer, "import", site.root, "cats")
        reg(site.root, "verify", "--remote")
    assert recorder.requests
    assert recorder.values("authorization") == recorder.values("cookie") == {""}
    assert not [row for row in recorder.requests if "a-token" in f"{row.target} {dict(row.fields)}"]


def test_token_of_a_host_is_not_sent_to_another_remote_of_the_registry(
    site: Site, web: WebServer, consumer: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording(web.url) as one, recording(web.url) as two:
        monkeypatch.setenv(variable(one.url), "a-token")
        site.name(f"{one.url}/none")
        reg(site.root, "remote", "add", "second", f"{two.url}/plain/{site.folder.name}/data", "-m", "Second")
        reg(consumer, "import", site.root, "cats")
    assert tree(consumer / "cats") == CATS
    assert one.values("authorization") == {"Bearer a-token"}
    assert two.values("authorization") == {""}


def test_secret_is_written_nowhere(
    site: Site, web: WebServer, consumer: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(web.url), f"{USER}:{web.password}")
    site.name(f"{web.url}/private")
    said = [reg(consumer, "import", site.root, "cats", "--json"), reg(site.root, "verify", "--remote", "--json")]
    assert not [ran for ran in said if web.password in ran.out + ran.err]
    for folder in (consumer, site.root, home):
        assert not [path for path, content in tree(folder).items() if web.password.encode() in content]


def test_option_of_a_web_server_is_refused(site: Site, web: WebServer, reg: Reg) -> None:
    before = (site.root / "reg.yaml").read_text()
    ran = reg(site.root, "remote", "add", "default", f"{web.url}/plain", "-O", "region=x", code=2)
    assert "region" in one_sentence(ran.err)
    assert (site.root / "reg.yaml").read_text() == before
