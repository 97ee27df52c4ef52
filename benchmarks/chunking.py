"""What a change costs at several chunk sizes: python benchmarks/chunking.py [MEGABYTES]

For a CSV, a JSONL, a Parquet and a binary file, each appended to, inserted into and overwritten by about one per cent,
prints the bytes stored for the new version as a multiple of the bytes that changed, and the bytes of the chunk list.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from registree.model.places import Extent
from registree.store import packing
from registree.store.chunk_list import extents_of

SIZES_KIB = (16, 32, 64, 128, 256, 512, 1024)
ROW_IDS = random.Random(7)


def rows(count: int, start: int = 0) -> list[tuple[int, str, float, int]]:
    """Make rows with some structure: a key, a word, a measure, a class."""
    words = ["north", "south", "east", "west", "upper", "lower"]
    return [
        (start + i, words[ROW_IDS.randrange(6)], round(ROW_IDS.gauss(0, 9), 4), ROW_IDS.randrange(10))
        for i in range(count)
    ]


def as_csv(table: list[tuple[int, str, float, int]]) -> bytes:
    return b"".join(f"{a},{b},{c},{d}\n".encode() for a, b, c, d in table)


def as_jsonl(table: list[tuple[int, str, float, int]]) -> bytes:
    return b"".join(json.dumps({"id": a, "where": b, "value": c, "class": d}).encode() + b"\n" for a, b, c, d in table)


def as_parquet(table: list[tuple[int, str, float, int]]) -> bytes:
    out = io.BytesIO()
    columns = list(zip(*table, strict=True))
    names = ("id", "where", "value", "class")
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), out, row_group_size=100_000)
    return out.getvalue()


def packed(content: bytes, folder: str, known: Mapping[bytes, Extent]) -> packing.Packer:
    """Pack a file beside what is known."""
    os.mkdir(folder)
    packer = packing.Packer(folder, known.get)
    with open(os.path.join(folder, "file"), "w+b") as file:
        file.write(content)
        file.flush()
        packer.store_large(file.fileno(), len(content), file.name)
    packer.finish()
    return packer


def stored(before: bytes, after: bytes) -> tuple[int, int]:
    """Return the bytes stored for the second version, and the chunks of the first."""
    with tempfile.TemporaryDirectory() as folder:
        first = packed(before, f"{folder}/first", {})
        known = {chunk: extent for pack, chunks in first.packs() for chunk, extent in extents_of(pack, chunks)}
        return packed(after, f"{folder}/second", known).stored, len(known)


def edits(table: list[tuple[int, str, float, int]]) -> dict[str, list[tuple[int, str, float, int]]]:
    one = len(table) // 100
    half = len(table) // 2
    changed = list(table)
    for place in range(10):
        at = place * len(table) // 10
        changed[at : at + one // 10] = rows(one // 10, start=at)
    return {
        "append": table + rows(one, len(table)),
        "insert": table[:half] + rows(one, half) + table[half:],
        "overwrite": changed,
    }


def main(megabytes: int) -> None:
    """Print the table."""
    table = rows(megabytes * 40_000)
    formats: dict[str, Callable[[list[tuple[int, str, float, int]]], bytes]] = {
        "csv": as_csv,
        "jsonl": as_jsonl,
        "parquet": as_parquet,
    }
    pairs: dict[str, tuple[bytes, bytes]] = {}
    for name, encode in formats.items():
        before = encode(table)
        for edit, after in edits(table).items():
            pairs[f"{name} {edit}"] = (before, encode(after))
    blob = random.Random(1).randbytes(megabytes << 20)
    one, half = len(blob) // 100, len(blob) // 2
    patched = bytearray(blob)
    for place in range(10):
        at = place * len(blob) // 10
        patched[at : at + one // 10] = random.Random(place).randbytes(one // 10)
    pairs["binary append"] = (blob, blob + random.Random(2).randbytes(one))
    pairs["binary insert"] = (blob, blob[:half] + random.Random(3).randbytes(one) + blob[half:])
    pairs["binary overwrite"] = (blob, bytes(patched))
    print("stored for the new version / 1 % of the file; last row: bytes of chunk list for a GB; seconds for all")
    print("| job | " + " | ".join(f"{kib} KiB" for kib in SIZES_KIB) + " |")
    results: dict[str, list[str]] = {name: [] for name in pairs}
    lists, times = [], []
    for kib in SIZES_KIB:
        packing.CHUNK_AVERAGE = kib << 10
        packing.CHUNK_MIN, packing.CHUNK_MAX = kib << 8, kib << 12
        started = time.perf_counter()
        for name, (before, after) in pairs.items():
            new, chunks = stored(before, after)
            results[name].append(f"{new / (len(before) / 100):.2f}")
        lists.append(f"{chunks * 36 * 1_000_000_000 // len(blob):,}")
        times.append(f"{time.perf_counter() - started:.1f}")
    for name, row in {**results, "chunk list a GB": lists, "seconds": times}.items():
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 48)
