"""Content ids: the BLAKE3-256 hash of some bytes, and the text form ``b3:<64 hex>`` that people and YAML see.

Inside the program an id is its 32 raw bytes, since a dataset may hold a hundred million of them.
"""

from __future__ import annotations

import re
from typing import NewType

from blake3 import blake3

from registree.errors import FormatError

ContentId = NewType("ContentId", bytes)
"""32 bytes: BLAKE3-256 of the bytes it names (https://github.com/BLAKE3-team/BLAKE3-specs)."""

ID_LENGTH = 32
_TEXT = re.compile(r"b3:([0-9a-f]{64})\Z")


def hash_bytes(content: bytes | bytearray | memoryview) -> ContentId:
    """Return the content id of some bytes.

    >>> id_text(hash_bytes(b""))[:15]
    'b3:af1349b9f5f9'
    """
    return ContentId(blake3(content).digest())


EMPTY = hash_bytes(b"")
"""The content id of no bytes at all."""


def id_text(identifier: bytes) -> str:
    """Write an id the way files and people do: ``b3:`` and 64 lower-case hexadecimal digits."""
    return f"b3:{identifier.hex()}"


def parse_id(text: object) -> ContentId:
    """Read ``b3:<64 hex>``.

    Raises
    ------
    FormatError
        When the text is anything else.
    """
    found = _TEXT.match(text) if isinstance(text, str) else None
    if found is None:
        raise FormatError(f"{text!r} is not a content id (b3: and 64 hexadecimal digits)")
    return ContentId(bytes.fromhex(found[1]))
