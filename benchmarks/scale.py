"""What a hundred million files and a petabyte cost: python -m benchmarks.scale [--check 10000x100 ...] [--page]

Computed for one dataset from the sizes of the formats (measured on made-up entries) and the rules in docs/formats, and
multiplied; `--check` does everything with datasets of so many files of so many bytes on a real S3 server, and keeps
what came in benchmarks/scale.json, to stand beside what was foreseen. `--page` writes docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.servers.git_servers import git_daemon
from tests.servers.radosgw import radosgw

from benchmarks.bench import Bench, install_peers, machine, versions, working_folder
from benchmarks.data import catalog, write_files
from benchmarks.jobs import REG, Job, files_on_s3
from benchmarks.running import Cost
from registree.model.manifest import BOUNDARY_BITS, Entry, cut_inner, cut_leaves
from registree.model.places import PACK_CHUNK_LIMIT, PACK_LIMIT, PACK_TARGET, Extent, PackRow, encode_leaf_map
from registree.store.base import PIECE
from registree.store.chunk_list import encode_chunks
from registree.store.layout import compress
from registree.store.packing import CHUNK_AVERAGE, CHUNKED_FROM, OWN_PACK_FROM
from registree.store.payload import WHOLE_UP_TO
from registree.store.published import ASKED_FOR
from registree.store.tree_reader import BATCH
from registree.store.tree_writer import WAITING_PAGES

PAGE = Path(__file__).parent.parent / "docs/scale.md"
RESULTS = Path(__file__).parent / "scale.json"
PER_PAGE = 1 << BOUNDARY_BITS
RANGE = 16 << 20
PUT, GET = 5e-6, 4e-7
"""List prices of a public bucket in dollars (S3 Standard, us-east-1): a request that writes, one that reads."""
STORED = ((50_000, 0.023), (450_000, 0.022), (math.inf, 0.021))
OUT = ((10_000, 0.09), (40_000, 0.085), (100_000, 0.07), (math.inf, 0.05))
"""A GB for a month, and a GB out to the internet: for so many GB so much, then for so many more so much."""
ADD, ADD_AGAIN, PUSH, PUSH_AGAIN = "add", "add, 1 % changed", "push", "push, 1 % changed"
UPDATE, DIFF, LIST, VERIFY, DEEP = "update, 1 % changed", "diff", "list", "verify", "verify --deep"
DATASETS = 2000
LIST_MANY = f"list, {DATASETS:,} datasets"


def _many_datasets(place: Path) -> None:
    """Give a registry of one dataset many more."""
    registry = place / "elsewhere"
    for path, text in catalog((registry / "data.reg.yaml").read_text(), ".reg.yaml", range(1, DATASETS)):
        (registry / path).parent.mkdir(exist_ok=True)
        (registry / path).write_text(text)


_ELSEWHERE = [
    Job(commands={REG: "git clone -q hub elsewhere; rm -rf cache"}),
    Job(DIFF, {REG: "cd elsewhere && {reg} diff HEAD~1 HEAD"}),
    Job(LIST, {REG: "cd elsewhere && {reg} list"}),
    Job(VERIFY, {REG: "rm -rf cache; cd elsewhere && {reg} verify --remote data@HEAD~1"}),
    Job(DEEP, {REG: "rm -rf cache; cd elsewhere && {reg} verify --remote --deep data@HEAD~1"}),
    Job("", {REG: "cd elsewhere && git add -A && git commit -qm many"}, _many_datasets),
    Job(LIST_MANY, {REG: "cd elsewhere && {reg} list"}),
]
"""What somebody does who has nothing of it yet."""
ASKED, ASKED_AGAIN = 5, 8
"""Requests that read that a push makes whatever it sends, the first and those after it: the marker, and the manifests.
Each pack is asked for beside, before it is sent and after."""
ROOT_OBJECTS = 2
"""The topmost page and its map are objects of their own."""


_HEAD = """# A hundred million files and a petabyte

Computed by `python -m benchmarks.scale --page` from the formats' own sizes, and checked against runs (`--check
10000x100 100000x100 1000000x100 1000x2097152 200x10000000`). Prices are the list prices of S3 Standard in us-east-1: a
GB for a month $0.023 to $0.021, a thousand requests that write $0.005, that read $0.0004, a GB out to the internet
$0.09 to $0.05, less the more there is in a month. Inside the region going out is free. *Memory* is what one process was
measured to take at most. *Hours* are those of one processor, from what was measured for a command, for a file (of 100
bytes) and for a byte (in files of 2 MiB; for `verify`, which compares sizes, for a pack). `list` asks Git alone, and
lists all datasets at once. By chance a tree of a thousand pages has one level more than is computed, and files lie
together differently: up to four requests.
"""
_FINDINGS = """## Where a cost grows faster than what changed

- *Metadata of an update.* A page holds a thousand entries, so one change in a hundred, spread evenly, touches
  every page: an update rewrites and fetches some 36 bytes for every file of the dataset, changed or not. Beside
  files of 10 MB that is nothing (a file in a hundred is 10 MB for each 3.6 kB of pages); beside files of 100
  bytes it is 36 times what changed. Changes that lie together touch the pages they lie in. Smaller pages would
  save here and cost everywhere else ([decision 0002](decisions/0002-page-size.md) has the numbers).
- *Chunk lists.* A file of 1 MiB and more has 36 bytes in a chunk list for each 64 KiB, 0.06 % of its size, and
  each pack of such files has a list beside it: as many objects again, as small as the packs are many. Only
  `add` on a machine that does not know the older version's chunks reads them, those of the packs in which files lie
  that changed. They are a quarter of the requests of a push, and nearly all of its metadata. One list for many packs
  would save requests, and have `add` read what it does not need.
- *Objects of large files.* A file of 16 MiB and more has packs of its own, so objects grow with files there;
  below that with bytes (64 MiB a pack).
- *Verify* asks once for each pack, so it grows with what is kept, not with what changed.
- *Old packs.* The maps of pages that changed name all packs of their files, old ones too. The first design asked the
  remote for every one of them: 149,000 requests to push one changed file in a hundred of a dataset of the second
  table. Now the maps of the version before say what the remote has, wherever that is less to read
  ([decision 0010](decisions/0010-what-a-push-takes-for-granted.md)).

Everything else grows with what changed, or with the pages that it touches.
"""


@dataclass(frozen=True)
class Sizes:
    """Compressed bytes of a manifest for each file: of its pages and of its maps; and of a row in a page of pages."""

    page: float
    map: float
    row: float


class Asked(NamedTuple):
    """What an operation asks of a store: requests that write, requests that read, bytes of metadata and of payload.

    `load` is what takes time beside its files: bytes of payload, or packs where none are read.
    """

    writes: int = 0
    reads: int = 0
    metadata: float = 0
    payload: float = 0
    load: float = 0

    def dollars(self, times: int) -> float:
        """What it costs so many times: what is read goes out to the internet, what is written comes in for nothing."""
        out = times * (self.metadata + self.payload) if self.reads and not self.writes else 0
        return times * (self.writes * PUT + self.reads * GET) + price(out, OUT)


@dataclass(frozen=True)
class Foreseen:
    """What a dataset costs: objects and bytes in the store, and each operation."""

    objects: int
    metadata: float
    stored: float
    operations: dict[str, Asked]


def price(size: float, tiers: Sequence[tuple[float, float]]) -> float:
    """Return what some bytes cost in dollars, by tiers of GB and the price of one."""
    left, dollars = size / 1e9, 0.0
    for room, each in tiers:
        dollars += min(left, room) * each
        left = max(0.0, left - room)
    return dollars


@cache
def measure_sizes(size: int, count: int = 20_000) -> Sizes:
    """Make a manifest of noise, of files of some bytes, and see how many bytes a file takes in it."""
    noise = random.Random(0)
    entries = [Entry(f"c{n // 200:04d}/{n:07d}.bin", 0, size, noise.randbytes(32)) for n in range(count)]
    together = max(1, min(PACK_TARGET // size, PACK_CHUNK_LIMIT))
    packs = [PackRow(noise.randbytes(32), PACK_TARGET) for _ in range(1 + count // together)]
    leaves = list(cut_leaves(entries))
    maps, at = 0, 0
    for leaf in leaves:
        numbers = range(at, at + len(leaf.entries))
        extents = [(Extent(packs[n // together], n % together * size, size),) for n in numbers]
        maps += len(compress(encode_leaf_map(extents)))
        at += len(leaf.entries)
    pages = sum(len(compress(leaf.content)) for leaf in leaves)
    above = sum(len(compress(page.content)) for page in cut_inner(1, [leaf.ref for leaf in leaves]))
    return Sizes(pages / count, maps / count, above / len(leaves))


def foresee(files: int, size: int, changed: float = 0.01) -> Foreseen:
    """Compute what a dataset costs.

    Parameters
    ----------
    files, size
        How many files, and the bytes of each.
    changed
        The share of files that an update changes, spread evenly.
    """
    sizes = measure_sizes(size)
    payload = files * size
    payload_packs = _packs(files, size)
    leaves = math.ceil(files / PER_PAGE)
    tree = files * (sizes.page + sizes.map) + 2 * leaves * sizes.row
    page_packs = math.ceil(tree / PACK_TARGET) if leaves > 1 else 0
    per_chunk = len(compress(encode_chunks([(random.Random(n).randbytes(32), n) for n in range(100)]))) / 100
    lists = payload_packs if size >= CHUNKED_FROM else 0
    in_lists = per_chunk * payload / CHUNK_AVERAGE if lists else 0
    touched = leaves * (1 - (1 - changed) ** min(files, PER_PAGE))
    in_touched = min(files, touched * PER_PAGE)
    again = in_touched * (sizes.page + sizes.map)
    new_packs = max(_packs(max(1, int(files * changed)), size), math.ceil(touched / WAITING_PAGES))
    new_lists = new_packs if lists else 0
    new = files * changed * size
    fetched = math.ceil(new / RANGE) if size <= WHOLE_UP_TO else round(files * changed) * math.ceil(size / PIECE)
    fetched += new_packs - 1 if WHOLE_UP_TO < size < OWN_PACK_FROM else 0  # a file in two of them
    levels = max(0, math.ceil(math.log(leaves, PER_PAGE))) if leaves > 1 else 0
    pages = math.ceil(touched / BATCH) if leaves > 1 else 0
    opened = ROOT_OBJECTS + max(0, levels - 1)
    asks_maps = payload_packs > max(ASKED_FOR, touched)
    old_packs = opened + pages if asks_maps else payload_packs
    sent_again = again + in_lists * changed + (in_touched * sizes.map if asks_maps else 0)
    looked_at = 1 + opened + payload_packs + page_packs + math.ceil(leaves / BATCH)
    pieces = _pieces(files, size) + math.ceil(tree / PIECE) * bool(page_packs)
    return Foreseen(
        payload_packs + page_packs + lists + ROOT_OBJECTS,
        tree + in_lists,
        payload + tree + in_lists,
        {
            ADD: Asked(load=payload),
            ADD_AGAIN: Asked(load=new),
            PUSH: Asked(payload_packs + page_packs + lists + ROOT_OBJECTS,
                        2 * (payload_packs + page_packs) + ASKED, tree + in_lists, payload, payload),
            PUSH_AGAIN: Asked(new_packs + page_packs + new_lists + ROOT_OBJECTS,
                              2 * (new_packs + page_packs) + old_packs + ASKED_AGAIN, sent_again, new, new),
            UPDATE: Asked(0, 1 + opened + pages + fetched, again, new, new),
            DIFF: Asked(0, 1 + 2 * (opened + pages), 2 * in_touched * sizes.page, 0),
            LIST: Asked(),
            VERIFY: Asked(0, looked_at, tree, 0, payload_packs),
            DEEP: Asked(0, looked_at + pieces, 2 * tree, payload, payload),
        },
    )  # fmt: skip


def _packs(files: int, size: int) -> int:
    if size >= OWN_PACK_FROM:
        return files * math.ceil(size / PACK_LIMIT)
    return max(1, math.ceil(files * size / PACK_TARGET), math.ceil(files / PACK_CHUNK_LIMIT))


def _pieces(files: int, size: int) -> int:
    """Count the reads of whole packs: one is closed by what ends past its limit, so that a little is left to read."""
    if size >= OWN_PACK_FROM:
        return files * math.ceil(size / PIECE)
    full = min(PACK_TARGET, PACK_CHUNK_LIMIT * size)
    before, overhang = _packs(files, size) - 1, full == PACK_TARGET and PACK_TARGET % size != 0
    return before * (math.ceil(full / PIECE) + overhang) + math.ceil((files * size - before * full) / PIECE)


class Checked(NamedTuple):
    """A dataset that was made, and what each operation cost."""

    files: int
    size: int
    costs: dict[str, Cost]


def check(files: int, size: int) -> Checked:
    """Do everything with a dataset, and say what it cost."""
    with working_folder(None) as folder, git_daemon(folder) as hubs:
        write_files(folder / "data", range(files), size)
        bench = Bench(folder, install_peers(), 1)
        bench.hubs = hubs
        with radosgw() as bench.server:
            bench.measure("s", folder / "data", [*files_on_s3(), *_ELSEWHERE], (REG,), keep=True)
    return Checked(files, size, {name: by_tool[REG][0] for name, by_tool in bench.costs["s"].items()})


def came_beside(run: Checked) -> list[str]:
    """Return rows of what was foreseen and what came."""
    found = foresee(run.files, run.size)
    rows = []
    for name, asked in found.operations.items():
        cost = run.costs[name]
        foreseen, came = asked.metadata + asked.payload, cost.sent + cost.received
        rows.append(
            f"| {run.files:,} × {run.size:,} | {name} | {asked.writes + asked.reads} | {cost.requests} "
            f"| {foreseen / 1e6:.2f} | {came / 1e6:.2f} | {cost.seconds:.1f} | {cost.memory / 1e6:.0f} |"
        )
    stored = run.costs[PUSH].stored
    rows.append(f"| {run.files:,} × {run.size:,} | stored | | | {found.stored / 1e6:.2f} | {stored / 1e6:.2f} | | |")
    return rows


def read_checked() -> tuple[str, list[Checked]]:
    """Return what was measured with what, and on what machine; and what came."""
    kept = json.loads(RESULTS.read_text())
    runs = kept["checked"]
    return kept["measured"], [
        Checked(run["files"], run["size"], {name: Cost(**cost) for name, cost in run["costs"].items()}) for run in runs
    ]


def processor_seconds(name: str, files: int, size: int, checked: Sequence[Checked]) -> float:
    """Compute what an operation takes, from what was measured for a command, for a file and for its load."""
    few = min(checked, key=lambda run: run.files * run.size)
    many = max(checked, key=lambda run: run.files)
    large = max(checked, key=lambda run: run.files * run.size)
    per_file = max(0.0, many.costs[name].cpu - few.costs[name].cpu) / max(1, many.files - few.files)
    command = max(0.0, few.costs[name].cpu - few.files * per_file)
    for_load = max(0.0, large.costs[name].cpu - command - large.files * per_file)
    load = foresee(files, size).operations[name].load / (foresee(large.files, large.size).operations[name].load or 1)
    return command + files * per_file + load * for_load


def list_seconds(datasets: int, checked: Sequence[Checked]) -> float:
    """Compute what listing so many datasets takes, once."""
    one, many = (min(run.costs[name].cpu for run in checked) for name in (LIST, LIST_MANY))
    return one + (datasets - 1) * (many - one) / (DATASETS - 1)


def table(datasets: int, files: int, size: int, checked: Sequence[Checked]) -> list[str]:
    """Return rows of what many alike datasets cost, with what was measured."""
    one = foresee(files, size)
    total = datasets * files * size
    rows = [
        f"{datasets:,} datasets of {files:,} files of {size:,} bytes: {datasets * files:,} files, "
        f"{total / 1e15:.3g} PB; {datasets * one.objects:,} objects, "
        f"{datasets * one.metadata / 1e9:,.1f} GB of metadata ({one.metadata / files:.0f} bytes a file); "
        f"${price(datasets * one.stored, STORED):,.0f} a month to keep.",
        "",
        "| operation, on all datasets | requests | metadata GB | payload GB | dollars | hours | memory MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, asked in one.operations.items():
        metadata, payload = (datasets * part / 1e9 for part in (asked.metadata, asked.payload))
        measured = LIST_MANY if name == LIST else name
        memory = f"{max(run.costs[measured].memory for run in checked) / 1e6:.0f}"
        seconds = (
            list_seconds(datasets, checked)
            if name == LIST
            else datasets * processor_seconds(name, files, size, checked)
        )
        rows.append(
            f"| {name} | {datasets * (asked.writes + asked.reads):,} | {metadata:,.2f} | {payload:,.0f} "
            f"| {asked.dollars(datasets):,.2f} | {seconds / 3600:,.1f} | {memory} |"
        )
    return [*rows, ""]


def write_page(measured: str, checked: Sequence[Checked]) -> str:
    """Return the page."""
    lines = [_HEAD]
    for datasets, files, size in ((10_000, 10_000, 10_000_000), (100, 1_000_000, 10_000_000), (100, 1_000_000, 10_000)):
        lines += table(datasets, files, size, checked)
    lines += ["## Checked", "", f"Over S3, with {measured}:", ""]
    lines += ["| files × bytes | operation | requests foreseen | came | MB foreseen | came | seconds | peak MB |"]
    lines += ["| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    lines += [row for run in checked for row in came_beside(run)]
    return "\n".join([*lines, "", _FINDINGS]).rstrip() + "\n"


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="*", default=[], metavar="FILESxBYTES")
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.check:
        runs = [check(*map(int, text.split("x")))._asdict() for text in given.check]
        for run in runs:
            run["costs"] = {name: asdict(cost) for name, cost in run["costs"].items()}
        measured = f"{versions(install_peers())[REG]} on {machine(Path(tempfile.gettempdir()))}"
        RESULTS.write_text(json.dumps({"measured": measured, "checked": runs}, indent=1) + "\n")
    text = write_page(*read_checked())
    if given.page:
        PAGE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
