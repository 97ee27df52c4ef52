"""S3, whichever client speaks it: the options of a bucket, and what its errors mean."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from registree.errors import AuthError, InvalidInput, ObjectMissing, RegError, StoreError
from registree.network import Network

SINGLE_UP_TO = 100 << 20
"""A file of at most this many bytes is one request; a larger one goes up in parts."""
UPLOADS_AT_ONCE = 3
"""Uploads in flight: each may hold a pack in memory."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"\b(?:status(?: code)?:?|HTTP) (\d{3})\b")
_EXPIRED = frozenset(
    ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired")
)
_WRONG = frozenset(("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure"))
_ELSEWHERE = frozenset(("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"))
_CERTIFICATE = ("certificate_verify_failed", "certificate verify failed", "invalid peer certificate", "unknownissuer")
_SKEWED = frozenset(("RequestTimeTooSkewed", "RequestInTheFuture"))
_LATER = frozenset(("SlowDown", "Throttling", "RequestTimeout", "InternalError", "ServiceUnavailable", "BadDigest"))
_SDK = frozenset(
    (
        "ConfigNotFound", "ConfigParseError", "CredentialRetrievalError", "InvalidConfigError", "NoCredentialsError",
        "PartialCredentialsError", "ProfileNotFound", "SSOError", "SSOTokenLoadError", "TokenRetrievalError",
        "UnauthorizedSSOTokenError", "UnknownCredentialError", "InfiniteLoopConfigError",
    )
)  # fmt: skip
_UNREACHABLE = (
    "EndpointConnection",
    "ConnectTimeout",
    "ClientConnector",
    "onnection refused",
    "dns error",
    "tcp connect",
)


class S3Options(msgspec.Struct, frozen=True):
    """What stands beside the URL of a bucket in `reg.yaml`; everything else is the SDK's own business.

    Attributes
    ----------
    addressing
        ``path``, ``virtual`` or ``auto``.
    sse
        Server-side encryption of what is written: ``AES256`` or ``aws:kms``.
    """

    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    addressing: str = "auto"
    anonymous: bool = False
    requester_pays: bool = False
    sse: str = ""
    sse_kms_key_id: str = ""

    @classmethod
    def parse(cls, options: Mapping[str, Any], address: str) -> S3Options:
        """Read the options of a remote.

        Raises
        ------
        InvalidInput
            For an option that there is not, or a value that it cannot have.
        """
        known = {field.name: field.type for field in msgspec.structs.fields(cls)}
        for name, value in options.items():
            if name not in known:
                raise InvalidInput(f"{address} has no option {name!r}", hint=f"there are {', '.join(known)}")
            is_flag = known[name] is bool
            if not isinstance(value, bool if is_flag else str):
                hint = "it is true or false" if is_flag else "it is a text"
                raise InvalidInput(f"option {name} of {address} cannot be {value!r}", hint=hint)
        found = cls(**options)
        if found.addressing not in ("auto", "path", "virtual"):
            raise InvalidInput(
                f"option addressing of {address} cannot be {found.addressing!r}", hint="it is auto, path or virtual"
            )
        if found.sse not in ("", "AES256", "aws:kms", "aws:kms:dsse"):
            raise InvalidInput(f"option sse of {address} cannot be {found.sse!r}", hint="it is AES256 or aws:kms")
        if found.endpoint_url and not found.endpoint_url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"option endpoint_url of {address} is no URL: {found.endpoint_url!r}",
                hint="it starts with https:// or http://",
            )
        return found


class Bucket(msgspec.Struct, frozen=True):
    """What an error names: the store, and the profile whose credentials were used."""

    address: str
    profile: str

    def failed(self, error: BaseException, key: str, *, code: str = "", status: int = 0) -> RegError:
        """Say what went wrong with an object.

        Parameters
        ----------
        code
            The server's own word for it (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html);
            empty to look for it in the text.
        status
            The HTTP status; 0 to look for it in the text.
        """
        text = _whole_text(error)
        code = code or (found[1] if (found := _CODE.search(text)) else "")
        status = status or (int(found[1]) if (found := _STATUS.search(text)) else 0)
        login = f"aws sso login --profile {self.profile} (or renew the keys: aws configure --profile {self.profile})"
        if code in _EXPIRED:
            return AuthError(f"the credentials of profile {self.profile} for {self.address} have expired", hint=login)
        if code in _SKEWED:
            return AuthError(
                f"{self.address} refused {key}: the clock of this machine differs from the server's",
                hint="set the clock: timedatectl set-ntp true",
            )
        if code in _WRONG:
            return AuthError(
                f"{self.address} does not know the credentials of profile {self.profile} ({code})", hint=login
            )
        if code in _ELSEWHERE:
            return AuthError(
                f"{self.address} is in another region than it was asked in ({_short(text)})",
                hint="reg remote add NAME URL -O region=REGION",
            )
        if any(words in text.lower() for words in _CERTIFICATE):
            return StoreError(
                f"{self.address}: the server's certificate is not trusted",
                hint="name its authority's: export AWS_CA_BUNDLE=FILE, or SSL_CERT_FILE=FILE",
            )
        if _of_sdk(error):
            return AuthError(
                f"there are no credentials for {self.address} in profile {self.profile} ({_short(text)})", hint=login
            )
        if "credential" in type(error).__name__.lower() or "credential" in text.lower()[:400]:
            return AuthError(
                f"there are no valid credentials for {self.address} in profile {self.profile} ({_short(text)})",
                hint=f"aws configure --profile {self.profile}, or AWS_PROFILE=NAME; a public bucket: -O anonymous=true",
            )
        if code == "NoSuchBucket":
            return StoreError(
                f"{self.address}: there is no such bucket", hint="check the bucket's name: reg remote list"
            )
        if code == "NoSuchKey" or status == 404:
            return ObjectMissing(key, self.address)
        if status == 416 or code == "InvalidRange":
            return ObjectMissing(key, self.address, shorter=True)
        if status in (401, 403) or code in ("AccessDenied", "AllAccessDisabled", "AccountProblem"):
            return AuthError(
                f"{self.address} refused {key} to profile {self.profile} ({code or status})",
                hint="ask who owns the bucket for that right, or choose another profile: export AWS_PROFILE=NAME",
            )
        name = type(error).__name__
        return StoreError(
            f"{self.address} failed for {key}: {code or _short(text) or name}",
            hint="run it again: it goes on where it stopped",
            transient=code in _LATER or not 400 <= status < 500 or status in (408, 429),
            unreachable=any(word in name or word in text for word in _UNREACHABLE),
        )


def authorities(network: Network) -> str:
    """Return the file with the certificates of authorities to trust; empty for the system's own.

    Raises
    ------
    InvalidInput
        When it cannot be read or holds none.
    """
    path = network.environment.get("AWS_CA_BUNDLE") or network.ca_file
    if path:
        try:
            with open(path, "rb") as file:
                if b"-----BEGIN " in file.read():
                    return path
            reason = "it holds no certificate"
        except OSError as error:
            reason = error.strerror or str(error)
        raise InvalidInput(f"the certificates in {path} cannot be read ({reason})", hint="check AWS_CA_BUNDLE")
    return ""


def _of_sdk(error: BaseException) -> bool:
    """Tell whether it is the SDK's own configuration or credentials that failed, before anything was asked."""
    for found in causes(error):
        if isinstance(found, FileNotFoundError) and found.filename is not None:
            return True  # a program that was to give credentials
        if type(found).__module__.startswith("botocore.") and type(found).__name__ in _SDK:
            return True
    return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it came from, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _whole_text(error: BaseException) -> str:
    return " ".join(str(found) for found in causes(error))


def _short(text: str) -> str:
    return " ".join(text.split())[:160]


def explained_size(head: Callable[[], int | None], read_one: Callable[[], object]) -> int | None:
    """Ask for an object's size; when it is refused, ask for a byte: the answer to HEAD has no body that says why."""
    try:
        return head()
    except ObjectMissing:
        return None
    except (StoreError, AuthError) as error:
        if isinstance(error, AuthError) or not error.transient:
            with suppress(ObjectMissing):
                read_one()
        raise


def has_keys(options: S3Options, network: Network) -> bool:
    """Tell whether keys of the environment are used, which go first in the SDK's chain unless a profile is named."""
    environment = network.environment
    keys = environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY")
    return bool(keys) and not (options.profile or environment.get("AWS_PROFILE"))


def sdk_session(options: S3Options) -> Any:
    """Open a session of the SDK: the lazy door to it.

    Raises
    ------
    ImportError
        When it is not installed (s3fs brings it).
    """
    return importlib.import_module("botocore.session").Session(profile=options.profile or None)


def credentials_source(options: S3Options, network: Network) -> str:
    """Name where the SDK's chain finds credentials, never what they are."""
    if options.anonymous:
        return "anonymous"
    if has_keys(options, network):
        return "AWS_ACCESS_KEY_ID"
    profile = options.profile or network.aws_profile
    try:
        found = sdk_session(options).get_credentials()
    except ImportError:
        return "unknown: the package s3fs is not installed"
    except Exception as error:  # noqa: BLE001 -- an SDK's error of any kind says that there are none
        return f"none: {_short(str(error))}"
    return f"profile {profile} ({found.method})" if found is not None else f"none in profile {profile}"
