"""What a hundred million files and a petabyte cost: python -m benchmarks.scale [--check 10000 100000] [--page]

Computed for one dataset from the sizes of the formats (measured on made-up entries) and the rules in docs/formats, and
multiplied; `--check` adds and pushes datasets of so many files to a real S3 server and prints what was foreseen beside
what came. `--page` writes docs/scale.md.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers.radosgw import radosgw

from benchmarks.bench import Bench, install_peers, machine, remove
from benchmarks.data import write_files
from benchmarks.jobs import REG, on_s3
from registree.model.manifest import BOUNDARY_BITS, Entry, cut_inner, cut_leaves
from registree.model.places import PACK_CHUNK_LIMIT, PACK_LIMIT, PACK_TARGET, Extent, PackRow, encode_leaf_map
from registree.store.chunk_index import encode_chunks
from registree.store.layout import compress
from registree.store.packing import CHUNK_AVERAGE, CHUNKED_FROM, OWN_PACK_FROM

PAGE = Path(__file__).parent.parent / "docs/scale.md"
PER_PAGE = 1 << BOUNDARY_BITS
RANGE = 16 << 20
STORED, PUT, GET, OUT = 0.021, 5e-6, 4e-7, 0.05
"""List prices of a public bucket in dollars (S3 Standard, us-east-1, the tier of a petabyte): a GB for a month, a
request that writes, one that reads, a GB out to the internet."""
SIZE = 100
"""Bytes of a file in the runs that check what was computed: metadata weighs most with tiny ones."""
ASKED = 7
"""Requests that every push makes: the marker, and what the remote has of the version before."""
ROOT_OBJECTS = 2
"""The topmost page and its map are objects of their own."""


_HEAD = """# A hundred million files and a petabyte

Computed by `python -m benchmarks.scale --page --check 10000 100000 1000000` from the formats' own sizes, and checked
against runs. Prices are the list prices of S3 Standard in us-east-1 (a GB for a month $0.021, a thousand requests that
write $0.005, that read $0.0004, a GB out to the internet $0.05); inside the region going out is free.
"""
_FINDINGS = """## Where a cost grows faster than what changed

- *Metadata of an update.* A page holds a thousand entries, so one change in a hundred, spread evenly, touches
  every page: an update rewrites and fetches some 36 bytes for every file of the dataset, changed or not. Beside
  files of 10 MB that is nothing (a file in a hundred is 10 MB for each 3.6 kB of pages); beside files of 100
  bytes it is 36 times what changed. Changes that lie together touch the pages they lie in. Smaller pages would
  save here and cost everywhere else ([decision 0002](decisions/0002-page-size.md) has the numbers).
- *Chunk lists.* A file of 1 MiB and more has 36 bytes in a chunk list for each 64 KiB, 0.06 % of its size, and
  each pack of such files has a list beside it: as many objects again, as small as the packs are many. Only
  `add` on a machine that knows nothing reads them. They cost a third of the requests of a push.
- *Objects of large files.* A file of 16 MiB and more has packs of its own, so objects grow with files there;
  below that with bytes (64 MiB a pack).
- *Verify* asks once for each pack, so it grows with what is kept, not with what changed.

Everything else (push, update, diff) grows with what changed, or with the number of pages: a thousandth of the
files.
"""


@dataclass(frozen=True)
class Sizes:
    """Compressed bytes of a manifest for each file: of its pages and of its maps; and of a row in a page of pages."""

    page: float
    map: float
    row: float


@dataclass(frozen=True)
class Foreseen:
    """What a dataset costs: objects and bytes in the store; requests and bytes of each operation."""

    payload_packs: int
    objects: int
    metadata: float
    stored: float
    push_requests: int
    push_bytes: float
    update_requests: int
    update_metadata: float
    update_payload: float
    diff_requests: int
    diff_bytes: float
    verify_requests: int
    verify_bytes: float


def measure_sizes(count: int = 20_000) -> Sizes:
    """Make a manifest of noise and see how many bytes a file takes in it."""
    noise = random.Random(0)
    entries = [Entry(f"c{n // 200:04d}/{n:07d}.bin", 0, 10_240, noise.randbytes(32)) for n in range(count)]
    packs = [PackRow(noise.randbytes(32), PACK_TARGET) for _ in range(1 + count // 6500)]
    leaves = list(cut_leaves(entries))
    maps, at = 0, 0
    for leaf in leaves:
        extents = [
            (Extent(packs[(at + i) // 6500], (at + i) % 6500 * 10_240, 10_240),) for i in range(len(leaf.entries))
        ]
        maps += len(compress(encode_leaf_map(extents)))
        at += len(leaf.entries)
    pages = sum(len(compress(leaf.content)) for leaf in leaves)
    above = sum(len(compress(page.content)) for page in cut_inner(1, [leaf.ref for leaf in leaves]))
    return Sizes(pages / count, maps / count, above / len(leaves))


def foresee(files: int, size: int, sizes: Sizes, changed: float = 0.01) -> Foreseen:
    """Compute what a dataset costs.

    Parameters
    ----------
    files, size
        How many files, and the bytes of each.
    changed
        The share of files that an update changes, spread evenly.
    """
    payload_packs = _packs(files, size)
    leaves = math.ceil(files / PER_PAGE)
    metadata = files * (sizes.page + sizes.map) + 2 * leaves * sizes.row
    page_packs = math.ceil(metadata / PACK_TARGET) if leaves > 1 else 0
    per_list = len(compress(encode_chunks([(random.Random(n).randbytes(32), n) for n in range(100)]))) / 100
    lists = payload_packs if size >= CHUNKED_FROM else 0
    metadata += per_list * files * size / CHUNK_AVERAGE if lists else 0
    objects = payload_packs + page_packs + lists + ROOT_OBJECTS
    touched = leaves * (1 - (1 - changed) ** min(files, PER_PAGE))
    again = touched * PER_PAGE * (sizes.page + sizes.map) if leaves > 1 else files * (sizes.page + sizes.map)
    new_packs = _packs(max(1, int(files * changed)), size)
    reads = math.ceil(again / RANGE) if leaves > 1 else 0
    return Foreseen(
        payload_packs,
        objects,
        metadata,
        files * size + metadata,
        2 * (payload_packs + page_packs) + lists + ROOT_OBJECTS + ASKED,
        files * size + metadata,
        2 * (new_packs + page_packs) + ROOT_OBJECTS + ASKED,
        again,
        files * changed * size,
        2 * (reads + 1),
        2 * touched * PER_PAGE * sizes.page if leaves > 1 else 2 * files * sizes.page,
        payload_packs + page_packs + ROOT_OBJECTS + math.ceil(metadata / RANGE),
        files * (sizes.page + sizes.map),
    )


def _packs(files: int, size: int) -> int:
    if size >= OWN_PACK_FROM:
        return files * math.ceil(size / PACK_LIMIT)
    return max(1, math.ceil(files * size / PACK_TARGET), math.ceil(files / PACK_CHUNK_LIMIT))


def check(counts: list[int], size: int, sizes: Sizes) -> list[str]:
    """Add and push datasets of files of some bytes, and return rows of what was foreseen and what came."""
    rows = ["| files | | objects | metadata MB | requests of a push | seconds of add and push | peak MB |"]
    rows.append("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for count in counts:
        folder = Path(tempfile.mkdtemp(prefix="scale-"))
        try:
            write_files(folder / "data", range(count), size)
            bench = Bench(folder, install_peers(), 1)
            with radosgw() as bench.server:
                steps = [job for job in on_s3() if job.name in ("", "add", "push")][:3]
                bench.measure("s", folder / "data", steps, (REG,), keep=True)
                (bucket,) = (row["Name"] for row in bench.server.client().list_buckets()["Buckets"])
                pages = bench.server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
                objects = [found for page in pages for found in page.get("Contents", ())]
            (added,), (pushed,) = bench.costs["s"]["add"][REG], bench.costs["s"]["push"][REG]
        finally:
            remove(folder)
        found = foresee(count, size, sizes)
        came = sum(row["Size"] for row in objects) - count * size
        rows.append(
            f"| {count:,} | foreseen | {found.objects} | {found.metadata / 1e6:.2f} | {found.push_requests} | | |"
        )
        rows.append(
            f"| | came | {len(objects) - 1} | {came / 1e6:.2f} | {pushed.requests} "
            f"| {added.seconds:.1f} + {pushed.seconds:.1f} | {max(added.memory, pushed.memory) / 1e6:.0f} |"
        )
    return rows


def table(datasets: int, files: int, size: int, sizes: Sizes) -> list[str]:
    """Return rows of what many alike datasets cost."""
    one = foresee(files, size, sizes)
    month = datasets * one.stored / 1e9 * STORED

    def row(what: str, requests: float, metadata: float, payload: float, dollars: float) -> str:
        cells = f"{requests:,.0f} | {metadata / 1e9:,.2f} | {payload / 1e9:,.0f} | {dollars:,.2f}"
        return f"| {what} | {cells} |"

    many = datasets
    return [
        f"{datasets:,} datasets of {files:,} files of {size:,} bytes: {datasets * files:,} files, "
        f"{datasets * files * size / 1e15:.2f} PB; {datasets * one.objects:,} objects, "
        f"{datasets * one.metadata / 1e9:,.1f} GB of metadata ({one.metadata / files:.0f} bytes a file); "
        f"${month:,.0f} a month to keep.",
        "",
        "| operation | requests | metadata GB | payload GB | dollars |",
        "| --- | ---: | ---: | ---: | ---: |",
        row("add, all of it", 0, many * one.metadata, many * files * size, 0),
        row("push, all of it", many * one.push_requests, many * one.metadata, many * files * size,
            many * one.push_requests * PUT),
        row("update of 1 % in every dataset: push", many * one.update_requests, many * one.update_metadata,
            many * one.update_payload, many * one.update_requests * PUT),
        row("the same: a consumer's update", many * (one.diff_requests + one.update_requests // 2),
            many * one.update_metadata, many * one.update_payload,
            many * ((one.diff_requests + one.update_requests // 2) * GET
                    + (one.update_metadata + one.update_payload) / 1e9 * OUT)),
        row("diff of the two versions", many * one.diff_requests, many * one.diff_bytes, 0,
            many * (one.diff_requests * GET + one.diff_bytes / 1e9 * OUT)),
        row("list (Git alone)", 0, many * 700 / 3, 0, 0),
        row("verify --remote", many * one.verify_requests, many * one.verify_bytes, 0,
            many * (one.verify_requests * GET + one.verify_bytes / 1e9 * OUT)),
        "",
    ]  # fmt: skip


def main() -> None:
    """Print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="*", type=int, default=[])
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    sizes = measure_sizes()
    lines = [_HEAD, f"A file takes {sizes.page:.1f} bytes in pages and {sizes.map:.1f} in maps, compressed.", ""]
    lines += table(10_000, 10_000, 10_000_000, sizes)
    lines += table(100, 1_000_000, 10_000_000, sizes)
    lines += table(100, 1_000_000, 10_000, sizes)
    if given.check:
        lines += ["## Checked", "", f"Files of {SIZE} bytes, over S3, on {machine()}:", ""]
        lines += [*check(given.check, SIZE, sizes), "", _FINDINGS]
    text = "\n".join(lines).rstrip() + "\n"
    if given.page:
        PAGE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
