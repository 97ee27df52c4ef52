"""Reproduce a dataset from a store: what docs/formats/ says and nothing of the package, to show that it suffices.

Run it as ``python reader.py STORE MANIFEST TARGET``, with a manifest's id as a metafile writes it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

FORMS = {  # MessagePack: first byte -> what it is, bytes of its length or value, the least that may be spelled so
    **{0xC4: (bytes, 1, 0), 0xC5: (bytes, 2, 1 << 8), 0xC6: (bytes, 4, 1 << 16)},
    **{0xCC: (int, 1, 1 << 7), 0xCD: (int, 2, 1 << 8), 0xCE: (int, 4, 1 << 16), 0xCF: (int, 8, 1 << 32)},
    **{0xD9: (str, 1, 1 << 5), 0xDA: (str, 2, 1 << 8), 0xDC: (list, 2, 1 << 4)},
}


class RefusedError(Exception):
    """Bytes that no writer of the format makes."""


def need(holds: object, why: str) -> None:
    """Refuse the bytes unless something holds."""
    if not holds:
        raise RefusedError(why)


def unpack(raw: bytes, at: int = 0) -> tuple[Any, int]:
    """Read one value and return it with where the next one starts."""
    need(at < len(raw), "it ends early")
    head, at = raw[at], at + 1
    if head < 0x80:
        return head, at
    if head & 0xF0 == 0x90 or head & 0xE0 == 0xA0:
        kind, number = (list, head & 15) if head < 0xA0 else (str, head & 31)
    else:
        need(head in FORMS, f"byte {head:#x} is not of the format")
        kind, width, least = FORMS[head]
        number, at = int.from_bytes(raw[at : at + width], "big"), at + width
        need(number >= least, "not the shortest spelling")
    if kind is int:
        return number, at
    if kind is list:
        values = []
        for _ in range(number):
            value, at = unpack(raw, at)
            values.append(value)
        return values, at
    piece = raw[at : at + number]
    need(len(piece) == number, "it ends early")
    try:
        return piece if kind is bytes else piece.decode(), at + number
    except UnicodeDecodeError as error:
        raise RefusedError("a path is not UTF-8") from error


def whole(raw: bytes, fields: int) -> list[Any]:
    """Read an object: one array of so many fields, of format 1, and nothing after it."""
    value, end = unpack(raw)
    need(isinstance(value, list) and len(value) == fields and end == len(raw), "not one array of the right length")
    need(value[0] == 1, f"format {value[0]} is not 1")
    return value


def page(raw: bytes, identifier: bytes) -> tuple[int, list[list[Any]]]:
    """Read a page: its level and its rows."""
    need(blake3(raw).digest() == identifier, "the bytes are not those of the id")
    _, level, rows = whole(raw, 3)
    need(level <= 3 and len(rows) <= 8192 and (rows or not level), "level or length")
    paths = [row[0] for row in rows]
    need(paths == sorted(set(paths)) and (len(rows) == 1 or "" not in paths), "order")
    for row in rows if level == 0 else []:
        path, kind, size, content = row
        seen = re.sub("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]", "", path.lower()).split("/")
        bare = {part.split(":")[0].rstrip(" .") for part in seen}
        need(not {".git", ".reg", "git~1", "reg~1"} & bare, f"path {path!r}")
        need(not path or not {"", ".", ".."} & set(path.split("/")), f"path {path!r}")
        need("\0" not in path and (path or kind < 2), f"path {path!r}")
        need(kind < 4 and len(content) == (32, 32, size, 0)[kind] and not (kind == 3 and size), f"entry {path!r}")
        above = {path[:end] for end in range(len(path)) if path[end] == "/"}
        need(not above & set(paths), f"{path!r} lies below another entry")
    return level, rows


def places(raw: bytes, level: int) -> list[list[tuple[bytes, int, int]]]:
    """Read a map: for each row of its page that has bytes, the extents (pack, offset, length) in order."""
    _, found, packs, rows = whole(raw, 4)
    need(found == level, "level")
    result = []
    for row in rows:
        need(row and len(row) % 3 == 0, "half a row")
        extents = list(zip(row[::3], row[1::3], row[2::3], strict=True))
        for number, offset, length in extents:
            need(number < len(packs) and 0 < length <= packs[number][1] - offset, "past the end of a pack")
        result.append([(packs[number][0], offset, length) for number, offset, length in extents])
    return result


class Store:
    """A store in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        need(json.loads((root / "reg-store.json").read_bytes())["format"] == 1, "store format")

    def object(self, folder: str, identifier: bytes) -> bytes:
        """Return a compressed object of its own, decompressed."""
        name = identifier.hex()
        return zstandard.ZstdDecompressor().decompress((self.root / folder / name[:2] / name).read_bytes())

    def extents(self, row: list[tuple[bytes, int, int]]) -> bytes:
        """Return bytes of packs."""
        pieces = []
        for pack, offset, length in row:
            with (self.root / "packs" / pack.hex()[:2] / pack.hex()).open("rb") as file:
                file.seek(offset)
                pieces.append(file.read(length))
        return b"".join(pieces)

    def entries(self, manifest: bytes) -> Iterator[tuple[str, int, bytes]]:
        """Return each entry of a dataset: path, kind, and the verified bytes (of a link: its target)."""
        level, rows = page(self.object("manifests", manifest), manifest)
        has_bytes = level or any(kind < 2 and size for _, kind, size, _ in rows)
        yield from self._below(level, rows, places(self.object("maps", manifest), level) if has_bytes else [])

    def _below(self, level: int, rows: list[Any], where: list[Any]) -> Iterator[tuple[str, int, bytes]]:
        left = iter(where)
        for row in rows:
            if level:
                page_at, map_at = next(left)
                inflate = zstandard.ZstdDecompressor().decompress
                below, inner = page(inflate(self.extents([page_at])), row[1])
                need(below == level - 1 and inner[-1][0] == row[0], "a child is not what its parent says")
                yield from self._below(below, inner, places(inflate(self.extents([map_at])), below))
                continue
            path, kind, size, content = row
            found = content if kind == 2 else self.extents(next(left)) if kind < 2 and size else b""
            need(kind > 1 or (len(found) == size and blake3(found).digest() == content), f"wrong bytes of {path!r}")
            yield path, kind, found
        need(next(left, None) is None, "a map has more rows than its page")


def reproduce(store: Path, manifest: bytes, target: Path) -> None:
    """Write a dataset to a path that does not exist."""
    for path, kind, content in Store(store).entries(manifest):
        place = target / path if path else target
        (place if kind == 3 else place.parent).mkdir(parents=True, exist_ok=True)
        if kind == 2:
            place.symlink_to(content.decode())
        elif kind < 2:
            place.write_bytes(content)
            place.chmod(0o755 if kind else 0o644)


if __name__ == "__main__":
    reproduce(Path(sys.argv[1]), bytes.fromhex(sys.argv[2].removeprefix("b3:")), Path(sys.argv[3]))
