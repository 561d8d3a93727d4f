"""The clairvoyant optimum of a month of one-minute ticks with 60 levels, at a price and at a served share.

Seconds are those of one core.
"""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.types import Float
from autoscaler.simulator.judging.clairvoyant import Front, Terms, cheapest
from benchmarks.calibration import Result, kernel_s, worked

DAYS, LEVELS, VM = 30, 60, 100.0
SHARES = (0.9999, 0.99985, 0.9997, 0.9996, 0.9994, 0.9993, 0.999, 0.998)
TERMS = Terms(
    tick_s=60.0,
    vm_capacity=VM,
    in_service_per_h=0.096,
    start=0.0005,
    start_billed_s=30.0,
    minimum_billing_s=60.0,
    lead_ticks=1,
    initial=5,
    minimum=1,
)


def demand() -> Float:
    """Days and weeks, noise, and a crowd a day, up to the last level."""
    rng = np.random.default_rng(0)
    minute = np.arange(DAYS * 1440)
    day = 0.5 - 0.5 * np.cos(2 * np.pi * minute / 1440)
    week = np.where((minute // 1440) % 7 < 5, 1.0, 0.6)
    level = 8 + 30 * day * week + rng.gamma(2.0, 1.0, len(minute))
    level[rng.integers(0, len(minute), DAYS)[:, np.newaxis] % (len(minute) - 20) + np.arange(20)] += 15
    told: Float = np.minimum(level / level.max(), 1.0) * LEVELS * VM
    return told


def run() -> list[Result]:
    """Best of three."""
    work, unit = demand(), kernel_s(LEVELS)
    ticks = len(work)
    results = [Result("calibration: in-place add, 60 float64", unit * 1e6, "us")]
    cases = (
        ("at a price of shortage", lambda: cheapest(work, TERMS, (0.096 / 3600 / VM * 5,))),
        ("everything served", lambda: cheapest(work, TERMS, (math.inf,))),
        ("99.9 % served", lambda: Front(work, TERMS).serving(0.999)),
        ("costs of eight served shares", lambda: Front(work, TERMS, precision=1e-4).costs_serving(SHARES)),
    )
    for name, case in cases:
        took = min(worked(case) for _ in range(3))
        note = f"{took / ticks / unit:.1f} adds of 60 per tick; {ticks:,} ticks"
        results.append(Result(f"optimum, a month of minutes x 60 levels, {name}", took, "s", note))
    return results
