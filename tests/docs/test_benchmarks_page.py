"""The page of benchmarks is written from what was measured, and by nobody's hand."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.jobs import DVC, REG
from benchmarks.page import write_page

ROOT = Path(__file__).parents[2]


def test_page_is_what_was_measured() -> None:
    results = json.loads((ROOT / "benchmarks/results.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8") == write_page(results), (
        "run: python -m benchmarks.bench --page"
    )


def test_ratio_is_of_runs_beside_each_other() -> None:
    nothing = {"cpu": 0.0, "memory": 0, "touched": 0, "stored": 0, "requests": 0, "sent": 0, "received": 0}
    costs = {
        REG: [{**nothing, "seconds": 1.0}, {**nothing, "seconds": 2.0}, {**nothing, "seconds": 1.0}],
        DVC: [{**nothing, "seconds": 3.0}, {**nothing, "seconds": 8.0}, {**nothing, "seconds": 6.0}],
    }
    part = {
        "when": "2026-01-01",
        "machine": "m",
        "versions": {REG: "reg 1"},
        "failed": {"t": {"push": {DVC: "not over"}}},
    }
    page = write_page({"small": {**part, "costs": {"t": {"add": costs, "push": {REG: costs[REG]}}}}})
    assert "| add | DVC | 6.00 | 4 (3–6) |" in page
    assert "| push | DVC | not over |" in page
