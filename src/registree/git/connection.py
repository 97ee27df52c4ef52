"""Git URLs: which are paths, what may be written down of them, and what went wrong with them."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from dulwich.config import ConfigFile, StackedConfig
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.file import FileLocked

from registree.errors import AuthError, Conflict, NotFound, RegError, StoreError
from registree.git.credentials import Access
from registree.git.repository import GitRepository
from registree.network import Credentials, Network, host_of, token_name

if TYPE_CHECKING:
    from dulwich.client import GitClient

_Result = TypeVar("_Result")
_NO_REPOSITORY = ("does not appear to be a git repository", "repository not exported", "repository not found")
_SSH_REFUSED = ("permission denied", "publickey", "host key verification failed", "access denied")
_PATIENCE = 300
"""Seconds until a web server's silence counts as its end, unless dulwich's `http.timeout` says otherwise."""
_SCP = re.compile(r"(?!/)(?:[\w.-]+@)?[\w.-]+:(?!//)")


def is_local_url(url: str) -> bool:
    """Tell whether a Git URL is a path of this machine."""
    return url.startswith("file://") or ("://" not in url and (os.path.exists(url) or not _SCP.match(url)))


def strip_credentials(url: str) -> str:
    """Return a URL without a password in it, fit to be written down (ssh keeps its user name)."""
    if url.startswith(("http://", "https://")):
        return re.sub(r"^(https?://)[^/?#]*@", r"\1", url)
    return re.sub(r"^(\w[\w+]*://[^/?#@:]*):[^/?#]*@", r"\1@", url)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what goes wrong with a Git URL into one sentence about it, without secrets."""
    try:
        yield
    except RegError:
        raise
    except FileLocked as error:
        raise Conflict(
            f"another program holds {os.fsdecode(error.lockfilename)}", hint="wait for it to end, then run it again"
        ) from None
    except Exception as error:
        found = _explained(error, url)
        if found is None:
            raise
        raise found from None


def _explained(error: Exception, url: str) -> RegError | None:
    """Say what an error of dulwich's or of a transport's means for a URL; None for an error of another kind."""
    place = strip_credentials(url)
    check = f"see that this works: git ls-remote {place}"
    if isinstance(error, HangupException):
        rows = [line.decode(errors="replace").strip() for line in (error.stderr_lines or [])]
        text = next((row for row in reversed(rows) if row and not row.startswith("Please make sure")), "")
        text = next((row for row in rows if "fatal:" in row or "ERR" in row), text) or "the connection was closed"
    else:
        text = " ".join(str(error).replace(url, place).split())
    lower = text.lower()
    if isinstance(error, NotGitRepository) or any(words in lower for words in _NO_REPOSITORY):
        return NotFound(f"there is no Git repository at {place}", hint=f"check the URL: git ls-remote {place}")
    if isinstance(error, _dulwich_client().HTTPUnauthorized):
        return AuthError(
            f"{place} wants credentials, or other ones than it got",
            hint=f"set {token_name(host_of(url))} to a token, or {check}",
        )
    if "http resp 403" in lower:
        return AuthError(
            f"{place} refused it to these credentials (HTTP 403)", hint="reg auth status says which they are"
        )
    if any(words in lower for words in _SSH_REFUSED):
        return AuthError(f"{place}: {text[:200]}", hint=check)
    if "certificate_verify_failed" in lower or "certificate verify failed" in lower:
        return StoreError(
            f"{place}: the server's certificate is not trusted",
            hint="name its authority's: git config --global http.sslCAInfo FILE, or export SSL_CERT_FILE=FILE",
        )
    if isinstance(error, FileNotFoundError) and error.filename in ("ssh", b"ssh"):
        return StoreError(f"{place} needs ssh, which is not installed", hint="apt-get install openssh-client")
    if isinstance(error, HangupException):
        return StoreError(f"{place}: {text[:200]}", hint=check, transient=True)
    if isinstance(error, GitProtocolError | OSError) or type(error).__module__.startswith("urllib3"):
        return StoreError(
            f"{place} could not be reached: {text[:200]}", hint="--offline works with what is here", transient=True
        )
    if isinstance(error, ValueError | KeyError | EOFError | zlib.error) or type(error).__module__.startswith("dulwich"):
        return StoreError(
            f"{place} sent what is not Git's protocol or was damaged on its way ({text[:100]})",
            hint=f"run it again, or {check}",
            transient=True,
        )
    return None


def connected(
    repository: GitRepository, url: str, operation: str, access: Access, act: Callable[[GitClient, str], _Result]
) -> _Result:
    """Do something with dulwich's client for a URL, and again with other credentials when the server refuses.

    Parameters
    ----------
    operation
        ``pull`` or ``push``: the configuration's `insteadOf` or `pushInsteadOf` is applied.
    act
        Is given the client and the path on the other side.

    Raises
    ------
    AuthError, NotFound, StoreError
        When it wants other credentials, is not there, or cannot be reached.
    """
    client = _dulwich_client()
    network = access.network
    config = repository.dulwich.get_config_stack()
    place = client.apply_instead_of(config, url, push=operation == "push")
    is_http = place.startswith(("http://", "https://"))
    given = is_http and urlsplit(place).password is not None

    def attempt(found: Credentials | None) -> _Result:
        options: dict[str, str | None] = {}
        if found is not None:
            options = {"username": found.user or "x-access-token", "password": found.secret}
        if not is_http:
            options["ssh_command"] = _ssh_command(network.environment)
        return act(
            *client.get_transport_and_path(
                url, config=_with_network(config, place, network), operation=operation, quiet=True, **options
            )
        )

    with translated(place):
        try:
            return attempt(access.named(place) if is_http and not given else None)
        except client.HTTPUnauthorized:
            for found in access.others(place, repository.root):
                try:
                    result = attempt(found)
                except client.HTTPUnauthorized:
                    access.settle(place, found, repository.root, accepted=False)
                else:
                    access.settle(place, found, repository.root, accepted=True)
                    return result
            raise


def _with_network(config: StackedConfig, url: str, network: Network) -> StackedConfig:
    """Put what the environment says before Git's configuration: settings, authorities, the proxy."""
    first = ConfigFile()
    for name, value in _environment_settings(network.environment):
        section, _, setting = name.rpartition(".")
        kind, _, subsection = section.partition(".")
        first.set((kind.encode(), *([subsection.encode()] if subsection else [])), setting.encode(), value.encode())
    own = (b"http", url.encode())  # the most specific section: it goes before all others
    if network.environment.get("GIT_SSL_NO_VERIFY"):
        first.set(own, b"sslVerify", b"false")
    if network.environment.get("GIT_SSL_CAINFO"):
        first.set(own, b"sslCAInfo", os.fsencode(network.environment["GIT_SSL_CAINFO"]))
    elif network.ca_file and not _names_authorities(config):
        first.set(own, b"sslCAInfo", os.fsencode(network.ca_file))
    first.set(own, b"timeout", str(_PATIENCE).encode())  # of this the least specific section that has one is taken
    proxy = network.proxy(url)
    if proxy:
        first.set(own, b"proxy", proxy.encode())
    return StackedConfig([first, *config.backends])


def _names_authorities(config: StackedConfig) -> bool:
    for section in config.sections():
        if section[0] == b"http":
            with suppress(KeyError):
                return bool(config.get(section, b"sslCAInfo"))
    return False


def _environment_settings(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what ``GIT_CONFIG_COUNT`` and its like set (git-config(1))."""
    count = environment.get("GIT_CONFIG_COUNT", "0")
    for index in range(int(count) if count.isdigit() else 0):
        name = environment.get(f"GIT_CONFIG_KEY_{index}", "")
        if "." in name:
            yield name, environment.get(f"GIT_CONFIG_VALUE_{index}", "")


def _ssh_command(environment: Mapping[str, str]) -> str | None:
    if environment.get("GIT_SSH_COMMAND"):
        return environment["GIT_SSH_COMMAND"]
    return shlex.quote(environment["GIT_SSH"]) if environment.get("GIT_SSH") else None


def is_local_client(client: GitClient) -> bool:
    """Tell whether a client's other side is a repository of this machine."""
    return isinstance(client, _dulwich_client().LocalGitClient)


def _dulwich_client() -> Any:
    """The lazy door: what needs no other repository need not wait for this module."""
    return importlib.import_module("dulwich.client")
