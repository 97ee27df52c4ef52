"""Write docs/benchmarks.md from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from benchmarks.jobs import COPIES, DVC, GIT, LFS, LIMIT, REG, S5CMD

Costs: TypeAlias = Sequence[Mapping[str, Any]]
Jobs: TypeAlias = Mapping[str, Mapping[str, Costs]]
"""What each tool's runs of each job cost: rows of `benchmarks.running.Cost`."""

_TOOLS = (REG, DVC, LFS, GIT, S5CMD, COPIES, LIMIT)
_ORDER = ("small", "s3", "large", "medium", "million", "growing", "huge", "catalog", "starting")
_HEAD = """# Benchmarks

Written by `make bench` (`python -m benchmarks.bench --only small` measures one part anew); what each tool runs stands
at the end. Whole processes, in turn, on one disk and one S3 server (Ceph's gateway on loopback, objects in memory). Git
repositories are cloned from `git daemon` on loopback; by Git LFS from the disk, since it does not speak with that. What
was written before is on the disk when a job begins; what was read before may be in memory. Each tool has folders of its
own, and who consumes has caches of their own. Before a job over files, memory for four times what they take on the disk
(8 GiB at most) is taken and given back: a virtual machine's host takes back what is free, and is slow to give it. All
tools have their default settings, and reg its extra `s3-fast`. Where a disk cannot share blocks, reg links files to its
cache, and DVC copies them; what reg pushes to a directory on the same disk gets second names there, and is not copied.
`push` of Git and Git LFS sends commits too, which Git sends for the others, unmeasured. DVC clones a registry each time
it is asked, and reg fetches what is new in it. A tool that failed does no job after that. Each table names its day, and
the commit where it is known: an older one's script may have been another.
"""
_COLUMNS = """What `add` costs is in [decision 0009](decisions/0009-what-add-costs.md), what `get` and `import` cost in
[0012](decisions/0012-what-get-and-import-cost.md).

*Seconds* are medians, *ratio* is how many times as long as reg a tool takes (the median of the ratios run by run, with
the smallest and the largest), *CPU* the seconds of processors, *peak* the largest process, *files* those made or
changed, *stored* the bytes in the remote afterwards, with Git's where it is a directory, *received* what the gateway
was asked for, though not all of it may have been read. *limit* is what the machine can do: for `add` reading the bytes
into one file and waiting until that is on the disk; for what finds nothing changed `find` looking at every file; for
`push`, `import` and `get` `cp -r`, or `s5cmd` over S3; for `list` and `show` Git naming the metafiles, or reading one;
for what starts importing the library that reads the command line. Of its runs the quickest is shown: the others were
held up. Other jobs have no limit as simple, and directories count no requests.

`add` of 1 GiB stands in two tables; the promise is of the one on a directory. The diff of a million files was to take a
handful of requests as well: it takes one for each page that changed and lies alone
([0008](decisions/0008-pages-are-read-alone.md)).
"""


class _Promise(NamedTuple):
    """A figure to hold: in which part (and which of its tables), of what, how it is measured, and its bound."""

    part: str
    table: int
    what: str
    measured: Callable[[Jobs], float]
    bound: float
    unit: str
    at_least: bool = False


def _times_dvc(jobs: Jobs, job: str) -> float:
    return statistics.median(_ratios(jobs[job][DVC], jobs[job][REG]))


def _times_limit(jobs: Jobs, job: str) -> float:
    return _figure(jobs, job, "seconds") / _quickest(jobs[job][LIMIT])["seconds"]


def _figure(jobs: Jobs, job: str, name: str) -> float:
    return _median(jobs[job][REG], name)


def _stored_by(jobs: Jobs, job: str, before: str) -> float:
    return (_figure(jobs, job, "stored") - _figure(jobs, before, "stored")) / 1e6


def _sent(jobs: Jobs, job: str) -> float:
    return _figure(jobs, job, "sent") / 1e6


def _as_fast(part: str, job: str, bound: float, what: str, table: int = 0) -> _Promise:
    return _Promise(part, table, what, partial(_times_dvc, job=job), bound, " times as fast as DVC", at_least=True)


_PROMISES = (
    _as_fast("small", "add", 8, "add 20,000 files of 10 KB"),
    _as_fast("small", "import", 15, "import them"),
    _as_fast("small", "get", 15, "get them"),
    _Promise("small", 0, "import them", partial(_times_limit, job="import"), 3, " times `cp -r`"),
    _Promise("small", 0, "get them", partial(_times_limit, job="get"), 3, " times `cp -r`"),
    _as_fast("small", "update, 5 % new", 40, "update them, 1,000 new"),
    _as_fast("small", "status, nothing changed", 3, "status of them"),
    _as_fast("s3", "push", 10, "push them to S3"),
    _Promise("s3", 0, "push them to S3", partial(_figure, job="push", name="requests"), 30, " requests"),
    _as_fast("large", "add", 4, "add 1 GiB"),
    _as_fast("large", "push", 4, "push it to a directory"),
    _Promise("large", 0, "append 10 MB to it",
             partial(_stored_by, job="push, 10 MB appended", before="push"), 12, " MB stored"),
    _Promise("s3", 1, "append 10 MB to it", partial(_sent, job="push, 10 MB appended"), 12, " MB sent"),
    _Promise("million", 0, "status of 1,000,000 files",
             partial(_figure, job="status, nothing changed", name="seconds"), 6, " s"),
    _Promise("million", 0, "diff of two versions of them, 100 edits",
             partial(_figure, job="diff, 100 files changed, nothing in the cache", name="seconds"), 1, " s"),
    _Promise("starting", 0, "`--version`", partial(_times_limit, job="--version"), 2, " times `import typer`"),
    _Promise("starting", 0, "status of a small registry",
             partial(_times_limit, job="status of a small registry"), 3, " times `import typer`"),
)  # fmt: skip


def write_page(results: Mapping[str, Any], *, quick: bool = False) -> str:
    """Return the page; of a quick run without what was promised, which is for more data."""
    lines = [_HEAD, *([] if quick else _promises(results)), "", _COLUMNS]
    for part in (results[name] for name in _ORDER if name in results):
        for title, jobs in part["costs"].items():
            runs = max(len(costs) for costs in next(iter(jobs.values())).values())
            said = ", ".join(text for text in part["versions"].values() if text)
            lines += [
                f"## {title[0].upper()}{title[1:]}",
                "",
                f"{part['when']}, {runs} run{'s' * (runs > 1)}; {said}; {part['machine']}."
                f"{'' if part.get('templates') else ' What was run was not kept.'}",
                "",
            ]
            lines += _table(jobs, part["failed"].get(title, {}))
            lines.append("")
    return "\n".join([*lines, *_commands(results)]).rstrip() + "\n"


def _promises(results: Mapping[str, Any]) -> list[str]:
    """Say of each promise what was measured."""
    rows = ["| job | promised | measured | held |", "| --- | --- | ---: | --- |"]
    for part, table, what, measured, bound, unit, at_least in _PROMISES:
        try:
            found = measured(list(results[part]["costs"].values())[table])
            shown, held = f"{found:.3g}", "yes" if (found >= bound if at_least else found <= bound) else "no"
        except LookupError:
            shown, held = "", "not measured"
        rows.append(f"| {what} | {'at least' if at_least else 'at most'} {bound:g}{unit} | {shown} | {held} |")
    every = [costs for part in results.values() for jobs in part["costs"].values() for costs in jobs.values()]
    largest = max(cost["memory"] for by_tool in every for cost in by_tool.get(REG, [])) / 1e6
    rows.append(f"| anything here | at most 500 MB of memory | {largest:.0f} | {'yes' if largest <= 500 else 'no'} |")
    return rows


def _commands(results: Mapping[str, Any]) -> list[str]:
    """List what each tool ran for each job, in whichever part."""
    rows = dict.fromkeys(
        (job, tool, template)
        for name in _ORDER
        for job, by_tool in results.get(name, {}).get("templates", {}).items()
        for tool, template in by_tool.items()
    )
    shown = [f"| {job} | {tool} | `{template.replace('{{', '{').replace('}}', '}')}` |" for job, tool, template in rows]
    return ["## Commands", "", "| job | tool | command |", "| --- | --- | --- |", *shown]


def _table(jobs: Jobs, failed: Mapping[str, Mapping[str, str]]) -> list[str]:
    every = [cost for by_tool in jobs.values() for costs in by_tool.values() for cost in costs]
    network = any(cost["requests"] for cost in every)
    extra = ["requests", "sent MB", "received MB"] if network else []
    names = ["job", "tool", "seconds", "ratio", "CPU", "peak MB", "files", "stored MB", *extra]
    rows = [f"| {' | '.join(names)} |", "| --- | --- |" + " ---: |" * (len(names) - 2)]
    for job, by_tool in jobs.items():
        for tool, every_run in sorted(by_tool.items(), key=lambda item: _TOOLS.index(item[0])):
            costs = [_quickest(every_run)] if tool == LIMIT else every_run
            cells = [
                job,
                tool,
                _seconds(_median(costs, "seconds")),
                _ratio(costs, by_tool.get(REG, [])) if tool != REG else "1",
                _seconds(_median(costs, "cpu")),
                f"{max(cost['memory'] for cost in costs) / 1e6:.0f}",
                f"{_median(costs, 'touched'):,.0f}" if tool != LIMIT else "",
                f"{max(cost['stored'] for cost in costs) / 1e6:,.1f}" if any(c["stored"] for c in costs) else "",
            ]
            if network:
                cells += [f"{_median(costs, 'requests'):,.0f}"]
                cells += [f"{_median(costs, name) / 1e6:,.1f}" for name in ("sent", "received")]
            rows.append(f"| {' | '.join(cells)} |")
        for tool, why in failed.get(job, {}).items():
            rows.append(f"| {job} | {tool} | {why.splitlines()[0][:60]} |" + " |" * (len(names) - 3))
    return rows


def _quickest(costs: Costs) -> Mapping[str, Any]:
    return min(costs, key=lambda cost: cost["seconds"])


def _median(costs: Costs, name: str) -> float:
    return float(statistics.median(cost[name] for cost in costs))


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.3f}"


def _ratios(costs: Costs, base: Costs) -> list[float]:
    """Return how many times as long as others some runs took, each beside its own; not run by run when one failed."""
    if len(costs) != len(base):
        return [_median(costs, "seconds") / _median(base, "seconds")]
    return [cost["seconds"] / other["seconds"] for cost, other in zip(costs, base, strict=True)]


def _ratio(costs: Costs, own: Costs) -> str:
    if not own:
        return ""
    ratios = _ratios(costs, own)
    text = f"{statistics.median(ratios):.2g}" if max(ratios) < 10 else f"{statistics.median(ratios):.1f}"
    return text if len(ratios) == 1 else f"{text} ({min(ratios):.2g}–{max(ratios):.2g})"
