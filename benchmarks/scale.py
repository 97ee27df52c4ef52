"""What a hundred million files and a petabyte cost: python -m benchmarks.scale [--check 10000 100000] [--page]

Computed for one dataset from the sizes of the formats (measured on made-up entries) and the rules in docs/formats, and
multiplied; `--check` does everything with datasets of so many files on a real S3 server and prints what was foreseen
beside what came. `--page` writes docs/scale.md.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tests.servers.radosgw import radosgw

from benchmarks.bench import Bench, install_peers, machine, remove
from benchmarks.data import write_files
from benchmarks.jobs import REG, Job, on_s3
from benchmarks.running import Cost
from registree.model.manifest import BOUNDARY_BITS, Entry, cut_inner, cut_leaves
from registree.model.places import PACK_CHUNK_LIMIT, PACK_LIMIT, PACK_TARGET, Extent, PackRow, encode_leaf_map
from registree.store.chunk_index import encode_chunks
from registree.store.layout import compress
from registree.store.packing import CHUNK_AVERAGE, CHUNKED_FROM, OWN_PACK_FROM
from registree.store.tree_reader import BATCH

PAGE = Path(__file__).parent.parent / "docs/scale.md"
PER_PAGE = 1 << BOUNDARY_BITS
RANGE = 16 << 20
STORED, PUT, GET, OUT = 0.021, 5e-6, 4e-7, 0.05
"""List prices of a public bucket in dollars (S3 Standard, us-east-1, the tier of a petabyte): a GB for a month, a
request that writes, one that reads, a GB out to the internet."""
ADD, PUSH, PUSH_AGAIN, UPDATE = "add", "push", "push, 1 % changed", "update, 1 % changed"
DIFF, LIST, VERIFY = "diff", "list", "verify"
_ELSEWHERE = [
    Job(commands={REG: "git clone -q hub elsewhere; rm -rf cache"}),
    Job(DIFF, {REG: "cd elsewhere && {reg} diff HEAD~1 HEAD"}),
    Job(LIST, {REG: "cd elsewhere && {reg} list"}),
    Job(VERIFY, {REG: "rm -rf cache; cd elsewhere && {reg} verify --remote data@HEAD~1"}),
]
"""What somebody does who has nothing of it yet."""
SIZE = 100
"""Bytes of a file in the runs that check what was computed: metadata weighs most with tiny ones."""
ASKED, ASKED_AGAIN = 5, 7
"""Requests that read that a push makes whatever it sends, the first and those after it: the marker, and the manifests.
Each pack is asked for beside, before it is sent and after."""
OLD_PACKS_ASKED_FOR = 64
"""Packs of older versions that are asked for too, or as many as pages changed if those are more; else maps are read."""
ROOT_OBJECTS = 2
"""The topmost page and its map are objects of their own."""


_HEAD = """# A hundred million files and a petabyte

Computed by `python -m benchmarks.scale --page --check 10000 100000 1000000` from the formats' own sizes, and checked
against runs. Prices are the list prices of S3 Standard in us-east-1 (a GB for a month $0.021, a thousand requests that
write $0.005, that read $0.0004, a GB out to the internet $0.05); inside the region going out is free. Memory is what
one process was measured to take at most, with the largest dataset below. `add` and `list` ask no store: the one reads
files, the other Git. By chance a tree of a thousand pages has one level more than is computed: three requests.
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
- *Packs named anew.* A change in each page names all old packs anew, and the first design asked the remote for every
  one of them: 149,000 requests to push one changed file in a hundred of a dataset of the second table. Now the pages
  of the version before say what the remote has, wherever that is less to read; a few are asked for as before.

Everything else (push, update, diff) grows with what changed, or with the number of pages: a thousandth of the
files.
"""


@dataclass(frozen=True)
class Sizes:
    """Compressed bytes of a manifest for each file: of its pages and of its maps; and of a row in a page of pages."""

    page: float
    map: float
    row: float


class Asked(NamedTuple):
    """What an operation asks of a store: requests that write, requests that read, bytes of metadata and of payload."""

    writes: int = 0
    reads: int = 0
    metadata: float = 0
    payload: float = 0

    @property
    def dollars(self) -> float:
        """What it costs: what is read goes out to the internet, what is written comes in for nothing."""
        out = (self.metadata + self.payload) / 1e9 * OUT if self.reads and not self.writes else 0
        return self.writes * PUT + self.reads * GET + out


@dataclass(frozen=True)
class Foreseen:
    """What a dataset costs: objects and bytes in the store, and each operation."""

    objects: int
    metadata: float
    stored: float
    operations: dict[str, Asked]


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
    touched = leaves * (1 - (1 - changed) ** min(files, PER_PAGE))
    again = touched * PER_PAGE * (sizes.page + sizes.map) if leaves > 1 else files * (sizes.page + sizes.map)
    new_packs = _packs(max(1, int(files * changed)), size)
    new_lists = new_packs if lists else 0
    new = files * changed * size
    levels = max(0, math.ceil(math.log(leaves, PER_PAGE))) if leaves > 1 else 0
    pages = math.ceil(touched / BATCH) if leaves > 1 else 0
    opened = ROOT_OBJECTS + max(0, levels - 1)
    old_packs = payload_packs if payload_packs <= max(OLD_PACKS_ASKED_FOR, touched) else opened + pages
    compared = 2 * again * sizes.page / (sizes.page + sizes.map)
    return Foreseen(
        payload_packs + page_packs + lists + ROOT_OBJECTS,
        metadata,
        files * size + metadata,
        {
            ADD: Asked(),
            PUSH: Asked(payload_packs + page_packs + lists + ROOT_OBJECTS,
                        2 * (payload_packs + page_packs) + lists + ASKED, metadata, files * size),
            PUSH_AGAIN: Asked(new_packs + page_packs + new_lists + ROOT_OBJECTS,
                              2 * (new_packs + page_packs) + new_lists + old_packs + ASKED_AGAIN, again, new),
            UPDATE: Asked(0, 1 + opened + pages + math.ceil(new / RANGE), again, new),
            DIFF: Asked(0, 1 + 2 * (opened + pages), compared, 0),
            LIST: Asked(),
            VERIFY: Asked(0, 1 + opened + payload_packs + page_packs + math.ceil(leaves / BATCH), metadata, 0),
        },
    )  # fmt: skip


def _packs(files: int, size: int) -> int:
    if size >= OWN_PACK_FROM:
        return files * math.ceil(size / PACK_LIMIT)
    return max(1, math.ceil(files * size / PACK_TARGET), math.ceil(files / PACK_CHUNK_LIMIT))


def check(counts: list[int], size: int, sizes: Sizes) -> tuple[list[str], dict[str, Cost]]:
    """Do everything with datasets of files of some bytes.

    Returns
    -------
    Rows of what was foreseen and what came, and what each operation cost with the last dataset.
    """
    rows = ["| files | operation | requests foreseen | came | MB foreseen | came | seconds | peak MB |"]
    rows.append("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    last: dict[str, Cost] = {}
    for count in counts:
        folder = Path(tempfile.mkdtemp(prefix="scale-"))
        try:
            write_files(folder / "data", range(count), size)
            bench = Bench(folder, install_peers(), 1)
            with radosgw() as bench.server:
                steps = [*map(_on_a_machine_of_its_own, on_s3()), *_ELSEWHERE]
                bench.measure("s", folder / "data", steps, (REG,), keep=True)
        finally:
            remove(folder)
        found = foresee(count, size, sizes)
        for name, asked in found.operations.items():
            (cost,) = bench.costs["s"][name][REG]
            last[name] = cost
            foreseen, came = asked.metadata + asked.payload, cost.sent + cost.received
            rows.append(
                f"| {count:,} | {name} | {asked.writes + asked.reads} | {cost.requests} "
                f"| {foreseen / 1e6:.2f} | {came / 1e6:.2f} | {cost.seconds:.1f} | {cost.memory / 1e6:.0f} |"
            )
        came = bench.costs["s"][PUSH][REG][0].stored
        rows.append(f"| {count:,} | stored | | | {found.stored / 1e6:.2f} | {came / 1e6:.2f} | | |")
    per_file = ", ".join(f"{name} {cost.cpu / counts[-1] * 1e6:.1f}" for name, cost in last.items())
    rows += ["", f"Processors' time for each of {counts[-1]:,} files, in microseconds: {per_file}."]
    return rows, last


def _on_a_machine_of_its_own(job: Job) -> Job:
    """Let a consumer have a cache of its own: the registry's would have what it is to fetch."""
    command = job.commands.get(REG, "")
    if not command.startswith("cd consumer"):
        return job
    return replace(job, commands={REG: f"export REG_CACHE_DIR={{place}}/theirs; {command}"})


def table(datasets: int, files: int, size: int, sizes: Sizes, measured: dict[str, Cost]) -> list[str]:
    """Return rows of what many alike datasets cost, with the memory that was measured."""
    one = foresee(files, size, sizes)
    rows = [
        f"{datasets:,} datasets of {files:,} files of {size:,} bytes: {datasets * files:,} files, "
        f"{datasets * files * size / 1e15:.2f} PB; {datasets * one.objects:,} objects, "
        f"{datasets * one.metadata / 1e9:,.1f} GB of metadata ({one.metadata / files:.0f} bytes a file); "
        f"${datasets * one.stored / 1e9 * STORED:,.0f} a month to keep.",
        "",
        "| operation, on every dataset | requests | metadata GB | payload GB | dollars | memory MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, asked in one.operations.items():
        metadata, payload = (datasets * part / 1e9 for part in (asked.metadata, asked.payload))
        memory = f"{measured[name].memory / 1e6:.0f}" if name in measured else ""
        rows.append(
            f"| {name} | {datasets * (asked.writes + asked.reads):,} | {metadata:,.2f} | {payload:,.0f} "
            f"| {datasets * asked.dollars:,.2f} | {memory} |"
        )
    return [*rows, ""]


def main() -> None:
    """Print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="*", type=int, default=[])
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    sizes = measure_sizes()
    checked, measured = check(given.check, SIZE, sizes) if given.check else ([], {})
    lines = [_HEAD, f"A file takes {sizes.page:.1f} bytes in pages and {sizes.map:.1f} in maps, compressed.", ""]
    for datasets, files, size in ((10_000, 10_000, 10_000_000), (100, 1_000_000, 10_000_000), (100, 1_000_000, 10_000)):
        lines += table(datasets, files, size, sizes, measured)
    if checked:
        lines += ["## Checked", "", f"Files of {SIZE} bytes, over S3, on {machine()}:", "", *checked, ""]
    lines.append(_FINDINGS)
    text = "\n".join(lines).rstrip() + "\n"
    if given.page:
        PAGE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
