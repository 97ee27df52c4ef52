"""Write docs/benchmarks.md from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.jobs import LIMIT, REG, STARTING, on_a_directory, on_s3, one_large_file

_ORDER = ("small", "s3", "large", "medium", "million", "growing", "catalog", "starting")
_HEAD = """# Benchmarks

Written by `make bench` (`python -m benchmarks.bench --only small` measures one part anew); what each tool runs stands
at the end. Whole processes, in turn, on one disk and one S3 server (Ceph's gateway on loopback, objects in
memory), each tool with caches and folders of its own. Jobs in which reg is slower are here too.

*Seconds* are medians, *ratio* is how many times as long as reg a tool takes (the median of the ratios run by run, with
the smallest and the largest), *CPU* the seconds of processors, *peak* the largest process, *files* those made or
changed, *stored* the bytes in the remote afterwards, Git's included. *limit* is what the machine can do: for `add`
reading the bytes into one file and waiting until that is on the disk, for the others `cp -r`, for what starts importing
the library that reads the command line.
"""


def write_page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [_HEAD]
    for part in (results[name] for name in _ORDER if name in results):
        for title, jobs in part["costs"].items():
            runs = max(len(costs) for by_tool in jobs.values() for costs in by_tool.values())
            said = ", ".join(text for text in part["versions"].values() if text)
            lines += [
                f"## {title[0].upper()}{title[1:]}",
                "",
                f"{part['when']}, {runs} runs; {said}; {part['machine']}.",
                "",
            ]
            lines += _table(jobs, part["failed"].get(title, {}))
            lines.append("")
    return "\n".join([*lines, *_commands()]).rstrip() + "\n"


def _commands() -> list[str]:
    """List what each tool runs for each job."""
    names = {name: name for name in ("reg", "dvc", "s5cmd", "python")}
    names |= {"data": "DATA", "data_s5": "DATA", "place": "PLACE", "bucket": "BUCKET", "endpoint": "URL"}
    rows: dict[tuple[str, str], str] = {}
    for script in (on_a_directory(1, 1), one_large_file(), on_s3()):
        for job in script:
            rows |= {(job.name, tool): command for tool, command in job.commands.items() if job.name}
    for name, commands in STARTING.items():
        rows |= {(name, tool): command for tool, command in commands.items()}
    shown = [f"| {job} | {tool} | `{command.format(**names)}` |" for (job, tool), command in rows.items()]
    return ["## Commands", "", "| job | tool | command |", "| --- | --- | --- |", *shown]


def _table(jobs: Mapping[str, Any], failed: Mapping[str, Mapping[str, str]]) -> list[str]:
    every = [cost for by_tool in jobs.values() for costs in by_tool.values() for cost in costs]
    network = any(cost["requests"] for cost in every)
    extra = ["requests", "sent", "received"] if network else []
    names = ["job", "tool", "seconds", "ratio", "CPU", "peak MB", "files", "stored MB", *extra]
    rows = [f"| {' | '.join(names)} |", "| --- | --- |" + " ---: |" * (len(names) - 2)]
    for job, by_tool in jobs.items():
        for tool, costs in by_tool.items():
            cells = [
                job,
                tool,
                f"{_median(costs, 'seconds'):.2f}",
                _ratio(costs, by_tool.get(REG, [])) if tool != REG else "1",
                f"{_median(costs, 'cpu'):.2f}",
                f"{max(cost['memory'] for cost in costs) / 1e6:.0f}",
                f"{_median(costs, 'touched'):,.0f}" if tool != LIMIT else "",
                f"{_median(costs, 'stored') / 1e6:,.1f}" if tool != LIMIT and any(c["stored"] for c in costs) else "",
            ]
            if network:
                cells += [f"{_median(costs, 'requests'):,.0f}"]
                cells += [f"{_median(costs, name) / 1e6:,.1f} MB" for name in ("sent", "received")]
            rows.append(f"| {' | '.join(cells)} |")
        for tool, why in failed.get(job, {}).items():
            rows.append(f"| {job} | {tool} | {why.splitlines()[0][:60]} |" + " |" * (len(names) - 3))
    return rows


def _median(costs: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(cost[name] for cost in costs)


def _ratio(costs: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> str:
    ratios = [cost["seconds"] / base["seconds"] for cost, base in zip(costs, own, strict=False)]
    if not ratios:
        return ""
    text = f"{statistics.median(ratios):.2g}" if max(ratios) < 10 else f"{statistics.median(ratios):.1f}"
    return text if len(ratios) == 1 else f"{text} ({min(ratios):.2g}–{max(ratios):.2g})"
