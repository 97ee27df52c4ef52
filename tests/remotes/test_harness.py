"""What tests of remotes lean on: the servers behave as their users know them, and the proxy does what its rules say."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from registree.store.opening import open_store
from tests.conftest import git, tree, write
from tests.servers.faults import (
    HTML_PAGE,
    SLOW_DOWN,
    Call,
    Delay,
    Faults,
    Flip,
    Reset,
    Stall,
    Truncate,
    faulty,
)
from tests.servers.nginx import USER, WebServer
from tests.servers.processes import program, running
from tests.servers.radosgw import REGION, S3Server, radosgw
from tests.servers.sshd import SshServer, sshd

pytestmark = pytest.mark.servers

CONTENT = bytes(range(256)) * 4000


def fetched(
    url: str, *, ca_file: Path | None = None, fields: dict[str, str] | None = None
) -> tuple[int, bytes, Message]:
    """Return the status, body and head of an answer."""
    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https") else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=fields or {}), context=context) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()}


def refused(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


# --- processes --------------------------------------------------------------------------------------------------


def test_program_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(AssertionError, match="apt-get install some-package"):
        program("no-such-program", "some-package")


def test_server_and_what_it_started_end_when_the_test_fails(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! > child; echo ready > ready; wait"
    with pytest.raises(ZeroDivisionError), running(["sh", "-c", f"cd {tmp_path}; {script}"], tmp_path / "log"):
        until((tmp_path / "ready").exists)
        raise ZeroDivisionError
    child = int((tmp_path / "child").read_text())
    until(lambda: not is_running(child))


def until(condition: Any, seconds: float = 10) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


# --- S3 ---------------------------------------------------------------------------------------------------------


def test_object_comes_back_from_s3(ceph: S3Server) -> None:
    bucket, client = ceph.make_bucket(), ceph.client()
    client.put_object(Bucket=bucket, Key="a/b", Body=CONTENT)
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == CONTENT
    assert client.get_object(Bucket=bucket, Key="a/b", Range="bytes=10-19")["Body"].read() == CONTENT[10:20]


def test_bucket_of_a_test_is_one_that_reg_writes_to(ceph: S3Server, bucket: str) -> None:
    store = open_store(f"s3://{bucket}/data", "/", {"endpoint_url": ceph.url, "region": REGION})
    store.write("packs/a", CONTENT)
    assert store.read("packs/a", 100, 10) == CONTENT[100:110]
    assert [row["Key"] for row in ceph.client().list_objects_v2(Bucket=bucket)["Contents"]] == ["data/packs/a"]


def test_wrong_secret_is_refused(ceph: S3Server) -> None:
    bucket = ceph.make_bucket()
    stranger = replace(ceph.owner, secret_key="wrong")
    with pytest.raises(ClientError) as caught:
        ceph.client(stranger).put_object(Bucket=bucket, Key="a", Body=b"1")
    assert refused(caught) == "SignatureDoesNotMatch"


def test_one_of_many_conditional_writers_wins(ceph: S3Server) -> None:
    bucket = ceph.make_bucket()

    def write_once(number: int) -> bool:
        try:
            ceph.client().put_object(Bucket=bucket, Key="a", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write_once, range(8))) == 1


def test_reader_of_a_bucket_may_read_and_change_nothing(ceph: S3Server) -> None:
    bucket = ceph.make_bucket()
    ceph.client().put_object(Bucket=bucket, Key="a", Body=b"1")
    reader = ceph.client(ceph.make_user(bucket))
    assert reader.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
    assert [row["Key"] for row in reader.list_objects_v2(Bucket=bucket)["Contents"]] == ["a"]
    with pytest.raises(ClientError) as caught:
        reader.put_object(Bucket=bucket, Key="a", Body=b"2")
    assert refused(caught) == "AccessDenied"
    with pytest.raises(ClientError) as caught:
        reader.delete_object(Bucket=bucket, Key="a")
    assert refused(caught) == "AccessDenied"
    assert reader.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"


def test_user_without_rights_reads_nothing(ceph: S3Server) -> None:
    bucket = ceph.make_bucket()
    ceph.client().put_object(Bucket=bucket, Key="a", Body=b"1")
    with pytest.raises(ClientError) as caught:
        ceph.client(ceph.make_user()).get_object(Bucket=bucket, Key="a")
    assert refused(caught) == "AccessDenied"


def test_s3_over_https_is_for_those_who_trust_its_authority(ceph: S3Server) -> None:
    status, body, _ = fetched(ceph.secure_url, ca_file=ceph.ca_file)
    assert (status, b"ListAllMyBucketsResult" in body) == (200, True)
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        fetched(ceph.secure_url)


def test_gateway_is_gone_after_its_test() -> None:
    with pytest.raises(ZeroDivisionError), radosgw() as server:
        url, gateway, folder = server.url, server.gateway, server.configuration.parent
        raise ZeroDivisionError
    assert gateway.poll() is not None
    assert not folder.exists()
    with pytest.raises(urllib.error.URLError):
        fetched(url)


# --- files over HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
def page(web: WebServer, web_folder: Path) -> str:
    """The name of a file of the test's own on the web server, with `CONTENT` in it."""
    name = uuid4().hex
    write(web_folder, {name: CONTENT})
    return name


@pytest.mark.parametrize("secure", [False, True])
def test_web_server_serves_each_place_to_whom_it_may(web: WebServer, page: str, secure: bool) -> None:
    url = web.secure_url if secure else web.url
    right, wrong, token = basic(web.password), basic("wrong"), {"Authorization": f"Bearer {web.token}"}

    def status(place: str, fields: dict[str, str] | None = None) -> int:
        found, body, _ = fetched(f"{url}/{place}/{page}", ca_file=web.ca_file, fields=fields)
        assert (found == 200) == (body == CONTENT)
        return found

    assert status("plain") == 200
    assert (status("private"), status("private", wrong), status("private", right)) == (401, 401, 200)
    assert (status("token"), status("token", right), status("token", token)) == (401, 401, 200)
    assert status("moved") == 200


def test_web_server_serves_ranges_and_counts_what_it_was_asked(web: WebServer, page: str) -> None:
    web.forget()
    status, body, _ = fetched(f"{web.url}/moved/{page}", fields={"Range": "bytes=5-9"})
    assert (status, body) == (206, CONTENT[5:10])
    assert web.counts() == {("GET", f"/moved/{page}"): 1, ("GET", f"/plain/{page}"): 1}
    assert [(row.status, row.size) for row in web.asked()][1:] == [(206, 5)]


def test_certificate_of_the_web_server_is_refused_by_strangers(web: WebServer, page: str) -> None:
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        fetched(f"{web.secure_url}/plain/{page}")


def test_repository_behind_a_password_is_cloned_fetched_and_pushed(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{uuid4().hex}.git"
    git(web.repositories, "init", "-q", "--bare", name)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(web.ca_file))
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    url = f"{web.secure_url}/git/{name}"
    assert git(tmp_path, "ls-remote", url, check=False) == ""
    clone_push_fetch(tmp_path, url.replace("://", f"://{USER}:{web.password}@"))


def clone_push_fetch(folder: Path, url: str) -> None:
    """Have the git command use a repository that is empty."""
    for name in ("one", "two"):
        git(folder, "clone", "-q", url, name)
    write(folder / "one", {"big": os.urandom(3_000_000)})
    git(folder / "one", "add", "big")
    git(folder / "one", "commit", "-q", "-m", "Add big")
    git(folder / "one", "push", "-q", "origin", "HEAD:main")
    git(folder / "two", "pull", "-q", "origin", "main")
    assert (folder / "two/big").read_bytes() == (folder / "one/big").read_bytes()


# --- SSH --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["url", "scp_like"])
def test_repository_behind_ssh_is_cloned_fetched_and_pushed(
    sshd_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    monkeypatch.setenv("GIT_SSH_COMMAND", sshd_server.command(tmp_path))
    clone_push_fetch(tmp_path, getattr(sshd_server, form)(tmp_path / "bare.git"))


def test_stranger_is_not_let_in_over_ssh(
    sshd_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    monkeypatch.setenv("GIT_SSH_COMMAND", sshd_server.command(tmp_path, key=sshd_server.stranger_key))
    with pytest.raises(AssertionError, match="Permission denied"):
        git(tmp_path, "ls-remote", sshd_server.url(tmp_path / "bare.git"))


def test_ssh_server_is_gone_after_its_test() -> None:
    with pytest.raises(ZeroDivisionError), sshd() as server:
        port = server.port
        raise ZeroDivisionError
    until(lambda: refuses(port))


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


# --- the proxy --------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(web: WebServer) -> Iterator[Faults]:
    with faulty(web.url) as faults:
        yield faults


@pytest.fixture
def s3_proxy(ceph: S3Server) -> Iterator[tuple[Faults, Any, str]]:
    """A proxy before the S3 server, a client that goes through it, and a bucket."""
    with faulty(ceph.url) as faults:
        yield faults, replace(ceph, url=faults.url).client(), ceph.make_bucket()


@pytest.fixture
def client(proxy: Faults) -> Iterator[http.client.HTTPConnection]:
    """One connection to the proxy before the web server."""
    with closing(http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=30)) as made:
        yield made


def test_proxy_without_rules_changes_nothing_and_counts(
    proxy: Faults, web: WebServer, client: http.client.HTTPConnection, page: str
) -> None:
    for method, path in (("GET", f"/plain/{page}"), ("HEAD", f"/plain/{page}"), ("GET", "/plain/none")):
        client.request(method, path)
        answer = client.getresponse()
        straight = urllib.request.Request(f"{web.url}{path}", method=method)
        assert answer.status == (404 if path.endswith("none") else 200)
        body = answer.read()
        if answer.status == 200:
            with urllib.request.urlopen(straight, timeout=30) as other:
                assert body == other.read()
                assert answer.headers["ETag"] == other.headers["ETag"]
    assert [(row.method, row.path, row.up) for row in proxy.requests] == [
        ("GET", f"/plain/{page}", 0),
        ("HEAD", f"/plain/{page}", 0),
        ("GET", "/plain/none", 0),
    ]
    assert [row.down for row in proxy.requests][:2] == [len(CONTENT), 0]


def test_signatures_pass_the_proxy(s3_proxy: tuple[Faults, Any, str]) -> None:
    faults, client, bucket = s3_proxy
    content = os.urandom(20_000_000)
    client.put_object(Bucket=bucket, Key="a b+c", Body=content)
    assert client.get_object(Bucket=bucket, Key="a b+c")["Body"].read() == content
    client.delete_object(Bucket=bucket, Key="a b+c")
    assert [(row.method, row.up, row.down) for row in faults.requests] == [
        ("PUT", len(content), 0),
        ("GET", 0, len(content)),
        ("DELETE", 0, 0),
    ]


def test_chunked_requests_pass_the_proxy(
    web: WebServer, proxy: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{uuid4().hex}.git"
    git(web.repositories, "init", "-q", "--bare", name)
    clone_push_fetch(tmp_path, f"{proxy.url}/git/{name}".replace("://", f"://{USER}:{web.password}@"))
    pushed = [row for row in proxy.requests if row.path.endswith("git-receive-pack") and row.method == "POST"]
    assert sum(row.up for row in pushed) > 3_000_000


def test_rule_holds_for_the_first_matches_or_for_each_kth(proxy: Faults, page: str) -> None:
    url = f"{proxy.url}/plain/{page}"
    rule = proxy.add(SLOW_DOWN, method="GET", path=page, first=2)
    assert [fetched(url)[0] for _ in range(4)] == [503, 503, 200, 200]
    assert (rule.matched, rule.applied) == (4, 2)
    proxy.clear()
    proxy.add(SLOW_DOWN, path=page, every=3)
    assert [fetched(url)[0] for _ in range(6)] == [200, 200, 503, 200, 200, 503]
    proxy.clear()
    proxy.add(SLOW_DOWN, method="PUT")
    proxy.add(SLOW_DOWN, path="another")
    assert fetched(url)[0] == 200


def test_slow_down_is_what_s3_clients_know(s3_proxy: tuple[Faults, Any, str]) -> None:
    faults, client, bucket = s3_proxy
    faults.add(SLOW_DOWN, method="PUT", first=1)
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="a", Body=CONTENT)
    assert refused(caught) == "SlowDown"
    client.put_object(Bucket=bucket, Key="a", Body=CONTENT)


def test_page_for_people_comes_in_place_of_the_file(proxy: Faults, page: str) -> None:
    proxy.add(HTML_PAGE)
    status, body, fields = fetched(f"{proxy.url}/plain/{page}")
    assert (status, body, fields["Content-Type"]) == (200, HTML_PAGE.body, "text/html")


@pytest.mark.parametrize("action", [Reset(), Reset(of="request")])
def test_reset_before_the_answer_is_a_reset(
    proxy: Faults, client: http.client.HTTPConnection, page: str, action: Reset
) -> None:
    proxy.add(action, first=1)
    client.request("GET", f"/plain/{page}")
    with pytest.raises(ConnectionResetError):
        client.getresponse()
    assert fetched(f"{proxy.url}/plain/{page}")[1] == CONTENT


def test_answer_that_is_lost_leaves_what_was_done(s3_proxy: tuple[Faults, Any, str], ceph: S3Server) -> None:
    faults, client, bucket = s3_proxy
    for key, action in (("done", Reset()), ("not-done", Reset(of="request"))):
        faults.add(action, method="PUT", path=f"/{key}$")
        with pytest.raises(Exception, match="Connection"):
            client.put_object(Bucket=bucket, Key=key, Body=CONTENT)
    assert [row["Key"] for row in ceph.client().list_objects_v2(Bucket=bucket)["Contents"]] == ["done"]


@pytest.mark.parametrize("after", [1, 100_000, len(CONTENT) - 1])
def test_reset_within_an_answer_comes_after_the_bytes_it_says(
    proxy: Faults, client: http.client.HTTPConnection, page: str, after: int
) -> None:
    proxy.add(Reset(after))
    client.request("GET", f"/plain/{page}")
    answer = client.getresponse()
    assert answer.read(after) == CONTENT[:after]
    with pytest.raises(ConnectionResetError):
        answer.read()
    assert [row.down for row in proxy.requests] == [after]


def test_reset_within_an_upload_leaves_no_object(s3_proxy: tuple[Faults, Any, str], ceph: S3Server) -> None:
    faults, client, bucket = s3_proxy
    faults.add(Reset(500_000, of="request"), method="PUT")
    with pytest.raises(Exception, match=r"[Cc]onnection"):
        client.put_object(Bucket=bucket, Key="a", Body=CONTENT)
    assert faults.requests[0].up >= 500_000
    assert ceph.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_body_that_is_cut_ends_without_an_error_of_the_connection(
    proxy: Faults, client: http.client.HTTPConnection, page: str
) -> None:
    proxy.add(Truncate(100_000))
    client.request("GET", f"/plain/{page}")
    answer = client.getresponse()
    assert int(answer.headers["Content-Length"]) == len(CONTENT)
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert caught.value.partial == CONTENT[:100_000]


@pytest.mark.parametrize("offset", [0, 70_000, len(CONTENT) - 1])
def test_one_byte_differs(proxy: Faults, page: str, offset: int) -> None:
    proxy.add(Flip(offset))
    _, body, fields = fetched(f"{proxy.url}/plain/{page}")
    assert [place for place, pair in enumerate(zip(body, CONTENT, strict=True)) if pair[0] != pair[1]] == [offset]
    assert int(fields["Content-Length"]) == len(CONTENT)


def test_upload_that_is_altered_on_its_way_is_noticed_by_s3(s3_proxy: tuple[Faults, Any, str]) -> None:
    faults, client, bucket = s3_proxy
    digest = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    client.put_object(Bucket=bucket, Key="a", Body=CONTENT, ContentMD5=digest)
    faults.add(Flip(1000, of="request"), method="PUT")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="a", Body=CONTENT, ContentMD5=digest)
    assert refused(caught) in ("BadDigest", "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize("action", [Stall(0.4, 100_000), Stall(0.4), Delay(0.4), Stall(0.4, of="request")])
def test_slow_answer_is_whole(proxy: Faults, page: str, action: Stall | Delay) -> None:
    proxy.add(action)
    begun = time.monotonic()
    assert fetched(f"{proxy.url}/plain/{page}")[1] == CONTENT
    assert time.monotonic() - begun >= 0.4


def test_client_that_is_patient_for_less_gives_up_in_a_stall(
    proxy: Faults, client: http.client.HTTPConnection, page: str
) -> None:
    proxy.add(Stall(60, 100_000))
    client.timeout = 0.3
    client.request("GET", f"/plain/{page}")
    with pytest.raises(TimeoutError):
        client.getresponse().read()


def test_function_of_the_test_is_called_before_the_request_is_passed_on(
    s3_proxy: tuple[Faults, Any, str], ceph: S3Server
) -> None:
    faults, client, bucket = s3_proxy
    client.put_object(Bucket=bucket, Key="a", Body=b"1")
    faults.add(Call(lambda: ceph.client().delete_object(Bucket=bucket, Key="a")), method="GET", first=1)
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket=bucket, Key="a")
    assert refused(caught) == "NoSuchKey"


def test_process_is_killed_in_the_middle(proxy: Faults, page: str, tmp_path: Path) -> None:
    killed = threading.Event()

    def kill() -> None:
        process.kill()
        killed.set()

    proxy.add(Call(kill))
    script = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"
    with running([program("python3", "python3"), "-c", script, f"{proxy.url}/plain/{page}"], tmp_path / "log") as found:
        process: subprocess.Popen[bytes] = found
        assert killed.wait(20)
        assert process.wait(10) == -9


def test_many_connections_at_once_keep_apart(proxy: Faults, web_folder: Path) -> None:
    names = {f"{uuid4().hex}": os.urandom(50_000) for _ in range(24)}
    write(web_folder, dict(names))
    with ThreadPoolExecutor(12) as pool:
        found = pool.map(lambda name: fetched(f"{proxy.url}/plain/{name}")[1], names)
    assert list(found) == list(names.values())
    assert {name for name in tree(web_folder) if name in names} == set(names)


def test_upstream_that_is_not_there_is_a_reset() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with faulty(f"http://127.0.0.1:{taken.getsockname()[1]}") as proxy, pytest.raises(ConnectionResetError):
            fetched(proxy.url)
