"""Credentials for Git over HTTP, in the order in which they are tried; a secret goes to its own host alone.

First what is named for the host (``REG_TOKEN_<HOST>``, the CI system's own token); when the server refuses, what
``git credential`` knows, then netrc, then a question on the terminal. See gitcredentials(7) for the helper's protocol.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import unquote, urlsplit

import msgspec

from registree.errors import StateError
from registree.network import Credentials, Network, Origin, host_of

Ask = Callable[[str, bool], str]
"""Asks a person one question; True when the answer is a secret and must not be shown."""
_HELPER_SECONDS = 60


class Access(msgspec.Struct, frozen=True):
    """What stands behind a connection to another repository: the network, and a person to ask, if there is one."""

    network: Network = msgspec.field(default_factory=Network)
    ask: Ask | None = None

    def named(self, url: str) -> Credentials | None:
        """Return what the environment names for the host of a URL."""
        return self.network.token(url) or self.network.ci_token(url)

    def others(self, url: str, folder: str) -> Iterator[Credentials]:
        """Yield what else may open a URL that was refused, one after the other.

        Parameters
        ----------
        folder
            The repository whose configuration says which helper is asked.
        """
        yield from self.without_asking(url, folder)
        if self.ask is not None:
            user = _user_of(url) or self.ask(f"User name for {host_of(url)}: ", False)
            yield Credentials(user, self.ask(f"Password or token of {user}: ", True), Origin.PROMPT, "prompt")

    def without_asking(self, url: str, folder: str) -> Iterator[Credentials]:
        """Yield what a helper and netrc know."""
        helped = self.helper(url, folder)
        if helped is not None:
            yield helped
        noted = self.network.netrc(url)
        if noted is not None:
            yield noted

    def helper(self, url: str, folder: str) -> Credentials | None:
        """Return what ``git credential fill`` knows without asking anybody; None where there is no `git`."""
        answer = self._git_credential("fill", _described(url), folder)
        fields = dict(row.split("=", 1) for row in answer.splitlines() if "=" in row)
        if not fields.get("password"):
            return None
        return Credentials(fields.get("username", ""), fields["password"], Origin.HELPER, "git credential")

    def settle(self, url: str, found: Credentials, folder: str, *, accepted: bool) -> None:
        """Tell the helper whether credentials were right, so that it keeps or forgets them."""
        if found.origin in (Origin.HELPER, Origin.PROMPT):
            described = {**_described(url), "username": found.user, "password": found.secret}
            self._git_credential("approve" if accepted else "reject", described, folder)

    def _git_credential(self, action: str, described: dict[str, str], folder: str) -> str:
        program = shutil.which("git", path=self.network.environment.get("PATH"))
        if program is None:
            return ""
        if any("\n" in value or "\0" in value for value in described.values()):
            raise StateError("a URL with a newline in it has no credentials")
        try:
            done = subprocess.run(  # noqa: S603 -- git itself, and no shell
                [program, "credential", action],
                input="".join(f"{name}={value}\n" for name, value in described.items()) + "\n",
                env={**self.network.environment, "GIT_TERMINAL_PROMPT": "0"},
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_HELPER_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""


def _described(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    found = {"protocol": parts.scheme, "host": host_of(url), "path": parts.path.lstrip("/")}
    return {**found, "username": _user_of(url)} if _user_of(url) else found


def _user_of(url: str) -> str:
    return unquote(urlsplit(url).username or "")
