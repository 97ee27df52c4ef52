"""Where things lie in a store (docs/formats/store-v1.md), and how small objects are compressed there."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import zstandard

from registree.errors import FormatError, IntegrityError
from registree.model.manifest import MAX_PAGE_BYTES

MARKER = "reg-store.json"
FORMAT = 1
PACKS, CHUNKS, MAPS, MANIFESTS = "packs", "chunks", "maps", "manifests"
TEMPORARY = ".tmp-"
"""How the names of files begin that are not whole yet; they are no objects."""
_KEY = re.compile(r"(?:packs|chunks|maps|manifests)/([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")


def key(folder: str, identifier: bytes) -> str:
    """Return the key of the object with this id: ``packs/ab/ab12…``."""
    name = identifier.hex()
    return f"{folder}/{name[:2]}/{name}"


def id_of_key(text: str) -> bytes | None:
    """Return the id that a key names; None when it is no key of ours."""
    found = _KEY.match(text)
    return bytes.fromhex(found[2]) if found else None


def marker() -> bytes:
    """Return the content of a new store's marker."""
    return json.dumps({"format": FORMAT}).encode() + b"\n"


def check_marker(content: bytes, address: str) -> None:
    """Refuse a store of another format.

    Raises
    ------
    FormatError
        When it is of a newer version.
    IntegrityError
        When it is no marker at all.
    """
    try:
        version = json.loads(content)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IntegrityError(
            f"{MARKER} in {address} is not a store's marker", hint="check the URL of the remote: reg remote list"
        ) from None
    if version != FORMAT:
        raise FormatError(
            f"{address} has store format {version}, and this version of reg reads format {FORMAT}",
            newer=True,
        )


_LEVEL = 3


def compress(content: bytes) -> bytes:
    """Compress a page, a map or a chunk list (one zstd frame with its content size and a checksum)."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(content)


def decompress(blob: bytes, place: str) -> bytes:
    """Decompress a page or a map; the size is bounded before memory is taken.

    Raises
    ------
    FormatError
        When it is not one whole zstd frame of at most 64 MiB.
    """
    try:
        size = zstandard.frame_content_size(blob)
        if not 0 <= size <= MAX_PAGE_BYTES:
            raise FormatError(f"{place} says it holds {size} bytes, and {MAX_PAGE_BYTES} is the limit")
        return zstandard.ZstdDecompressor().decompress(blob, max_output_size=MAX_PAGE_BYTES)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{place} is not whole ({error})") from None


def redact(url: str) -> str:
    """Return a URL without the user and password that may stand in it."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        parts = parts._replace(netloc=parts.netloc.rsplit("@", 1)[1])
    return parts._replace(query="", fragment="").geturl()
