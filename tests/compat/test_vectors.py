"""The vectors of the formats: read by the package and by a reader that shares no code with it, and still written so."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from blake3 import blake3

from registree.errors import FormatError, IntegrityError
from registree.model.ids import hash_bytes, id_text, parse_id
from registree.model.manifest import Entry, boundary_level, decode_page, encode_leaf
from registree.model.metafile import DatasetFile, ImportFile, parse_metafile
from registree.model.places import ChildPlace, Extent, PackRow, decode_leaf_map, encode_inner_map, encode_leaf_map
from registree.store.layout import check_marker, compress, decompress
from tests.compat import reader
from tests.conftest import Reg, git
from tests.vectors import make

VECTORS = Path(make.__file__).parent
STORE = VECTORS / "store"
FORMATS = VECTORS.parent.parent / "docs/formats"
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_bytes())
DATASETS: dict[str, Any] = EXPECTED["datasets"]
REFUSED: list[dict[str, str]] = json.loads((VECTORS / "refused.json").read_bytes())


def stored(root: Path) -> dict[str, bytes]:
    """Read all objects of a store."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def of_kind(kind: str) -> list[Any]:
    """Return the refused vectors of one kind as test parameters."""
    return [pytest.param(row, id=row["why"]) for row in REFUSED if row["kind"] == kind]


@pytest.mark.parametrize("name", DATASETS)
def test_reader_without_the_package_reproduces_a_dataset(name: str, tmp_path: Path) -> None:
    reader.reproduce(STORE, parse_id(DATASETS[name]["manifest"]), tmp_path / "out")
    rows = make.listing(tmp_path / "out") if (tmp_path / "out").exists() else []
    assert make.listing_id(rows) == DATASETS[name]["listing_id"]
    assert rows == DATASETS[name].get("listing", rows)


@pytest.mark.parametrize("name", DATASETS)
def test_package_reproduces_a_dataset(name: str, tmp_path: Path, reg: Reg) -> None:
    reg(tmp_path, "init", "registry", "--remote", STORE)
    path = DATASETS[name].get("path", name.removesuffix("-edited"))
    shutil.copy(VECTORS / "metafiles" / f"{name}.reg.yaml", tmp_path / "registry" / f"{path}.reg.yaml")
    git(tmp_path / "registry", "add", "-A")
    git(tmp_path / "registry", "commit", "-qm", "Vectors")
    reg(tmp_path, "get", tmp_path / "registry", path, "-o", "out")
    assert make.listing_id(make.listing(tmp_path / "out")) == DATASETS[name]["listing_id"]


def test_every_object_has_the_id_it_is_named_by() -> None:
    for key, content in stored(STORE).items():
        folder, name = key.split("/")[0], key.split("/")[-1]
        if folder == "packs":
            assert blake3(content).hexdigest() == name
        elif folder == "manifests":
            assert blake3(zstandard.ZstdDecompressor().decompress(content)).hexdigest() == name


def test_metafile_vectors_are_read_and_written_byte_for_byte() -> None:
    for path in (VECTORS / "metafiles").iterdir():
        text = path.read_text(encoding="utf-8")
        fields = yaml.safe_load(text)
        found = parse_metafile(text, f"{fields['path']}.reg.yaml")
        assert found.render() == text
        if isinstance(found, ImportFile):
            assert text == make.import_metafile()
            assert found.lock.commit == fields["locked"]["commit"]
            assert found.part == fields["import"]["part"]
        else:
            assert isinstance(found, DatasetFile)
            assert found.manifest == parse_id(DATASETS[path.name.removesuffix(".reg.yaml")]["manifest"])
            assert (found.files, found.size) == (fields["files"], fields["size"])


def test_package_still_writes_the_same_bytes(tmp_path: Path) -> None:
    metafiles = make.build(tmp_path / "registry", tmp_path / "store")
    for name, text in metafiles.items():
        assert text == (VECTORS / "metafiles" / name).read_text(encoding="utf-8")
    before, after = stored(STORE), stored(tmp_path / "store")
    version = ".".join(str(part) for part in zstandard.ZSTD_VERSION)
    if version == EXPECTED["zstd"]:  # another release of zstd may compress to other bytes, and no id but a pack's minds
        assert after == before
    inflate = zstandard.ZstdDecompressor().decompress
    for key, content in before.items():
        if key.startswith("manifests/"):
            assert inflate(after[key]) == inflate(content)
        if key.startswith("chunks/"):
            pack = key.replace("chunks", "packs", 1)
            assert inflate(after[key]) == inflate(content)
            assert after[pack] == before[pack]


def test_refused_vectors_are_those_that_the_script_makes() -> None:
    assert make.refused() == REFUSED


@pytest.mark.parametrize("row", of_kind("page"))
def test_page_is_refused_by_package_and_reader(row: dict[str, str]) -> None:
    raw = bytes.fromhex(row["hex"])
    with pytest.raises(reader.RefusedError):
        reader.page(raw, hash_bytes(raw))
    with pytest.raises(FormatError):
        decode_page(raw, hash_bytes(raw))


@pytest.mark.parametrize("row", of_kind("map"))
def test_map_is_refused_by_package_and_reader(row: dict[str, str]) -> None:
    raw = bytes.fromhex(row["hex"])
    with pytest.raises(reader.RefusedError):
        reader.places(raw, 0)
    for size in (1, 101, 0):
        with pytest.raises(FormatError):
            decode_leaf_map(raw, [Entry("a", 0, size, make.FILE_ID)])


@pytest.mark.parametrize("row", of_kind("marker"))
def test_marker_is_refused_by_package_and_reader(row: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "reg-store.json").write_text(row["text"])
    with pytest.raises((reader.RefusedError, ValueError, KeyError)):
        reader.Store(tmp_path)
    with pytest.raises((FormatError, IntegrityError)):
        check_marker(row["text"].encode(), "here")


@pytest.mark.parametrize("row", of_kind("metafile"))
def test_metafile_is_refused(row: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        parse_metafile(row["text"], "d.reg.yaml")


def test_page_under_another_id_is_refused() -> None:
    raw = bytes.fromhex(REFUSED[0]["hex"]).replace(b"\x02", b"\x01", 1)
    assert reader.page(raw, hash_bytes(raw))
    for read in (reader.page, decode_page):
        with pytest.raises((reader.RefusedError, FormatError, IntegrityError)):
            read(raw, hash_bytes(b"something else"))


def test_object_that_says_it_is_huge_is_refused_before_memory_is_taken() -> None:
    frame = zstandard.ZstdCompressor().compress(b"\0" * ((64 << 20) + 1))
    with pytest.raises(FormatError, match="limit"):
        decompress(frame, "it")


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "other"])
@pytest.mark.parametrize("folder", ["packs", "maps", "manifests"])
def test_damaged_object_is_never_taken_for_data(folder: str, damage: str, tmp_path: Path, reg: Reg) -> None:
    shutil.copytree(STORE, tmp_path / "store")
    manifest = DATASETS["small"]["manifest"][3:]
    pack = next(iter(dict.fromkeys(e[0] for row in _small_map() for e in row))).hex()
    name = pack if folder == "packs" else manifest
    path = tmp_path / "store" / folder / name[:2] / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-1], "flip": flipped, "other": b"\0" * len(content)}[damage])
    reg(tmp_path, "init", "registry", "--remote", tmp_path / "store")
    shutil.copy(VECTORS / "metafiles/small.reg.yaml", tmp_path / "registry")
    git(tmp_path / "registry", "add", "-A")
    git(tmp_path / "registry", "commit", "-qm", "Vectors")
    found = reg(tmp_path, "get", tmp_path / "registry", "small", "-o", "out", code=None)
    assert found.code == 6, found.err
    assert not (tmp_path / "out").exists()


def store_of(entries: list[Entry], content: bytes, root: Path) -> bytes:
    """Make a store by hand that holds one dataset whose files all have the same content; return its manifest's id."""
    page = encode_leaf(entries)
    pack, identifier = hash_bytes(content), hash_bytes(page)
    row = (Extent(PackRow(pack, len(content)), 0, len(content)),)
    objects = {
        f"packs/{pack.hex()[:2]}/{pack.hex()}": content,
        f"maps/{identifier.hex()[:2]}/{identifier.hex()}": compress(
            encode_leaf_map([row for e in entries if e.is_file])
        ),
        f"manifests/{identifier.hex()[:2]}/{identifier.hex()}": compress(page),
        "reg-store.json": b'{"format": 1}',
    }
    for key, blob in objects.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(blob)
    return identifier


@pytest.mark.parametrize(
    "links",
    [
        {"d/l": "..", "d/l/up": "../.."},
        {"a/b/c/l": "../../..", "a/b/c/l/up": "../../../.."},
        {"": ".."},
        {"l": "d/../d"},
    ],
    ids=str,
)
def test_dataset_of_an_enemy_writes_nothing_outside_its_target(links: dict[str, str], tmp_path: Path, reg: Reg) -> None:
    evil = [Entry(f"{path}/evil".lstrip("/"), 0, 4, hash_bytes(b"evil")) for path in links]
    bad = [Entry(path, 2, len(target), target.encode()) for path, target in links.items()]
    manifest = store_of(sorted([*bad, *evil], key=lambda e: e.path), b"evil", tmp_path / "store")
    reg(tmp_path, "init", "registry", "--remote", tmp_path / "store")
    text = f"reg: 1\npath: d\nmanifest: b3:{manifest.hex()}\nfiles: 3\nsize: 4\n"
    (tmp_path / "registry/d.reg.yaml").write_text(text)
    git(tmp_path / "registry", "add", "-A")
    git(tmp_path / "registry", "commit", "-qm", "Enemy")
    (tmp_path / "x/y/z").mkdir(parents=True)
    found = reg(tmp_path / "x/y/z", "get", tmp_path / "registry", "d", "-o", "out", code=None)
    assert [str(path) for path in tmp_path.rglob("evil") if "out" not in path.parts] == []
    assert found.code in (2, 6)
    assert not (tmp_path / "x/y/z/out").exists()


def _small_map() -> list[list[tuple[bytes, int, int]]]:
    raw = reader.Store(STORE).object("maps", parse_id(DATASETS["small"]["manifest"]))
    return reader.places(raw, 0)


@pytest.mark.parametrize("cached", [False, True], ids=["no cache", "old map in the cache"])
def test_map_that_was_rewritten_is_read_again(cached: bool, tmp_path: Path, home: Path, reg: Reg) -> None:
    manifest = store_of([Entry("a", 0, 4, hash_bytes(b"data"))], b"data", tmp_path / "store")
    reg(tmp_path, "init", "registry", "--remote", tmp_path / "store")
    text = f"reg: 1\npath: d\nmanifest: b3:{manifest.hex()}\nfiles: 1\nsize: 4\n"
    (tmp_path / "registry/d.reg.yaml").write_text(text)
    git(tmp_path / "registry", "add", "-A")
    git(tmp_path / "registry", "commit", "-qm", "One")
    if cached:
        reg(tmp_path, "get", tmp_path / "registry", "d", "-o", "first")
        shutil.rmtree(home / "cache/files", ignore_errors=True)
    repacked = b"other bytes, then data"
    pack, old, name = hash_bytes(repacked), hash_bytes(b"data").hex(), manifest.hex()
    place = tmp_path / f"store/packs/{pack.hex()[:2]}"
    place.mkdir(parents=True, exist_ok=True)
    (place / pack.hex()).write_bytes(repacked)
    extents = (Extent(PackRow(pack, len(repacked)), len(repacked) - 4, 4),)
    (tmp_path / f"store/maps/{name[:2]}/{name}").write_bytes(compress(encode_leaf_map([extents])))
    (tmp_path / f"store/packs/{old[:2]}/{old}").unlink()
    reg(tmp_path, "get", tmp_path / "registry", "d", "-o", "second")
    assert (tmp_path / "second/a").read_bytes() == b"data"


def test_examples_of_the_format_documents_are_right() -> None:
    text = {path.name: path.read_text(encoding="utf-8") for path in FORMATS.glob("*.md")}
    manifest = text["manifest-v1.md"]
    content = hash_bytes(b"one\n")
    entries = [Entry("a.txt", 0, 4, content), Entry("sub/link", 2, 8, b"../a.txt"), Entry("void", 3, 0, b"")]
    assert id_text(hash_bytes(encode_leaf(entries))) in manifest
    assert id_text(hash_bytes(encode_leaf([]))) in manifest
    for path in ("a.txt", "000168", "990401"):
        row = f"| `{path}` | `{blake3(path.encode()).digest(4).hex(' ')}` | {boundary_level(path)} |"
        assert row in manifest
    pack = PackRow(content, 9000)
    one = encode_leaf_map([(Extent(PackRow(content, 4), 0, 4),)])
    places = [
        ChildPlace(Extent(pack, 0, 4000), Extent(pack, 4000, 500)),
        ChildPlace(Extent(pack, 4500, 1500), Extent(pack, 6000, 200)),
    ]
    blocks = re.findall(r"```\n(94.*?)```", text["pack-and-map-v1.md"], re.DOTALL)
    shown = ["".join(re.findall(r"\b(?:[0-9a-f]{2}|[0-9a-f]{8}…[0-9a-f]{8})\b", block)) for block in blocks]
    short = f"{content.hex()[:8]}…{content.hex()[-8:]}"
    assert shown == [raw.hex().replace(content.hex(), short) for raw in (one, encode_inner_map(1, places))]
