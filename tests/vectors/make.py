"""Write the test vectors of the formats anew: run by hand, and only when a format version is not yet released.

``python tests/vectors/make.py`` fills ``store/``, ``metafiles/``, ``expected.json`` and ``refused.json`` beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from registree import Registry
from registree.model.ids import hash_bytes, id_text
from registree.model.manifest import Entry, PageRef, encode_inner, encode_leaf
from registree.model.metafile import ImportFile, Lock
from registree.model.paths import DatasetName, EntryPath
from registree.source import Machine

HERE = Path(__file__).parent
DATASETS = ("small", "one-file.csv", "empty", "many", "many-edited", "chunked", "chunked-edited")


def noise(seed: str, size: int) -> bytes:
    """Return bytes that follow from a seed: ASCII digits and commas, so that they compress well in Git."""
    rows, count = [], 0
    while count < size:
        row = f"{len(rows)},{seed},{hash_bytes(f'{seed}{len(rows)}'.encode())[0]}\n".encode()
        rows.append(row)
        count += len(row)
    return b"".join(rows)[:size]


def fill(name: str, place: Path) -> None:
    """Make the work tree of one dataset."""
    if name == "one-file.csv":
        place.write_bytes(b"a,b\n1,2\n")
        return
    place.mkdir()
    if name == "small":
        (place / "sub/deep").mkdir(parents=True)
        (place / "void/inner").mkdir(parents=True)
        (place / "a.txt").write_bytes(b"one\n")
        (place / "run.sh").write_bytes(b"#!/bin/sh\n")
        (place / "run.sh").chmod(0o755)
        (place / "sub/ä 日本.txt").write_bytes(b"two\n")
        (place / "sub/deep/nothing").write_bytes(b"")
        (place / "sub/link").symlink_to("../a.txt")
        (place / "same as a.txt").write_bytes(b"one\n")
    elif name.startswith("many"):
        for folder in range(16):
            (place / f"{folder:02}").mkdir()
            for number in range(250):
                (place / f"{folder:02}/{number:03}").write_bytes(b"%d" % (number % 8))
        if name == "many-edited":
            (place / "07/100").write_bytes(b"edited")
            (place / "15/249").unlink()
    elif name.startswith("chunked"):
        part = noise("chunked", 300_000)
        inserted = b"inserted\n" if name == "chunked-edited" else b""
        (place / "rows.csv").write_bytes(part + part + inserted + part + part[:200_000])


def build(registry: Path, remote: Path) -> dict[str, str]:
    """Add and push all datasets to a store; return their metafiles."""
    os.environ.setdefault("GIT_COMMITTER_NAME", "Vectors")
    os.environ.setdefault("GIT_COMMITTER_EMAIL", "vectors@example.org")
    machine = Machine(str(registry.parent / "cache"), str(registry.parent / "config"))
    made = Registry.init(registry, remote=str(remote), machine=machine)
    metafiles = {}
    for name in DATASETS:
        base = name.removesuffix("-edited")
        if base != name:
            shutil.rmtree(registry / base)
        fill(name, registry / base)
        made.add(base, message=name)
        metafiles[f"{name}.reg.yaml"] = (registry / f"{base}.reg.yaml").read_text(encoding="utf-8")
        made.push(git=False)
    return metafiles


def listing(place: Path) -> list[list[Any]]:
    """List a work tree: path, kind, bytes, content id (or a link's target)."""
    if place.is_file():
        return [["", 0, place.stat().st_size, id_text(hash_bytes(place.read_bytes()))]]
    rows: list[list[Any]] = []
    for path in place.rglob("*"):
        name = str(path.relative_to(place))
        if path.is_symlink():
            rows.append([name, 2, len(os.readlink(path)), os.readlink(path)])
        elif path.is_file():
            kind = 1 if path.stat().st_mode & 0o100 else 0
            rows.append([name, kind, path.stat().st_size, id_text(hash_bytes(path.read_bytes()))])
        elif not any(path.iterdir()):
            rows.append([name, 3, 0, ""])
    return sorted(rows, key=lambda row: row[0].encode())


def listing_id(rows: list[list[Any]]) -> str:
    """Return one id for a listing, so that a long one need not be kept."""
    return id_text(hash_bytes(json.dumps(rows, ensure_ascii=False).encode()))


def import_metafile() -> str:
    """Return a metafile of a consumer with every field."""
    lock = Lock(
        commit="3f2a1c0d" * 5,
        manifest=hash_bytes(b"placed"),
        files=12,
        size=3456,
        dataset_manifest=hash_bytes(b"whole"),
        tag="images/cats-dogs@v1.2.0",
        version="1.2.0",
        remote="s3://acme-data/registry",
    )
    made = ImportFile(
        "cats",
        "https://git.example.org/acme/registry",
        DatasetName("images/cats-dogs"),
        "^1.0",
        lock,
        EntryPath("train/cats"),
        ("*.png",),
        ("broken-*",),
    )
    return made.render()


FILE_ID = hash_bytes(b"x")
ONE = Entry("a", 0, 1, FILE_ID)


def refused() -> list[dict[str, str]]:
    """Return what no reader may take: pages, maps, markers and metafiles, each with why."""
    pack = bytes.fromhex("11" * 32)
    leaf = encode_leaf([ONE])

    def leaf_map(places: object, version: int = 1, level: int = 0) -> bytes:
        return msgspec.msgpack.encode([version, level, [[pack, 100]], places])

    pages = {
        "newer format": leaf[:1] + b"\x02" + leaf[2:],
        "level over 3": leaf[:2] + b"\x04" + leaf[3:],
        "array of one with a length of two bytes": leaf[:3] + b"\xdc\x00\x01" + leaf[4:],
        "level with a length of its own": leaf[:2] + b"\xcc\x00" + leaf[3:],
        "a byte after the end": leaf + b"\x00",
        "cut short": leaf[:-1],
        "map in place of an array": b"\x83" + leaf[1:],
        "path that is not UTF-8": leaf.replace(b"\xa1a", b"\xa1\xff"),
        "negative kind": leaf.replace(b"\xa1a\x00", b"\xa1a\xff"),
        "unknown kind": encode_leaf([Entry("a", 4, 1, FILE_ID)]),
        "wrong order": encode_leaf([Entry("b", 0, 1, FILE_ID), ONE]),
        "one path twice": encode_leaf([ONE, ONE]),
        "path with ..": encode_leaf([Entry("../a", 0, 1, FILE_ID)]),
        "absolute path": encode_leaf([Entry("/a", 0, 1, FILE_ID)]),
        "path below .git": encode_leaf([Entry("x/.Git/hooks/pre-commit", 1, 1, FILE_ID)]),
        "path below .git on NTFS": encode_leaf([Entry("git~1/config", 0, 1, FILE_ID)]),
        "path below .git on HFS+": encode_leaf([Entry("x/.g\u200cit/config", 0, 1, FILE_ID)]),
        "path with NUL": encode_leaf([Entry("a\0b", 0, 1, FILE_ID)]),
        "path below a file": encode_leaf([ONE, Entry("a!", 0, 1, FILE_ID), Entry("a/b", 0, 1, FILE_ID)]),
        "path below a link": encode_leaf([Entry("a", 2, 1, b"b"), Entry("a/b", 0, 1, FILE_ID)]),
        "empty path beside others": encode_leaf([Entry("", 0, 1, FILE_ID), ONE]),
        "dataset that is a link": encode_leaf([Entry("", 2, 1, b"b")]),
        "short content id": encode_leaf([Entry("a", 0, 1, FILE_ID[:31])]),
        "folder with content": encode_leaf([Entry("a", 3, 0, FILE_ID)]),
        "page of pages with none": encode_inner(1, []),
        "page of pages in wrong order": encode_inner(1, [PageRef("b", FILE_ID, 1, 1, 1), PageRef("a", pack, 1, 1, 1)]),
    }
    maps = {
        "newer format": leaf_map([[0, 0, 1]], version=2),
        "level of another page": leaf_map([[0, 0, 1]], level=1),
        "past the end of a pack": leaf_map([[0, 100, 1]]),
        "longer than its pack": leaf_map([[0, 0, 101]]),
        "pack that is not named": leaf_map([[1, 0, 1]]),
        "half a row": leaf_map([[0, 0]]),
        "no bytes": leaf_map([[0, 0, 0]]),
    }
    markers = {"newer format": '{"format": 2}', "no marker": "hello", "no format": "{}"}
    manifest = id_text(FILE_ID)
    metafiles = {
        "newer format": f"reg: 2\npath: d\nmanifest: {manifest}\nfiles: 1\nsize: 1\n",
        "no version": f"path: d\nmanifest: {manifest}\nfiles: 1\nsize: 1\n",
        "another name": f"reg: 1\npath: e\nmanifest: {manifest}\nfiles: 1\nsize: 1\n",
        "short id": f"reg: 1\npath: d\nmanifest: {manifest[:-1]}\nfiles: 1\nsize: 1\n",
        "negative count": f"reg: 1\npath: d\nmanifest: {manifest}\nfiles: -1\nsize: 1\n",
        "alias": f"reg: 1\npath: d\nmanifest: &a {manifest}\nmeta: {{b: *a}}\nfiles: 1\nsize: 1\n",
        "list": "- reg: 1\n",
        "conflict marks": "<<<<<<< ours\nreg: 1\n=======\nreg: 1\n>>>>>>> theirs\n",
        "import out of the registry": "reg: 1\npath: d\nimport: {registry: r, dataset: ../d, want: ''}\nlocked: "
        f"{{commit: {'a' * 40}, manifest: '{manifest}', files: 1, size: 1}}\n",
        "short commit": "reg: 1\npath: d\nimport: {registry: r, dataset: d, want: ''}\nlocked: "
        f"{{commit: abcdef, manifest: '{manifest}', files: 1, size: 1}}\n",
    }
    return [
        *({"kind": "page", "why": why, "hex": raw.hex()} for why, raw in pages.items()),
        *({"kind": "map", "why": why, "hex": raw.hex()} for why, raw in maps.items()),
        *({"kind": "marker", "why": why, "text": text} for why, text in markers.items()),
        *({"kind": "metafile", "why": why, "text": text} for why, text in metafiles.items()),
    ]


def main() -> None:
    """Write all vectors."""
    shutil.rmtree(HERE / "store", ignore_errors=True)
    shutil.rmtree(HERE / "metafiles", ignore_errors=True)
    (HERE / "metafiles").mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        metafiles = build(Path(scratch) / "registry", HERE / "store")
        expected = {}
        for name in DATASETS:
            fill(name, Path(scratch) / name)
            rows = listing(Path(scratch) / name)
            text = metafiles[f"{name}.reg.yaml"]
            manifest = next(line.split()[1] for line in text.splitlines() if line.startswith("manifest:"))
            expected[name] = {"manifest": manifest, "entries": len(rows), "listing_id": listing_id(rows)}
            if len(rows) < 20:
                expected[name]["listing"] = rows
    for name, text in {**metafiles, "cats.reg.yaml": import_metafile()}.items():
        (HERE / "metafiles" / name).write_text(text, encoding="utf-8")
    zstd = ".".join(str(part) for part in zstandard.ZSTD_VERSION)
    for name, value in {"expected": {"zstd": zstd, "datasets": expected}, "refused": refused()}.items():
        text = json.dumps(value, indent=1, ensure_ascii=False)
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
