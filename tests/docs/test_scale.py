"""What a very large registry is said to cost is what smaller ones did cost."""

from __future__ import annotations

import math

import pytest
from benchmarks.scale import OUT, Checked, foresee, price, read_checked

_, RUNS = read_checked()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.files}x{run.size}")
def test_what_came_was_foreseen(run: Checked) -> None:
    found = foresee(run.files, run.size)
    for name, asked in found.operations.items():
        cost = run.costs[name]
        assert abs(asked.writes + asked.reads - cost.requests) <= 4, name
        came = cost.sent + cost.received
        assert math.isclose(asked.metadata + asked.payload, came, rel_tol=0.06, abs_tol=50_000), name


def test_price_has_tiers() -> None:
    assert price(1e12, OUT) == pytest.approx(90)
    assert price(60e12, OUT) == pytest.approx(10_000 * 0.09 + 40_000 * 0.085 + 10_000 * 0.07)
