"""Git URLs: which are paths, what may be written down of them, and what went wrong with them."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_SCP = re.compile(r"(?!/)(?:[\w.-]+@)?[\w.-]+:(?!//)")


def is_local_url(url: str) -> bool:
    """Tell whether a Git URL is a path of this machine."""
    return url.startswith("file://") or ("://" not in url and (os.path.exists(url) or not _SCP.match(url)))


def strip_credentials(url: str) -> str:
    """Return a URL without a password in it, fit to be written down (ssh keeps its user name)."""
    if url.startswith(("http://", "https://")):
        return re.sub(r"^(https?://)[^/@]*@", r"\1", url)
    return re.sub(r"^(\w+://[^/@:]*):[^/@]*@", r"\1@", url)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what goes wrong with a Git URL into one sentence about it, without secrets."""
    place = strip_credentials(url)
    try:
        yield
    except RegError:
        raise
    except FileLocked as error:
        raise Conflict(
            f"another program holds {os.fsdecode(error.lockfilename)}", hint="wait for it to end, then run it again"
        ) from None
    except NotGitRepository:
        raise NotFound(f"there is no Git repository at {place}", hint="check the URL: git ls-remote " + place) from None
    except HangupException as error:
        lines = [line.decode(errors="replace").strip() for line in (error.stderr_lines or [])]
        text = next((line for line in reversed(lines) if line), "the connection was closed")
        if "denied" in text.lower() or "publickey" in text.lower():
            raise AuthError(f"{place}: {text}", hint=f"check that this works: git ls-remote {place}") from None
        raise StoreError(
            f"{place}: {text}", hint=f"check that this works: git ls-remote {place}", transient=True
        ) from None
    except (GitProtocolError, OSError) as error:
        text = " ".join(str(error).replace(url, place).split())[:200]
        if "http resp 403" in text:
            raise AuthError(
                f"{place} refused it to these credentials (HTTP 403)", hint="reg auth status says which they are"
            ) from None
        raise StoreError(
            f"{place} could not be reached: {text}", hint="--offline works with what is here", transient=True
        ) from None
    except Exception as error:
        if isinstance(error, _dulwich_client().HTTPUnauthorized):
            raise AuthError(
                f"{place} wants credentials, or other ones than it got",
                hint=f"set {token_name(host_of(url))} to a token, or see that this works: git ls-remote {place}",
            ) from None
        if type(error).__module__.startswith("urllib3"):
            text = " ".join(str(error).replace(url, place).split())[:200]
            raise StoreError(
                f"{place} could not be reached: {text}", hint="--offline works with what is here", transient=True
            ) from None
        raise


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
    config = repository.dulwich.get_config_stack()
    place = client.apply_instead_of(config, url, push=operation == "push")
    is_http = place.startswith(("http://", "https://"))
    given = is_http and urlsplit(place).password is not None

    def attempt(found: Credentials | None) -> _Result:
        options = {"username": found.user or "x-access-token", "password": found.secret} if found is not None else {}
        return act(
            *client.get_transport_and_path(
                url, config=_with_network(config, place, access.network), operation=operation, quiet=True, **options
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
    """Add the authorities and the proxy of the environment, where Git's own configuration does not name any."""
    added = ConfigFile()
    ca_file = network.environment.get("GIT_SSL_CAINFO") or network.ca_file
    if ca_file:
        added.set((b"http",), b"sslCAInfo", os.fsencode(ca_file))
    proxy = network.proxy(url)
    if proxy:
        added.set((b"http",), b"proxy", proxy.encode())
    return StackedConfig([*config.backends, added])


def is_local_client(client: GitClient) -> bool:
    """Tell whether a client's other side is a repository of this machine."""
    return isinstance(client, _dulwich_client().LocalGitClient)


def _dulwich_client() -> Any:
    """The lazy door: what needs no other repository need not wait for this module."""
    return importlib.import_module("dulwich.client")
