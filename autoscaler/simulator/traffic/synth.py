"""The demo's day: a daily cycle, flash crowds and counting noise of a stated dispersion, from a seed.

Rules of this file: a trace is a pure function of its arguments. The noise is one stream of draws, unlike that of `parts`.
Generated traffic is always called generated: policies are judged on recorded traffic, and this is for demonstrations if no
recording is at hand.
"""

from __future__ import annotations

import numpy as np

from autoscaler.simulator.traffic.parts import (
    DAY_S,
    DEFAULT_START_S,
    MORNING_S,
    VM_CAPACITY_PER_S,
    Crowd,
    Daily,
    Level,
    Recipe,
    checked,
    counts,
    expected_rate,
    stamps_of,
)
from autoscaler.traces.trace import Trace

LATER_S = 300.0
SHARES = 0.7, 1.1
"""The most seconds by which a morning's crowd is off its usual time, and the range of its height as shares of the default."""


def morning_crowd(seed: int, day: int, at_s: float = MORNING_S) -> Crowd:
    """Return the crowd of one morning, with a time and height that vary from day to day.

    Args:
        seed: Seed of the draws, together with `day`.
        day: Number of the day.
        at_s: Its usual time; the crowd's own `at_s` is at most `LATER_S` sooner or later.
    """
    draws = np.random.default_rng([seed, day])
    off_s, share = draws.uniform(-LATER_S, LATER_S), draws.uniform(*SHARES)
    return Crowd(at_s=at_s + float(off_s), height=float(share) * Crowd().height)


def synth_day(
    seed: int,
    start_s: float = DEFAULT_START_S,
    *,
    days: float = 1.0,
    interval_s: float = 10.0,
    base: float = 5.0 * VM_CAPACITY_PER_S,
    daily_amplitude: float = 13.0 * VM_CAPACITY_PER_S,
    daily_peak_at_s: float = 13.0 * 3600.0,
    crowds: tuple[Crowd, ...] = (Crowd(),),
    dispersion: float = 20.0,
) -> Trace:
    """Return a trace of counts: work that arrives in each interval.

    Args:
        seed: Seed of the noise; the same arguments give the same trace.
        start_s: Epoch seconds of the first interval.
        days: Length, in days; the last interval may reach beyond it.
        interval_s: Length of an interval.
        base: Work per second at the lowest point of the day.
        daily_amplitude: Work per second between the lowest and the highest point of the day.
        daily_peak_at_s: Time of the highest point, in seconds after midnight UTC.
        crowds: Flash crowds.
        dispersion: Variance over mean of a count around its expectation: 1 is Poisson, more is burstier (a Poisson count
            whose mean is itself gamma distributed).

    Raises:
        TraceError: An argument is impossible.
    """
    recipe = checked(
        Recipe(
            seed,
            start_s,
            days * DAY_S,
            interval_s,
            dispersion=dispersion,
            parts=(Level(base), Daily(daily_amplitude, daily_peak_at_s), *crowds),
        )
    )
    stamps = stamps_of(recipe)
    mean = interval_s * expected_rate(recipe, stamps + interval_s / 2)
    values = counts(np.random.default_rng(seed), mean, recipe)
    return Trace.build(stamps, values, kind=recipe.kind, name=f"generated-{seed}", interval_s=interval_s)
