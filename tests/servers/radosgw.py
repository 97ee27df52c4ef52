"""An S3 server that is strict about signatures, conditions and rights: Ceph's gateway over the cluster of `ceph.py`.

All of it lies in a temporary folder, listens on loopback and starts in two seconds; objects are kept in memory.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config

from tests.servers.ceph import ceph_program, start_cluster
from tests.servers.certificates import make_certificate
from tests.servers.git_servers import free_port, wait_for_port
from tests.servers.processes import output_of, running

REGION = "us-east-1"


@dataclass(frozen=True)
class S3User:
    """Keys of a user."""

    name: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process of this user has in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@dataclass(frozen=True)
class S3Server:
    """A running gateway: its URL and the keys of its first user.

    `gateway` is the process, for tests that kill it; `secure_url` and `ca_file` are there when HTTPS was asked for.
    """

    url: str
    access_key: str
    secret_key: str
    configuration: Path
    gateway: subprocess.Popen[bytes]
    secure_url: str = ""
    ca_file: Path | None = None

    @property
    def owner(self) -> S3User:
        """The first user, who owns every bucket."""
        return S3User("owner", self.access_key, self.secret_key)

    def client(self, user: S3User | None = None) -> Any:
        """Return a plain S3 client, of the owner or of another user."""
        who = user or self.owner
        settings = Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        keys = {"aws_access_key_id": who.access_key, "aws_secret_access_key": who.secret_key}
        return boto3.client("s3", endpoint_url=self.url, region_name=REGION, config=settings, **keys)

    def make_bucket(self, name: str = "") -> str:
        """Make a bucket and return its name; a new one when none is given."""
        bucket = name or f"bucket-{uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def make_user(self, bucket: str = "") -> S3User:
        """Make a user who may read and list one bucket and change nothing; without a bucket one without any rights."""
        name = f"user-{uuid4().hex[:12]}"
        user = _make_user(self.configuration, name)
        if bucket:
            policy = {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]},
                        "Action": ["s3:GetObject", "s3:ListBucket"],
                        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                    }
                ],
            }
            self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return user


@contextmanager
def radosgw(*, https: bool = False) -> Iterator[S3Server]:
    """Run a gateway that holds no bucket; with `https` there is an HTTPS endpoint too, of a private authority."""
    with tempfile.TemporaryDirectory(prefix="ceph-", ignore_cleanup_errors=True) as name, ExitStack() as servers:
        folder = Path(name)
        port, secure_port = free_port(), free_port() if https else 0
        endpoints = f"endpoint=127.0.0.1:{port} tcp_nodelay=1"
        ca_file = None
        if https:
            made = make_certificate(folder)
            endpoints += f" ssl_endpoint=127.0.0.1:{secure_port} ssl_certificate={made.both}"
            ca_file = made.ca_file
        configuration = start_cluster(folder, endpoints, servers)
        gateway = [ceph_program("radosgw"), "-f", "-n", "client.rgw.a", "-c", configuration]
        process = servers.enter_context(running(gateway, folder / "radosgw.out", patience=0))
        for each in (port, secure_port) if https else (port,):
            wait_for_port(each, process)
        owner = _make_user(configuration, "owner")
        secure_url = f"https://127.0.0.1:{secure_port}" if https else ""
        url = f"http://127.0.0.1:{port}"
        yield S3Server(url, owner.access_key, owner.secret_key, configuration, process, secure_url, ca_file)


def _make_user(configuration: Path, name: str) -> S3User:
    user = S3User(name, secrets.token_hex(10).upper(), secrets.token_hex(20))
    admin = [ceph_program("radosgw-admin"), "-c", configuration, "-n", "client.rgw.a"]
    keys = [f"--access-key={user.access_key}", f"--secret-key={user.secret_key}"]
    output_of([*admin, "user", "create", f"--uid={name}", f"--display-name={name}", *keys])
    return user
