"""How this machine reaches the network: proxies, certificates, and which credentials belong to which host.

The environment is read by whoever makes a `Network`. A token is given to the host it is named for and to no other.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from urllib.parse import urlsplit

import msgspec

from registree.errors import FormatError

_ESCAPES = {".": "_", "-": "__", ":": "___", "_": "_____", "[": "", "]": ""}
_CA_FILES = ("REG_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Origin(Enum):
    """Where credentials came from, as a person would say it."""

    VARIABLE = "environment"
    CI = "CI system"
    HELPER = "git credential"
    NETRC = "netrc"
    PROMPT = "prompt"


class Credentials(msgspec.Struct, frozen=True):
    """A user name and a secret for one host; `source` names where they came from, and is safe to show."""

    user: str
    secret: str
    origin: Origin
    source: str

    def __repr__(self) -> str:
        """Show where they come from, and no secret."""
        return f"Credentials({self.user!r} from {self.source})"


class Network(msgspec.Struct, frozen=True):
    """What an environment says about the network.

    Attributes
    ----------
    ca_file
        Certificates of authorities to trust, in place of the system's; empty for the system's.
    aws_profile
        The profile that the cloud's own tools would take.
    """

    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    ca_file: str = ""
    aws_profile: str = "default"

    def __repr__(self) -> str:
        """Show nothing of the environment, where secrets are."""
        return f"Network(ca_file={self.ca_file!r}, aws_profile={self.aws_profile!r})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Network:
        """Return the network that an environment describes."""
        ca_file = next((environment[name] for name in _CA_FILES if environment.get(name)), "")
        return cls(dict(environment), ca_file, environment.get("AWS_PROFILE") or "default")

    def proxy(self, url: str) -> str | None:
        """Return the proxy for a URL (``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``); None for none."""
        import urllib.request  # noqa: PLC0415 -- it brings HTTP along, 20 ms

        parts = urlsplit(url)
        host = parts.netloc.rsplit("@", 1)[-1]
        if urllib.request.proxy_bypass_environment(host, {"no": self._proxy_variable("no")}):  # type: ignore[attr-defined]
            return None
        return self._proxy_variable(parts.scheme) or self._proxy_variable("all") or None

    def _proxy_variable(self, name: str) -> str:
        """Return a variable in lower case, empty ones too, before the same in upper case, as curl does."""
        lower = self.environment.get(f"{name}_proxy")
        if lower is not None:
            return lower
        return "" if name == "http" and self._is_cgi else self.environment.get(f"{name.upper()}_PROXY", "")

    @property
    def _is_cgi(self) -> bool:
        """In a CGI process ``HTTP_PROXY`` is a header of the request (https://httpoxy.org)."""
        return "REQUEST_METHOD" in self.environment

    def credentials(self, url: str) -> Credentials | None:
        """Return what the environment and netrc hold for the host of a URL, in that order.

        Raises
        ------
        FormatError
            When netrc is malformed.
        """
        return self.token(url) or self.ci_token(url) or self.netrc(url)

    def token(self, url: str) -> Credentials | None:
        """Return the token named for a host: ``REG_TOKEN_GIT_EXAMPLE_ORG``; ``user:secret`` names the user too."""
        host = host_of(url)
        for name in dict.fromkeys((token_name(host), token_name(host.rsplit(":", 1)[0]))):
            value = self._secret(name)
            if value:
                user, colon, secret = value.partition(":")
                return Credentials(user if colon else "", secret if colon else value, Origin.VARIABLE, name)
        return None

    def _secret(self, name: str) -> str:
        """Return a variable that holds a secret, without the line's end that a file gave it.

        Raises
        ------
        FormatError
            When no header can hold it.
        """
        value = self.environment.get(name, "").strip()
        if not value.isprintable():
            raise FormatError(f"{name} has characters in it that no token has", hint="only its value belongs there")
        return value

    def ci_token(self, url: str) -> Credentials | None:
        """Return the CI system's own token, for its own host alone."""
        host = host_of(url)
        for server, name, user in (
            ("GITHUB_SERVER_URL", "GITHUB_TOKEN", "x-access-token"),
            ("CI_SERVER_URL", "CI_JOB_TOKEN", "gitlab-ci-token"),
            ("SYSTEM_COLLECTIONURI", "SYSTEM_ACCESSTOKEN", "build"),
        ):
            if host and host == host_of(self.environment.get(server, "")):
                value = self._secret(name)
                if value:
                    return Credentials(user, value, Origin.CI, name)
        return None

    def netrc(self, url: str) -> Credentials | None:
        """Return what ``~/.netrc`` (or ``NETRC``) holds for a host; its ``default`` entry is not for this."""
        home = self.environment.get("HOME") or os.path.expanduser("~")
        path = self.environment.get("NETRC") or os.path.join(home, ".netrc")
        try:
            found = netrc.netrc(path).hosts.get(host_of(url).rsplit(":", 1)[0])
        except OSError:
            return None
        except netrc.NetrcParseError as error:  # its message quotes the file, and so perhaps the secret
            raise FormatError(f"{path} is malformed at line {error.lineno}") from None
        except UnicodeDecodeError:
            raise FormatError(f"{path} is not UTF-8") from None
        if found is None or not found[2]:
            return None
        return Credentials(found[0] or "", found[2], Origin.NETRC, path)


def host_of(url: str) -> str:
    """Return the host of a URL in lower case, with its port when one is given, without a user."""
    return urlsplit(url).netloc.rsplit("@", 1)[-1].lower()


def token_name(host: str) -> str:
    """Return the name of the environment variable that holds a host's token; no two hosts share one.

    A dot is ``_``, a hyphen ``__``, the colon before a port ``___``, an underscore ``_____``; what is not ASCII is
    written as in the domain name system.

    >>> token_name("git.my-corp.org:8443")
    'REG_TOKEN_GIT_MY__CORP_ORG___8443'
    """
    with suppress(UnicodeError):
        host = host.encode("idna").decode()
    return "REG_TOKEN_" + "".join(_ESCAPES.get(character, character) for character in host.upper())
