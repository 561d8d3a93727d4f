"""Generated traffic: a daily cycle, flash crowds and counting noise of a stated dispersion, from a seed.

Rules of this file: a trace is a pure function of its arguments. The noise is the only random part and is
stated by one number that a test can measure. What is generated is called generated: recorded traffic is what
policies are judged on, and this is what a demonstration runs on where no recording is at hand.

Not here: traffic made of any parts (`traffic`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces.trace import Trace, TraceKind

DAY_S = 86_400.0

DEFAULT_START_S = 1_772_409_600.0
"""2026-03-02T00:00:00Z, a Monday."""

VM_CAPACITY_PER_S = 120.0
"""Work per second of one VM that the defaults are drawn for: 5 to 18 VMs on the day, 45 in the crowd."""


MORNING_S = 10 * 3600.0 + 5 * 60.0
"""When the crowd of a morning is usually there, seconds after midnight."""


LATER_S = 300.0
SHARES = 0.7, 1.1
"""How far the crowd of a morning is off its usual time at most, and how high it is, as shares of the default."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """One flash crowd on top of the daily cycle.

    Attributes:
        at_s: When it begins, in seconds after the midnight (UTC) at or before the start of the trace.
        rise_s: From its beginning to its peak, along half a cosine.
        height: Work per second that it adds at its peak.
        decay_s: From its peak to a twentieth of it, falling exponentially.
    """

    at_s: float = MORNING_S
    rise_s: float = 240.0
    height: float = 29.0 * VM_CAPACITY_PER_S
    decay_s: float = 2400.0


def morning_crowd(seed: int, day: int, at_s: float = MORNING_S) -> Crowd:
    """The crowd of one of many mornings: it comes when it usually does, give or take, and never as many.

    Args:
        seed: Of the draws; together with `day`.
        day: Number of the day.
        at_s: When it usually begins; the crowd's `at_s` is at most `LATER_S` sooner or later.
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
    """A trace of counts: work that arrives in each interval.

    Args:
        seed: Of the noise; the same arguments give the same trace.
        start_s: Epoch seconds of the first interval.
        days: Length, in days; the last interval may reach beyond it.
        interval_s: Length of an interval.
        base: Work per second at the lowest point of the day.
        daily_amplitude: Work per second between the lowest and the highest point of the day.
        daily_peak_at_s: Time of the highest point, in seconds after midnight UTC.
        crowds: Flash crowds.
        dispersion: Variance over mean of a count around its expectation: 1 is Poisson, more is burstier
            (a Poisson count whose mean is itself gamma distributed).

    Raises:
        TraceError: An argument is impossible.
    """
    _check(seed, days, interval_s, dispersion, base, daily_amplitude, crowds)
    rows = math.ceil(days * DAY_S / interval_s - 1e-9)
    stamps = start_s + interval_s * np.arange(rows, dtype=np.float64)
    mean = interval_s * expected_rate(
        stamps + interval_s / 2,
        midnight_s=math.floor(start_s / DAY_S) * DAY_S,
        base=base,
        daily_amplitude=daily_amplitude,
        daily_peak_at_s=daily_peak_at_s,
        crowds=crowds,
    )
    counts = _counts(np.random.default_rng(seed), mean, dispersion)
    return Trace.build(stamps, counts, kind=TraceKind.COUNT, name=f"generated-{seed}", interval_s=interval_s)


def expected_rate(
    times_s: NDArray[np.float64],
    *,
    midnight_s: float,
    base: float,
    daily_amplitude: float,
    daily_peak_at_s: float,
    crowds: tuple[Crowd, ...],
) -> NDArray[np.float64]:
    """Work per second without the noise, at these epoch seconds."""
    since_s = times_s - midnight_s
    phase = 2 * np.pi * (since_s - daily_peak_at_s) / DAY_S
    rate = base + daily_amplitude * (1 + np.cos(phase)) / 2
    for crowd in crowds:
        rate = rate + crowd.height * crowd_shape(since_s - crowd.at_s, crowd)
    return rate


def crowd_shape(since_s: NDArray[np.float64], crowd: Crowd) -> NDArray[np.float64]:
    """Share of a crowd's height, this many seconds after its beginning."""
    risen = np.clip(since_s / crowd.rise_s, 0.0, 1.0)
    falling_s = np.maximum(since_s - crowd.rise_s, 0.0)
    return (1 - np.cos(np.pi * risen)) / 2 * np.exp(-math.log(20.0) * falling_s / crowd.decay_s)


def _counts(
    generator: np.random.Generator, mean: NDArray[np.float64], dispersion: float
) -> NDArray[np.float64]:
    if dispersion > 1:
        # Var = E[G] + Var[G] = m + m (d - 1) = m d for G ~ gamma with mean m and scale d - 1.
        mean = generator.gamma(mean / (dispersion - 1), dispersion - 1)
    return generator.poisson(mean).astype(np.float64)


def _check(
    seed: int,
    days: float,
    interval_s: float,
    dispersion: float,
    base: float,
    daily_amplitude: float,
    crowds: tuple[Crowd, ...],
) -> None:
    rules: list[tuple[bool, str]] = [
        (seed >= 0, f"the seed must be 0 or more, not {seed}"),
        (0 < days < math.inf, f"the length must be more than 0 days, not {days}"),
        (0 < interval_s < math.inf, f"the interval must be more than 0 s, not {interval_s}"),
        (1 <= dispersion < math.inf, f"the dispersion must be 1 (Poisson) or more, not {dispersion}"),
        (0 <= base < math.inf, f"the base must be 0 work/s or more, not {base}"),
        (
            0 <= daily_amplitude < math.inf,
            f"the daily amplitude must be 0 work/s or more, not {daily_amplitude}",
        ),
    ]
    for crowd in crowds:
        possible = crowd.rise_s > 0 and crowd.decay_s > 0 and 0 <= crowd.height < math.inf
        rules.append(
            (possible, f"a crowd needs a rise and a decay above 0 s and a height of 0 or more: {crowd}")
        )
    for holds, message in rules:
        if not holds:
            raise TraceError(f"No traffic can be generated: {message}.")
