"""Confidence intervals of a difference: block bootstrap of the mean of an autocorrelated series.

The method is the stationary bootstrap (Politis and Romano, "The Stationary Bootstrap", 1994): blocks of geometrically
distributed length, joined around the end. Unlike with moving blocks of fixed length, the resampled series is stationary, as
inference about the mean requires. A wrong length does less harm, because lengths vary around it. Traffic repeats every day,
so the mean length is a day if the series is long enough, and never less than the cube root of the series' length, the order
that suits a mean (Politis and White, 2004).

A series that holds few blocks says little about its own spread, and resampling then makes intervals too narrow. They are
widened in two ways: by the ratio of Student's t to the normal distribution, with one degree of freedom less than there are
blocks, and for the part of the spread that blocks of that length cannot show (1 - block / series).

Differences are paired: two policies face the same demand and the same luck, hour by hour, so common effects cancel.

Rules of this file: values in, values out; randomness comes from a seed. No verdict is made here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from autoscaler.core.types import Float
from autoscaler.simulator.lanes.draws import Luck, Purpose

RESAMPLES = 4000
LEVEL = 0.95
FEWEST = 16
"""With fewer values no interval is given, because blocks of a useful length would be most of the series."""
_DAY_S = 86_400.0
_SHARE_OF_SERIES = 5
"""Least number of blocks that must fit into the series on average."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and how far it may be off.

    Attributes:
        mean: Mean of the series.
        low, high: Ends of the interval; NaN if the series is too short for one.
        level: Probability that it covers, 0.95 for 95 %.
        count: Length of the series.
    """

    mean: float
    low: float
    high: float
    level: float
    count: int

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.high < 0

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0


def block_length(count: int, step_s: float) -> float:
    """Return the mean length of the blocks for `count` values that cover `step_s` seconds each."""
    wanted = max(_DAY_S / step_s, float(count) ** (1 / 3))
    return float(max(min(wanted, count / _SHARE_OF_SERIES), 1.0))


def interval_of(
    values: Float, step_s: float, seed: int, *, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """Return the percentile interval of a mean.

    Args:
        values: float64 (n,), in time order, finite.
        step_s: Seconds that each value covers.
        seed: Seed of the resampling.
        level: Probability that the interval covers. If less than one resample is expected beyond each end, the ends
            are the furthest resamples.
        resamples: Number of resamples.
    """
    count = len(values)
    mean = float(np.add.reduce(values) / count) if count else float("nan")
    mean_block = block_length(count, step_s) if count else 1.0
    if count < FEWEST:
        return Interval(mean, float("nan"), float("nan"), level, count)
    means = np.sort(_resampled_means(values, mean_block, seed, resamples))
    # Counted from outside, so that a tail thinner than one resample is the furthest resample.
    outside = int((1.0 - level) / 2 * resamples)
    wider = _widening(count / mean_block, level)
    low, high = (mean + wider * (float(means[at]) - mean) for at in (outside, -1 - outside))
    return Interval(mean, low, high, level, count)


def _widening(blocks: float, level: float) -> float:
    """Return the factor by which an interval from this many blocks is widened."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    # Student's t by its expansion around the normal quantile (Abramowitz and Stegun 1964, 26.7.5).
    freedom = max(blocks - 1.0, 1.0)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return t / z / math.sqrt(1.0 - 1.0 / blocks)


def _resampled_means(values: Float, mean_block: float, seed: int, resamples: int) -> Float:
    """Return float64 (resamples,), means of a stationary bootstrap, computed step by step for all resamples at once."""
    luck, count = Luck(seed, "intervals"), len(values)
    at = np.zeros(resamples, np.int64)
    total = np.zeros(resamples)
    for step in range(count):
        drawn = luck.uniforms(Purpose.BOOTSTRAP, step, 2 * resamples)
        fresh = (drawn[:resamples] < 1.0 / mean_block) if step else np.ones(resamples, np.bool_)
        begins = (drawn[resamples:] * count).astype(np.int64)
        at = np.where(fresh, begins, (at + 1) % count)
        total += values[at]
    return total / count
