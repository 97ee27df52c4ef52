"""S3 through s3fs: the client that always works."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from registree.errors import ObjectMissing, RegError
from registree.network import Network
from registree.store.base import Sent, nobody
from registree.store.layout import redact
from registree.store.remote import FsspecStore
from registree.store.s3 import SINGLE_UP_TO, UPLOADS_AT_ONCE, Bucket, S3Options, authorities, causes, explained_size

_PART = 16 << 20
_PARTS_AT_ONCE = 2


class S3fsStore(FsspecStore):
    """Objects under a prefix of a bucket."""

    def __init__(self, url: str, options: Mapping[str, Any], network: Network) -> None:
        parsed = S3Options.parse(options, redact(url))
        super().__init__(url, _filesystem_options(parsed, network))
        self._fs.retries = 1
        self._bucket = Bucket(self.address, parsed.profile or network.aws_profile)
        self._uploads = threading.BoundedSemaphore(UPLOADS_AT_ONCE)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        try:
            return super().read(key, offset, length)
        except ObjectMissing as error:
            if error.shorter and length is None and not offset and self.size(key) == 0:
                return b""  # an empty object has no range to be asked for
            raise

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        return explained_size(lambda: super(S3fsStore, self).size(key), lambda: self.read(key, 0, 1))

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """See `Store.upload`."""
        with self._uploads, self._translated(key):
            whole = os.stat(path).st_size <= SINGLE_UP_TO  # s3fs sends up to two parts' size as one request
            self._put(
                self._path(key),
                path,
                sent,
                chunksize=SINGLE_UP_TO // 2 if whole else _PART,
                max_concurrency=_PARTS_AT_ONCE,
            )

    def _make_parent(self, key: str) -> None:
        """A bucket has no folders."""

    def _failed(self, error: Exception, key: str) -> RegError:
        for found in causes(error):  # s3fs turns the SDK's error into one of the system's, and keeps it as the cause
            answer = getattr(found, "response", None)
            if isinstance(answer, Mapping) and "Error" in answer:
                code = str(answer["Error"].get("Code", ""))
                status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                return self._bucket.failed(error, key, code=code, status=status)
        if isinstance(error, FileNotFoundError) and error.filename is None:
            return self._bucket.failed(error, key, status=404)
        return self._bucket.failed(error, key, status=403 if isinstance(error, PermissionError) else 0)


def _filesystem_options(options: S3Options, network: Network) -> dict[str, Any]:
    """Turn the options of a bucket into those of s3fs; retries are ours, so that none is done twice."""
    extra = {"ServerSideEncryption": options.sse, "SSEKMSKeyId": options.sse_kms_key_id}
    client = {
        "region_name": options.region or network.environment.get("AWS_REGION", ""),
        "verify": authorities(network),
    }
    named = {"endpoint_url": options.endpoint_url, "profile": options.profile}
    return {
        "anon": options.anonymous,
        "requester_pays": options.requester_pays,
        "s3_additional_kwargs": {name: value for name, value in extra.items() if value},
        "client_kwargs": {name: value for name, value in client.items() if value},
        "config_kwargs": {
            "s3": {"addressing_style": options.addressing},
            "connect_timeout": 10,
            "read_timeout": 30,
            "retries": {"mode": "standard", "total_max_attempts": 2},
            # the checksums that newer SDKs add by default are not understood by many S3-compatible servers
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        **{name: value for name, value in named.items() if value},
    }
