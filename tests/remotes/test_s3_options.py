"""What stands beside the URL of a bucket does what it says, whichever client speaks S3, and errors are one sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from registree.errors import RegError
from tests.conftest import Ran, Reg, tree, write
from tests.remotes.recording import Recorder, leave_network_of_the_machine, recording
from tests.remotes.s3_clients import CLIENTS, child, name_bucket, opened, reg_child, take_client
from tests.servers.ceph import ceph_program
from tests.servers.faults import Answer, faulty
from tests.servers.git_servers import free_port, wait_for_port
from tests.servers.processes import running
from tests.servers.published import one_sentence
from tests.servers.radosgw import REGION, S3Server, S3User
from tests.servers.s3 import s3_server

pytestmark = pytest.mark.servers

Attempt = Callable[[int], Ran]

CATS: dict[str, bytes | str] = {"cats/train/1.png": b"one" * 3000, "cats/train/2.png": b"two" * 3000}
FILES = {path.removeprefix("cats/"): content for path, content in CATS.items()}
KEY = "packs/ab/" + "ab" * 32
OPTIONS = ("endpoint_url", "region", "profile", "addressing", "anonymous", "requester_pays", "sse", "sse_kms_key_id")
DOMAIN = "s3.example.test"
ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture(params=CLIENTS, autouse=True)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client that this process speaks S3 through."""
    take_client(request.param, monkeypatch)
    leave_network_of_the_machine(monkeypatch)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return str(request.param)


@pytest.fixture
def recorder(ceph: S3Server) -> Iterator[Recorder]:
    """A relay before the gateway."""
    with recording(ceph.url) as found:
        yield found


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """A server that takes every key and every header."""
    with s3_server() as url:
        yield url


@pytest.fixture
def lenient(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A relay before it, with a bucket named ``lenient``."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    boto3.client("s3", endpoint_url=moto_url, region_name=REGION).create_bucket(Bucket="lenient")
    with recording(moto_url) as found:
        yield found


@pytest.fixture
def once(home: Path, reg: Reg) -> None:
    """Have nothing tried again."""
    reg(home, "config", "--user", "retries", "0")


@pytest.fixture
def curated(registry: Path, reg: Reg) -> Path:
    """A registry with a dataset that was added and not pushed."""
    write(registry, CATS)
    reg(registry, "add", "cats", "-m", "Add cats")
    return registry


@pytest.fixture
def pushed(curated: Path, ceph: S3Server, bucket: str, reg: Reg) -> Path:
    """The same, pushed to a bucket."""
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url, region=REGION)
    reg(curated, "push")
    shutil.rmtree(curated / ".reg/outbox", ignore_errors=True)
    return curated


def forget(home: Path) -> None:
    shutil.rmtree(home / "cache", ignore_errors=True)


def have_keys(user: S3User, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in user.environment.items():
        monkeypatch.setenv(name, value)


def have_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def write_profile(home: Path, name: str, user: S3User, *, config: str = "") -> None:
    """Write a profile as `aws configure --profile NAME` does."""
    folder = home / ".aws"
    folder.mkdir(exist_ok=True)
    with (folder / "credentials").open("a") as file:
        file.write(f"[{name}]\naws_access_key_id = {user.access_key}\naws_secret_access_key = {user.secret_key}\n")
    with (folder / "config").open("a") as file:
        file.write(f"[{name if name == 'default' else f'profile {name}'}]\n{config}\n")


def stranger(ceph: S3Server) -> S3User:
    """Keys that the gateway does not know."""
    return replace(ceph.owner, access_key="AKIASTRANGERSTRANGER", secret_key="strangers-secret-strangers-secret")


def works(url: str, **options: str | bool) -> None:
    """Write an object and read it back."""
    store = opened(url, **options)
    store.write(KEY, b"0123456789")
    assert store.read(KEY, 2, 3) == b"234"


def regions(recorder: Recorder) -> set[str]:
    """The regions that requests were signed for."""
    return {text.split("Credential=")[1].split("/")[2] for text in recorder.values("authorization")}


# --- where it is ------------------------------------------------------------------------------------------------


def test_client_is_the_one_that_the_tests_are_about(recorder: Recorder, bucket: str, client: str) -> None:
    works(f"s3://{bucket}/data", endpoint_url=recorder.url)
    (agent,) = recorder.values("user-agent")
    assert agent.startswith({"obstore": "registree", "s3fs": "aiobotocore"}[client])


@pytest.mark.parametrize("ending", ["", "/"])
def test_endpoint_of_the_remote_goes_before_that_of_the_environment(
    curated: Path, consumer: Path, home: Path, recorder: Recorder, bucket: str, ending: str, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=recorder.url + ending)
    reg(curated, "push")
    forget(home)
    reg(consumer, "import", curated, "cats")
    assert tree(consumer / "cats") == FILES
    assert {row.path.startswith(f"/{bucket}/data/") for row in recorder.requests if not row.query} == {True}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_endpoint_may_come_from_the_environment(
    recorder: Recorder, bucket: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, recorder.url)
    works(f"s3://{bucket}/data")
    assert recorder.requests


def test_endpoint_may_come_from_the_profile(
    recorder: Recorder, ceph: S3Server, bucket: str, home: Path, client: str
) -> None:
    write_profile(home, "lab", ceph.owner, config=f"endpoint_url = {recorder.url}")
    works(f"s3://{bucket}/data", profile="lab")
    assert recorder.requests


def test_region_of_the_remote_goes_before_that_of_the_environment(
    recorder: Recorder, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-other-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-other-1")
    works(f"s3://{bucket}/data", endpoint_url=recorder.url, region="eu-test-1")
    assert regions(recorder) == {"eu-test-1"}


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_region_may_come_from_the_environment(
    recorder: Recorder,
    bucket: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    client: str,
) -> None:
    monkeypatch.setenv(name, "eu-test-1")
    works(f"s3://{bucket}/data", endpoint_url=recorder.url)
    assert regions(recorder) == {"eu-test-1"}


def test_region_may_come_from_the_profile(recorder: Recorder, ceph: S3Server, bucket: str, home: Path) -> None:
    write_profile(home, "lab", ceph.owner, config="region = eu-test-1")
    works(f"s3://{bucket}/data", endpoint_url=recorder.url, profile="lab")
    assert regions(recorder) == {"eu-test-1"}


def test_region_is_one_that_every_server_takes_when_none_is_named(recorder: Recorder, bucket: str) -> None:
    works(f"s3://{bucket}/data", endpoint_url=recorder.url)
    assert regions(recorder) == {"us-east-1"}


@pytest.mark.parametrize("addressing", ["path", "auto"])
def test_bucket_is_in_the_path(recorder: Recorder, bucket: str, addressing: str) -> None:
    works(f"s3://{bucket}/data", endpoint_url=recorder.url, addressing=addressing)
    assert {row.path for row in recorder.requests} == {f"/{bucket}/data/{KEY}"}


@pytest.fixture(scope="module")
def by_host(ceph: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a second gateway to the same buckets, which knows them as hosts below a domain too."""
    port = free_port()
    command = [ceph_program("radosgw"), "-f", "-n", "client.rgw.a", "-c", ceph.configuration]
    command += [f"--rgw-frontends=beast endpoint=127.0.0.1:{port}", f"--rgw-dns-name={DOMAIN}"]
    with running(command, tmp_path_factory.mktemp("gateway") / "out", patience=0) as process:
        wait_for_port(port, process)
        yield port


@pytest.mark.parametrize("addressing", ["virtual", "path"])
def test_bucket_is_the_host_where_it_is_said_so(
    curated: Path, consumer: Path, home: Path, by_host: int, bucket: str, client: str, addressing: str, reg: Reg
) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=f"http://{DOMAIN}", addressing=addressing)
    with recording() as proxy:  # no name server knows the domain: only the proxy does
        proxy.leads[DOMAIN] = ("127.0.0.1", by_host)
        environment = {"http_proxy": proxy.url}
        ran = reg_child(client, curated, "push", environment=environment)
        assert ran.returncode == 0, ran.stderr
        forget(home)
        ran = reg_child(client, consumer, "import", curated, "cats", environment=environment)
        assert ran.returncode == 0, ran.stderr
    assert tree(consumer / "cats") == FILES
    assert proxy.values("host") == {f"{bucket}.{DOMAIN}" if addressing == "virtual" else DOMAIN}
    begin = "/data/" if addressing == "virtual" else f"/{bucket}/data/"
    assert all(row.path.startswith(begin) for row in proxy.requests if not row.query)


# --- who asks ---------------------------------------------------------------------------------------------------


def test_profile_goes_before_keys_of_the_environment(
    curated: Path, consumer: Path, home: Path, ceph: S3Server, bucket: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(home, "lab", ceph.owner)
    have_keys(stranger(ceph), monkeypatch)
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url, profile="lab")
    reg(curated, "push")
    forget(home)
    reg(consumer, "import", curated, "cats")
    assert tree(consumer / "cats") == FILES


def test_profile_may_be_named_by_the_environment(
    home: Path, ceph: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(home, "default", stranger(ceph))
    write_profile(home, "lab", ceph.owner)
    have_no_keys(monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    works(f"s3://{bucket}/data", endpoint_url=ceph.url)


def test_default_profile_is_taken_where_none_is_named(
    home: Path, ceph: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(home, "default", ceph.owner)
    have_no_keys(monkeypatch)
    works(f"s3://{bucket}/data", endpoint_url=ceph.url)


def test_files_of_profiles_may_lie_elsewhere(
    home: Path, tmp_path: Path, ceph: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(home, "lab", ceph.owner)
    shutil.move(home / ".aws", tmp_path / "elsewhere")
    have_no_keys(monkeypatch)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "elsewhere/credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "elsewhere/config"))
    works(f"s3://{bucket}/data", endpoint_url=ceph.url, profile="lab")


def test_profile_may_name_a_program_that_gives_the_keys(
    curated: Path, home: Path, ceph: S3Server, bucket: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"Version": 1, "AccessKeyId": ceph.access_key, "SecretAccessKey": ceph.secret_key}
    (home / "keys.json").write_text(json.dumps(keys))
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(f"[profile lab]\ncredential_process = cat {home}/keys.json\n")
    have_no_keys(monkeypatch)
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url, profile="lab")
    reg(curated, "push")


def test_keys_of_the_environment_go_before_the_default_profile(
    home: Path, ceph: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(home, "default", stranger(ceph))
    have_keys(ceph.owner, monkeypatch)
    works(f"s3://{bucket}/data", endpoint_url=ceph.url)


def test_session_token_of_the_environment_is_sent(lenient: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    works("s3://lenient/data", endpoint_url=lenient.url)
    assert lenient.values("x-amz-security-token") == {"a-session-token"}


def allow_everyone(ceph: S3Server, bucket: str) -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"]}
    policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": [f"arn:aws:s3:::{bucket}/*"]}]}
    ceph.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


@pytest.mark.parametrize("with_keys", [False, True])
def test_public_bucket_is_read_by_anybody_and_nothing_is_signed(
    pushed: Path, consumer: Path, home: Path, ceph: S3Server, bucket: str, recorder: Recorder, with_keys: bool,
    reg: Reg, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    allow_everyone(ceph, bucket)
    name_bucket(reg, pushed, f"s3://{bucket}/data", endpoint_url=recorder.url, anonymous="true")
    have_no_keys(monkeypatch)
    if with_keys:
        have_keys(ceph.owner, monkeypatch)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    forget(home)
    reg(consumer, "import", pushed, "cats")
    assert tree(consumer / "cats") == FILES
    assert recorder.values("authorization") == {""}
    assert recorder.values("x-amz-security-token") == {""}


@pytest.mark.usefixtures("once")
def test_anonymous_writer_is_refused(curated: Path, ceph: S3Server, bucket: str, reg: Reg) -> None:
    allow_everyone(ceph, bucket)
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url, anonymous="true")
    ran = reg(curated, "push", code=4)
    assert bucket in one_sentence(ran.err)
    assert hints(ran)


# --- what is sent beside ----------------------------------------------------------------------------------------


def test_requester_pays_for_everything(recorder: Recorder, bucket: str, tmp_path: Path) -> None:
    store = opened(f"s3://{bucket}/data", endpoint_url=recorder.url, requester_pays=True)
    (tmp_path / "file").write_bytes(b"1")
    store.write(KEY, b"0123456789")
    store.upload(KEY + "1", str(tmp_path / "file"))
    assert (store.size(KEY), store.read(KEY), store.read(KEY, 2, 3)) == (10, b"0123456789", b"234")
    assert len(list(store.keys("packs"))) == 2
    assert {row.method for row in recorder.requests} == {"PUT", "HEAD", "GET"}
    assert recorder.values("x-amz-request-payer") == {"requester"}


def test_requester_pays_for_a_push_and_an_import(
    curated: Path, consumer: Path, home: Path, recorder: Recorder, bucket: str, reg: Reg
) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=recorder.url, requester_pays="true")
    reg(curated, "push")
    forget(home)
    reg(consumer, "import", curated, "cats")
    assert {"PUT", "GET"} <= {row.method for row in recorder.requests}
    assert recorder.values("x-amz-request-payer") == {"requester"}


def test_nobody_pays_unasked(recorder: Recorder, bucket: str) -> None:
    works(f"s3://{bucket}/data", endpoint_url=recorder.url)
    assert recorder.values("x-amz-request-payer") == {""}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("", "")),
        ({"sse": "AES256"}, ("AES256", "")),
        ({"sse": "aws:kms"}, ("aws:kms", "")),
        ({"sse": "aws:kms", "sse_kms_key_id": "a-key"}, ("aws:kms", "a-key")),
    ],
)
def test_encryption_is_asked_for_when_an_object_is_made_and_only_then(
    lenient: Recorder, tmp_path: Path, options: dict[str, str], expected: tuple[str, str]
) -> None:
    store = opened("s3://lenient/data", endpoint_url=lenient.url, **options)
    with (tmp_path / "file").open("wb") as file:
        file.truncate(110 << 20)
    store.write(KEY, b"0123456789")
    store.upload(KEY + "1", str(tmp_path / "file"))
    assert (store.size(KEY), store.read(KEY)) == (10, b"0123456789")
    assert store.size(KEY + "1") == 110 << 20
    made = [
        row for row in lenient.requests if (row.method == "PUT" and not row.query) or row.query.startswith("uploads")
    ]
    assert [row.method for row in made] == ["PUT", "POST"]
    others = [row for row in lenient.requests if row not in made]
    assert len([row for row in others if "partNumber" in row.query]) > 1
    names = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
    assert {tuple(row.fields.get(name, "") for name in names) for row in made} == {expected}
    assert {tuple(row.fields.get(name, "") for name in names) for row in others} == {("", "")}


def test_push_asks_for_encryption(
    curated: Path, consumer: Path, home: Path, lenient: Recorder, reg: Reg, tmp_path: Path
) -> None:
    name_bucket(
        reg, curated, f"s3://lenient/{tmp_path.name}", endpoint_url=lenient.url, sse="aws:kms", sse_kms_key_id="a-key"
    )
    reg(curated, "push")
    puts = lenient.of("PUT")
    assert {row.fields.get("x-amz-server-side-encryption") for row in puts} == {"aws:kms"}
    assert {row.fields.get("x-amz-server-side-encryption-aws-kms-key-id") for row in puts} == {"a-key"}
    forget(home)
    reg(consumer, "import", curated, "cats")
    assert tree(consumer / "cats") == FILES


@pytest.mark.usefixtures("once")
def test_server_that_cannot_encrypt_is_one_sentence(curated: Path, ceph: S3Server, bucket: str, reg: Reg) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url, sse="aws:kms", sse_kms_key_id="a-key")
    ran = reg(curated, "push", code=5)
    assert f"s3://{bucket}/data" in one_sentence(ran.err)
    assert ceph.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


# --- HTTPS and proxies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_private_authority_is_trusted_when_it_is_named(
    curated: Path, consumer: Path, home: Path, ceph: S3Server, bucket: str, client: str, name: str, reg: Reg
) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.secure_url)
    environment = {name: str(ceph.ca_file)}
    ran = reg_child(client, curated, "push", environment=environment)
    assert ran.returncode == 0, ran.stderr
    forget(home)
    ran = reg_child(client, consumer, "import", curated, "cats", environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert tree(consumer / "cats") == FILES


@pytest.mark.usefixtures("once")
def test_private_authority_is_named_as_the_cause_when_it_is_not_trusted(
    curated: Path, ceph: S3Server, bucket: str, client: str, reg: Reg
) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.secure_url)
    ran = reg_child(client, curated, "push")
    assert ran.returncode == 5
    assert "certificate" in one_sentence(ran.stderr)
    assert re.search("hint: .*(AWS_CA_BUNDLE|SSL_CERT_FILE)", ran.stderr)


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("content", [None, "no certificate\n"])
def test_authority_that_cannot_be_read_is_one_sentence(
    curated: Path, ceph: S3Server, bucket: str, client: str, tmp_path: Path, content: str | None, reg: Reg
) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.secure_url)
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    ran = reg_child(client, curated, "push", environment={"AWS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    assert ran.returncode == 2
    assert str(tmp_path / "ca.pem") in one_sentence(ran.stderr)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_proxy_of_the_environment_is_asked(
    curated: Path, ceph: S3Server, bucket: str, client: str, secure: bool, upper: bool, reg: Reg
) -> None:
    url = ceph.secure_url if secure else ceph.url
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=url)
    name = "https_proxy" if secure else "http_proxy"
    with recording() as proxy:
        environment = {name.upper() if upper else name: proxy.url, "AWS_CA_BUNDLE": str(ceph.ca_file)}
        ran = reg_child(client, curated, "push", environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert {row.method for row in proxy.requests} >= {"CONNECT" if secure else "PUT"}
    assert proxy.values("host") == {url.split("://")[1]}
    assert opened(f"s3://{bucket}/data", endpoint_url=ceph.url).size("reg-store.json") is not None


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_host_that_wants_no_proxy_gets_none(
    curated: Path, ceph: S3Server, bucket: str, client: str, name: str, reg: Reg
) -> None:
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url)
    with recording() as proxy:
        environment = {"http_proxy": proxy.url, name: "example.org,127.0.0.1"}
        ran = reg_child(client, curated, "push", environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert proxy.requests == []


# --- what is wrong ----------------------------------------------------------------------------------------------


def hints(ran: Ran) -> str:
    """The hint on stderr."""
    return next((line for line in ran.err.splitlines() if line.startswith("hint: ")), "")


def check_refusal(ran: Ran, profile: str, *secrets: str) -> None:
    """One sentence that names the profile, a hint with what to run, and no secret."""
    assert re.search(rf"\bprofile {profile}\b", one_sentence(ran.err)), ran.err
    assert re.search(r"aws (configure|sso login)|AWS_PROFILE=", hints(ran)), ran.err
    for secret in secrets:
        assert secret not in ran.out + ran.err


@pytest.fixture(params=["push", "import"])
def attempt(request: pytest.FixtureRequest, pushed: Path, consumer: Path, home: Path, once: None, reg: Reg) -> Attempt:
    """Use the bucket of a registry that was pushed: write to it, or read from it; the code is what it has to be."""
    if request.param == "push":
        write(pushed, {"dogs/1.png": b"dog" * 3000})
        reg(pushed, "add", "dogs", "-m", "Add dogs")

    def run(code: int) -> Ran:
        forget(home)
        if request.param == "push":
            return reg(pushed, "push", code=code)
        return reg(consumer, "import", pushed, "cats", code=code)

    return run


def test_missing_credentials_are_named(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    have_no_keys(monkeypatch)
    check_refusal(attempt(4), "default")


def test_missing_credentials_of_a_profile_that_is_there_are_named(
    attempt: Attempt, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_no_keys(monkeypatch)
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text("[profile lab]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    check_refusal(attempt(4), "lab")


@pytest.mark.parametrize("by_option", [True, False])
def test_unknown_profile_is_named(
    attempt: Attempt, pushed: Path, ceph: S3Server, bucket: str, by_option: bool, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    have_no_keys(monkeypatch)
    if by_option:
        name_bucket(reg, pushed, f"s3://{bucket}/data", endpoint_url=ceph.url, profile="lab")
    else:
        monkeypatch.setenv("AWS_PROFILE", "lab")
    check_refusal(attempt(4), "lab")


def test_wrong_secret_is_named_and_not_shown(attempt: Attempt, ceph: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(ceph.owner, secret_key="wrong-secret-wrong-secret")
    have_keys(wrong, monkeypatch)
    check_refusal(attempt(4), "default", wrong.secret_key)


def test_unknown_key_is_named(attempt: Attempt, ceph: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = stranger(ceph)
    have_keys(unknown, monkeypatch)
    check_refusal(attempt(4), "default", unknown.secret_key)


def test_expired_token_is_named(
    attempt: Attempt,
    pushed: Path,
    ceph: S3Server,
    bucket: str,
    reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    with faulty(ceph.url) as proxy:
        proxy.add(Answer(400, b'<?xml version="1.0" encoding="UTF-8"?>\n' + text, "application/xml"))
        name_bucket(reg, pushed, f"s3://{bucket}/data", endpoint_url=proxy.url)
        ran = attempt(4)
    check_refusal(ran, "default", "a-session-token", ceph.secret_key)
    assert "expired" in one_sentence(ran.err)


PROFILES_WITHOUT_KEYS = {
    "program that fails": "credential_process = false\n",
    "program that is not there": "credential_process = no-such-program-of-keys\n",
    "nobody logged in": "sso_start_url = https://example.org/start\nsso_region = us-east-1\n"
    "sso_account_id = 123456789012\nsso_role_name = reader\n",
    "role of a profile that is not there": "role_arn = arn:aws:iam::123456789012:role/reader\nsource_profile = none\n",
}


@pytest.mark.parametrize("name", PROFILES_WITHOUT_KEYS)
def test_profile_that_gives_no_keys_is_named(
    attempt: Attempt, pushed: Path, home: Path, ceph: S3Server, bucket: str, client: str, name: str, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    have_no_keys(monkeypatch)
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(f"[profile lab]\n{PROFILES_WITHOUT_KEYS[name]}")
    name_bucket(reg, pushed, f"s3://{bucket}/data", endpoint_url=ceph.url, profile="lab")
    check_refusal(attempt(4), "lab")


def test_malformed_configuration_of_the_cloud_is_one_sentence(
    attempt: Attempt, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_no_keys(monkeypatch)
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text("no section\n")
    assert ".aws/config" in one_sentence(attempt(4).err)


def test_wrong_region_is_named_as_the_cause(
    attempt: Attempt, pushed: Path, ceph: S3Server, bucket: str, reg: Reg
) -> None:
    text = b"<Message>the region 'us-east-1' is wrong; expecting 'eu-test-1'</Message><Region>eu-test-1</Region>"
    answer = b"<Error><Code>AuthorizationHeaderMalformed</Code>" + text + b"</Error>"
    with faulty(ceph.url) as proxy:
        proxy.add(Answer(400, answer, "application/xml"))
        name_bucket(reg, pushed, f"s3://{bucket}/data", endpoint_url=proxy.url, region="us-east-1")
        ran = attempt(4)
    assert "region" in one_sentence(ran.err)
    assert "region=" in hints(ran)


def test_user_without_rights_is_told_so(attempt: Attempt, ceph: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    user = ceph.make_user()
    have_keys(user, monkeypatch)
    check_refusal(attempt(4), "default", user.secret_key)


def test_reader_reads_and_is_refused_when_writing(
    curated: Path, consumer: Path, home: Path, ceph: S3Server, bucket: str, once: None, reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name_bucket(reg, curated, f"s3://{bucket}/data", endpoint_url=ceph.url)
    reg(curated, "push")
    reader = ceph.make_user(bucket)
    have_keys(reader, monkeypatch)
    forget(home)
    reg(consumer, "import", curated, "cats")
    assert tree(consumer / "cats") == FILES
    write(curated, {"dogs/1.png": b"dog" * 3000})
    reg(curated, "add", "dogs", "-m", "Add dogs")
    waiting = tree(curated / ".reg/outbox")
    check_refusal(reg(curated, "push", code=4), "default", reader.secret_key)
    assert tree(curated / ".reg/outbox") == waiting


def test_bucket_that_is_not_there_is_named(
    attempt: Attempt, pushed: Path, ceph: S3Server, bucket: str, reg: Reg
) -> None:
    name_bucket(reg, pushed, f"s3://{bucket}-gone/data", endpoint_url=ceph.url)
    ran = attempt(5)
    assert f"s3://{bucket}-gone/data" in one_sentence(ran.err)
    assert "no such bucket" in one_sentence(ran.err)
    assert "reg remote" in hints(ran)


@pytest.mark.parametrize("option", ["endpoint=http://127.0.0.1:1", "anon=true", "Region=x"])
def test_unknown_option_is_refused_and_the_known_ones_named(registry: Path, option: str, reg: Reg) -> None:
    before = (registry / "reg.yaml").read_text()
    ran = reg(registry, "remote", "add", "default", "s3://bucket/data", "-O", option, code=2)
    assert option.split("=", maxsplit=1)[0] in one_sentence(ran.err)
    assert all(name in hints(ran) for name in OPTIONS)
    assert (registry / "reg.yaml").read_text() == before


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("anonymous=yes", "true"),
        ("requester_pays=1", "true"),
        ("addressing=dns", "virtual"),
        ("sse=yes", "AES256"),
        ("endpoint_url=localhost:9000", "http"),
        ("region=true", ""),
    ],
)
def test_value_that_cannot_be_is_refused(registry: Path, option: str, known: str, reg: Reg) -> None:
    before = (registry / "reg.yaml").read_text()
    ran = reg(registry, "remote", "add", "default", "s3://bucket/data", "-O", option, code=2)
    assert option.split("=", maxsplit=1)[0] in one_sentence(ran.err)
    assert known in one_sentence(ran.err) + hints(ran)
    assert (registry / "reg.yaml").read_text() == before


@pytest.mark.parametrize("line", ["endpoint: http://127.0.0.1:1", "sse: maybe", "anonymous: 'yes'", "addressing: dns"])
def test_option_of_a_registry_that_cannot_be_is_refused_when_it_is_used(curated: Path, line: str, reg: Reg) -> None:
    (curated / "reg.yaml").write_text(f"reg: 1\nremotes:\n  default:\n    url: s3://bucket/data\n    {line}\n")
    ran = reg(curated, "push", code=2)
    assert line.split(":", maxsplit=1)[0] in one_sentence(ran.err)


# --- sizes and counts -------------------------------------------------------------------------------------------

MEASURE = """
import os
from concurrent.futures import ThreadPoolExecutor
from registree.network import Network
from registree.store.opening import open_store

url, endpoint, path = sys.argv[1:]
store = open_store(url, "/", {"endpoint_url": endpoint}, network=Network.from_environment(os.environ))
with ThreadPoolExecutor(3) as pool:
    list(pool.map(lambda number: store.upload(f"packs/{number}", path), range(3)))
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
LARGE = 200 << 20


def test_large_packs_go_up_in_parts_and_in_bounded_memory(
    recorder: Recorder, ceph: S3Server, bucket: str, client: str, tmp_path: Path
) -> None:
    block = os.urandom(1 << 20)
    with (tmp_path / "pack").open("wb") as file:
        for number in range(LARGE >> 20):
            file.write(block[number:] + block[:number])
    ran = child(client, MEASURE, f"s3://{bucket}/data", recorder.url, tmp_path / "pack", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) << 10 < 500 << 20
    found = ceph.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert [row["Size"] for row in found] == [LARGE] * 3
    assert len([row for row in recorder.requests if "partNumber=" in row.query]) >= 6
    store = opened(f"s3://{bucket}/data", endpoint_url=ceph.url)
    assert store.read("packs/1", (150 << 20) - 10, 20) == (block[149:] + block[:149])[-10:] + block[150:160]
    assert ceph.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    for row in found:
        ceph.client().delete_object(Bucket=bucket, Key=row["Key"])


def test_upload_in_parts_that_fails_is_an_error_and_no_object(ceph: S3Server, bucket: str, tmp_path: Path) -> None:
    with (tmp_path / "pack").open("wb") as file:
        file.truncate(110 << 20)
    denied = b"<Error><Code>AccessDenied</Code><Message>Denied</Message></Error>"
    with faulty(ceph.url) as proxy:
        proxy.add(Answer(403, denied, "application/xml"), method="PUT", path="partNumber=2")
        store = opened(f"s3://{bucket}/data", endpoint_url=proxy.url)
        with pytest.raises(RegError):
            store.upload(KEY, str(tmp_path / "pack"))
    assert store_is_empty(ceph, bucket)


def store_is_empty(ceph: S3Server, bucket: str) -> bool:
    uploads = ceph.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return ceph.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0 and not uploads


@pytest.mark.timeout(300)
def test_twenty_thousand_files_are_few_requests(
    registry: Path, consumer: Path, home: Path, recorder: Recorder, bucket: str, reg: Reg
) -> None:
    block = os.urandom(10_000)
    write(
        registry,
        {f"many/{n % 100:02}/{n}.bin": block[n % 9999 :] + n.to_bytes(8) + block[: n % 9999] for n in range(20_000)},
    )
    reg(registry, "add", "many", "-m", "Add many")
    name_bucket(reg, registry, f"s3://{bucket}/data", endpoint_url=recorder.url)
    reg(registry, "push")
    up = len(recorder.requests)
    forget(home)
    recorder.forget()
    reg(consumer, "import", registry, "many")
    down = len(recorder.requests)
    assert sum(path.is_file() for path in (consumer / "many").rglob("*")) == 20_000
    assert (up <= 30, down <= 30) == (True, True), (up, down)
