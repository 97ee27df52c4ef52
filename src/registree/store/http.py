"""Objects published by any web server or CDN, read-only: ranges, redirects, proxies, credentials; never a listing."""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, NewConnectionError, ProxyError, SSLError
from urllib3.util import Retry, Timeout

from registree.errors import AuthError, InvalidInput, ObjectMissing, ReadOnly, StoreError
from registree.network import Credentials, Network, host_of, token_name
from registree.store.base import WHOLE_LIMIT, Sent, Store, check_whole, nobody
from registree.store.layout import redact

_CONNECT, _READ = 10.0, 30.0
"""Seconds to wait for a connection, and between two pieces of a body."""
_REDIRECTS = 5
_CONNECTIONS = 16
_PIECE = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
_GONE = (404, 410)
_LATER = (408, 425, 429, 500, 502, 503, 504)


class HttpStore(Store):
    """Objects below a URL.

    Credentials for its host come from ``REG_TOKEN_<HOST>`` (a token alone is a bearer's, ``user:password`` is basic
    authentication) or from netrc; a redirect to another host does not take them along.
    """

    writable = False

    def __init__(self, url: str, network: Network) -> None:
        self.address = redact(url)
        self._url = url.rstrip("/")
        self._network = network
        self._credentials = network.token(url) or network.netrc(url)
        try:
            tls = ssl.create_default_context(cafile=network.ca_file or None)
        except OSError as error:
            raise InvalidInput(
                f"the certificates in {network.ca_file} cannot be read ({error.strerror or error})",
                hint="check SSL_CERT_FILE, REQUESTS_CA_BUNDLE and REG_CA_FILE",
            ) from None
        settings: dict[str, Any] = {
            "headers": {"User-Agent": "registree", "Accept-Encoding": "identity", **_authorization(self._credentials)},
            "maxsize": _CONNECTIONS,
            "ssl_context": tls,
            "timeout": Timeout(connect=_CONNECT, read=_READ),
            "retries": Retry(  # who asks decides how long to wait, whatever the server wants
                total=_REDIRECTS, connect=0, read=0, other=0, redirect=_REDIRECTS, respect_retry_after_header=False
            ),
        }
        proxy = network.proxy(url)
        self._pool = _through(proxy, settings) if proxy else urllib3.PoolManager(**settings)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        if length == 0:
            return b""
        wanted = {} if length is None and not offset else {"Range": f"bytes={offset}-{_last(offset, length)}"}
        with self._asked("GET", key, wanted) as answer:
            if length is None:
                content = _take(answer, offset if answer.status != 206 else 0, WHOLE_LIMIT + 1)
                check_whole(len(content), key, self.address)
                self._check_length(answer, content, key, offset)
                return content
            total = self._check_range(answer, key, offset, length)
            content = _take(answer, offset if answer.status != 206 else 0, length)
        if len(content) < length:
            if total is not None and total < offset + length:
                raise ObjectMissing(key, self.address, shorter=True)
            raise self._strange(key, f"sent {len(content)} bytes of {length}")
        return content

    def _check_length(self, answer: urllib3.BaseHTTPResponse, content: bytes, key: str, offset: int) -> None:
        said = answer.headers.get("Content-Length", "")
        skipped = offset if answer.status != 206 else 0
        if said.isdigit() and int(said) - skipped != len(content):
            raise self._strange(key, f"sent {len(content)} bytes of {said}")

    def _check_range(self, answer: urllib3.BaseHTTPResponse, key: str, offset: int, length: int) -> int | None:
        """Return the object's size, where the server says it."""
        said = answer.headers.get("Content-Length", "")
        if answer.status != 206:  # a server that does not know ranges sends the whole object
            return int(said) if said.isdigit() else None
        found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != offset or int(found[2]) >= offset + length:
            raise self._strange(key, f"sent the range {answer.headers.get('Content-Range', 'none')!r}")
        return int(found[3]) if found[3] != "*" else None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        try:
            with self._asked("HEAD", key, {}) as answer:
                said = answer.headers.get("Content-Length", "")
                if said.isdigit():
                    return int(said)
        except ObjectMissing:
            return None
        except StoreError as error:
            if error.transient:
                raise
        try:  # a server without HEAD, or one that does not say how long things are
            with self._asked("GET", key, {"Range": "bytes=0-0"}) as answer:
                found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
                said = found[3] if found else answer.headers.get("Content-Length", "")
        except ObjectMissing:
            return None
        if not said.isdigit():
            raise self._strange(key, "does not say how long it is")
        return int(said)

    def write(self, key: str, content: bytes) -> None:
        """See `Store.write`."""
        raise self._read_only()

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """See `Store.upload`."""
        raise self._read_only()

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        raise self._read_only()

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """See `Store.keys`."""
        raise InvalidInput(f"{self.address} cannot be listed: HTTP has no listing")

    def _read_only(self) -> ReadOnly:
        return ReadOnly(f"{self.address} can only be read", hint="push to another remote: reg remote add NAME URL")

    def _strange(self, key: str, what: str) -> StoreError:
        return StoreError(f"{self.address}: the server {what} of {key}", hint=_AGAIN, transient=True)

    @contextmanager
    def _asked(self, method: str, key: str, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        url = f"{self._url}/{quote(key)}"
        try:
            answer = self._pool.request(
                method, url, headers={**self._pool.headers, **headers}, preload_content=False, decode_content=False
            )
            try:
                self._check_status(answer, key)
                yield answer
            finally:
                if answer.length_remaining == 0:
                    answer.drain_conn()  # reads the end of what has no more, so that the connection can be used again
                    answer.release_conn()
                else:
                    answer.close()
        except (HTTPError, OSError) as error:
            raise self._unreached(error, key) from None

    def _check_status(self, answer: urllib3.BaseHTTPResponse, key: str) -> None:
        status = answer.status
        if status in (200, 206):
            return
        if status in _GONE:
            raise ObjectMissing(key, self.address)
        if status == 416:
            raise ObjectMissing(key, self.address, shorter=True)
        if status in (401, 403, 407):
            host = host_of(self._url)
            source = self._credentials.source if self._credentials is not None else ""
            wrong = f" with the credentials of {source}" if source else ", and there are no credentials for it"
            raise AuthError(
                f"{self.address} refused {key} (HTTP {status}){wrong}",
                hint=f"set {token_name(host)} to a token or USER:PASSWORD, or name {host} in ~/.netrc",
            )
        raise StoreError(
            f"{self.address} answered HTTP {status} for {key}",
            hint=_AGAIN if status in _LATER else "check the URL: reg remote list",
            transient=status in _LATER,
        )

    def _unreached(self, error: HTTPError | OSError, key: str) -> StoreError:
        reason = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
        if isinstance(error, ProxyError) or isinstance(reason, ProxyError):
            proxy = redact(self._network.proxy(self._url) or "")
            return StoreError(
                f"the proxy {proxy} for {self.address} could not be reached or refused",
                hint="check https_proxy, http_proxy and no_proxy",
                transient=True,
                unreachable=True,
            )
        if isinstance(reason, SSLError):
            return StoreError(
                f"{self.address}: the server's certificate is not trusted ({_text(reason)})",
                hint="name the authority's certificate: export SSL_CERT_FILE=/path/to/ca.pem",
            )
        return StoreError(
            f"{self.address} could not be reached for {key}: {_text(reason)}",
            hint="check the URL: reg remote list" if isinstance(reason, LocationParseError) else _AGAIN,
            transient=not isinstance(reason, LocationParseError),
            unreachable=isinstance(reason, NewConnectionError),
        )


_AGAIN = "run it again: it goes on where it stopped"


def _through(proxy: str, settings: dict[str, Any]) -> urllib3.ProxyManager:
    """Make connections through a proxy, whose own user and password go to it alone."""
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = None
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=user)
    address = parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]).geturl()
    return urllib3.ProxyManager(address, proxy_headers=headers, **settings)


def _last(offset: int, length: int | None) -> str:
    return str(offset + length - 1) if length is not None else ""


def _take(answer: urllib3.BaseHTTPResponse, skip: int, length: int) -> bytes:
    """Read at most `length` bytes of a body after `skip` bytes; memory is taken for what comes, not what is said."""
    while skip:
        piece = answer.read(min(skip, _PIECE))
        if not piece:
            return b""
        skip -= len(piece)
    content = bytearray()
    while len(content) < length and (piece := answer.read(min(length - len(content), _PIECE))):
        content += piece
    return bytes(content)


def _authorization(found: Credentials | None) -> dict[str, str]:
    if found is None:
        return {}
    if not found.user:
        if not found.secret.isascii():
            raise InvalidInput(f"the token from {found.source} has characters that no header can hold")
        return {"Authorization": f"Bearer {found.secret}"}
    return {"Authorization": "Basic " + b64encode(f"{found.user}:{found.secret}".encode()).decode()}


def _text(error: object) -> str:
    return " ".join(str(error).split()).rsplit(": ", 1)[-1][:200]
