"""Git URLs: which are paths, what may be written down of them, and what went wrong with them."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.file import FileLocked

from registree.errors import AuthError, Conflict, NotFound, RegError, StoreError
from registree.git.repository import GitRepository

if TYPE_CHECKING:
    from dulwich.client import GitClient

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
        text = " ".join(str(error).split())[:200]
        raise StoreError(
            f"{place} could not be reached: {text}", hint="--offline works with what is here", transient=True
        ) from None
    except Exception as error:
        if isinstance(error, _dulwich_client().HTTPUnauthorized):
            hint = f"check that this works: git ls-remote {place}"
            raise AuthError(f"{place} wants credentials", hint=hint) from None
        if type(error).__module__.startswith("urllib3"):
            text = " ".join(str(error).split())[:200]
            raise StoreError(
                f"{place} could not be reached: {text}", hint="--offline works with what is here", transient=True
            ) from None
        raise


def client_for(repository: GitRepository, url: str, operation: str) -> tuple[GitClient, str]:
    """Return dulwich's client for a URL, after the configuration's `insteadOf`, and the path on the other side."""
    found: tuple[GitClient, str] = _dulwich_client().get_transport_and_path(
        url, config=repository.dulwich.get_config_stack(), operation=operation, quiet=True
    )
    return found


def is_local_client(client: GitClient) -> bool:
    """Tell whether a client's other side is a repository of this machine."""
    return isinstance(client, _dulwich_client().LocalGitClient)


def _dulwich_client() -> Any:
    """The lazy door: what needs no other repository need not wait for this module."""
    return importlib.import_module("dulwich.client")
