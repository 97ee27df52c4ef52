"""nginx over a folder, as web servers of companies are: plain, with passwords, with tokens, with redirects, with Git.

The same places are served over HTTP and over HTTPS, the latter with a certificate of a private authority.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen
from uuid import uuid4

from tests.servers.certificates import make_certificate
from tests.servers.git_servers import free_port, wait_for_port
from tests.servers.processes import output_of, program, running

USER = "reader"
_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {own}/nginx.pid;
error_log {own}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    default_type application/octet-stream;
    log_format asked '$request_method $request_uri $status $body_bytes_sent';
    access_log {own}/access.log asked;
    client_body_temp_path {own}/body;
    proxy_temp_path {own}/proxy;
    fastcgi_temp_path {own}/fastcgi;
    uwsgi_temp_path {own}/uwsgi;
    scgi_temp_path {own}/scgi;
    client_max_body_size 0;
    map $http_authorization $has_token {{ default 0; "Bearer {token}" 1; }}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{secure_port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location /asked/ {{ return 204; }}
        location /plain/ {{ alias {folder}/; }}
        location /private/ {{ alias {folder}/; auth_basic "files"; auth_basic_user_file {own}/passwords; }}
        location /token/ {{
            alias {folder}/;
            if ($has_token = 0) {{ return 401; }}
        }}
        location ~ ^/moved/(.*)$ {{ return 302 $scheme://$http_host/plain/$1; }}
        location ~ ^/git(/.*)$ {{
            auth_basic "git";
            auth_basic_user_file {own}/passwords;
            fastcgi_pass unix:{own}/fcgi.sock;
            fastcgi_param SCRIPT_FILENAME {backend};
            fastcgi_param PATH_INFO $1;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param REMOTE_USER $remote_user;
            fastcgi_param REMOTE_ADDR $remote_addr;
            fastcgi_param GIT_PROTOCOL $http_git_protocol;
            fastcgi_param GIT_PROJECT_ROOT {repositories};
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param GIT_CONFIG_NOSYSTEM 1;
            fastcgi_param HOME {own};
        }}
    }}
}}
"""


class Asked(NamedTuple):
    """A request that was answered; `size` is the answer's body in bytes."""

    method: str
    path: str
    status: int
    size: int


@dataclass(frozen=True)
class WebServer:
    """A running nginx. Below `url` and `secure_url` lie ``/plain``, ``/private``, ``/token``, ``/moved`` and ``/git``.

    ``/private`` and ``/git`` want the password of the user ``reader``, ``/token`` wants ``Authorization: Bearer`` with
    the token, ``/moved`` redirects to ``/plain``. `repositories` is the folder of bare repositories behind ``/git``.
    """

    url: str
    secure_url: str
    ca_file: Path
    access_log: Path
    repositories: Path
    password: str
    token: str

    def asked(self) -> list[Asked]:
        """Return the requests so far, in the order in which they were answered."""
        mark = f"/asked/{uuid4().hex}"
        urlopen(self.url + mark, timeout=10).close()  # the one worker writes of it after all others
        deadline = time.monotonic() + 10
        while mark not in (text := self.access_log.read_text()):
            assert time.monotonic() < deadline, f"{mark} is not in {self.access_log}"
        rows = [line.split() for line in text.splitlines()]
        return [Asked(row[0], row[1], int(row[2]), int(row[3])) for row in rows if not row[1].startswith("/asked/")]

    def counts(self) -> Counter[tuple[str, str]]:
        """Count the requests by method and path (without the query)."""
        return Counter((row.method, row.path.split("?")[0]) for row in self.asked())

    def forget(self) -> None:
        """Count from zero."""
        self.asked()
        os.truncate(self.access_log, 0)


@contextmanager
def nginx(
    folder: Path, *, repositories: Path | None = None, password: str = "open-sesame", token: str = "a-long-token"
) -> Iterator[WebServer]:
    """Serve a folder's files, and bare repositories of another folder (a new one when none is given)."""
    with tempfile.TemporaryDirectory(prefix="web-", ignore_cleanup_errors=True) as name, ExitStack() as servers:
        own = Path(name)
        served = repositories or own / "repositories"
        served.mkdir(exist_ok=True)
        made = make_certificate(own)
        port, secure_port = free_port(), free_port()
        (own / "passwords").write_text(f"{USER}:{{PLAIN}}{password}\n")
        configuration = own / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                own=own,
                folder=folder,
                repositories=served,
                port=port,
                secure_port=secure_port,
                certificate=made.certificate,
                key=made.key,
                token=token,
                user="user root;" if os.geteuid() == 0 else "",
                backend=Path(output_of(["git", "--exec-path"]).strip()) / "git-http-backend",
            )
        )
        gateway = [program("fcgiwrap", "fcgiwrap"), "-c", "4", "-s", f"unix:{own}/fcgi.sock"]
        servers.enter_context(running(gateway, own / "fcgiwrap.out"))
        command = [program("nginx", "nginx-light"), "-e", own / "error.log", "-p", own, "-c", configuration]
        process = servers.enter_context(running(command, own / "nginx.out"))
        for each in (port, secure_port):
            wait_for_port(each, process)
        yield WebServer(
            f"http://127.0.0.1:{port}",
            f"https://127.0.0.1:{secure_port}",
            made.ca_file,
            own / "access.log",
            served,
            password,
            token,
        )
