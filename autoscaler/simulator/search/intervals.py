"""Confidence intervals of a difference: block bootstrap of the mean of an autocorrelated series.

Which: the stationary bootstrap (Politis and Romano, "The Stationary Bootstrap", 1994): blocks of geometrically
distributed length, joined around the end. Against moving blocks of fixed length, the resampled series is stationary,
as the mean needs it, and a wrong length does less harm, since lengths vary around it. Traffic repeats by the
day, so the mean length is a day where the series is long enough, and never less than the cube root of its length,
which is the order that suits a mean (Politis and White, 2004).

A series that holds few blocks says little about its own spread: resampling then makes intervals too narrow. They are
widened as Student's t is against the normal distribution, at one degree of freedom less than there are blocks, and
for the share of the spread that blocks of that length cannot show (1 - block / series).

Differences are paired: two policies on the same demand and the same luck, hour by hour, so what they share
cancels.

Rules of this file: values in, values out; randomness is a seed. No verdict here.
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
"""Below so many values no interval is told: blocks of any use would be most of the series."""
_DAY_S = 86_400.0
_SHARE_OF_SERIES = 5
"""At least so many blocks must fit into the series on average."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and how far it may be off.

    Attributes:
        mean: Of the series.
        low, high: Ends of the interval; NaN where the series is too short for one.
        level: What it covers, 0.95 is 95 %.
        count: Length of the series.
    """

    mean: float
    low: float
    high: float
    level: float
    count: int

    @property
    def below_zero(self) -> bool:
        """Whether all of it is."""
        return self.high < 0

    @property
    def above_zero(self) -> bool:
        """Whether all of it is."""
        return self.low > 0


def block_length(count: int, step_s: float) -> float:
    """Mean length of the blocks for so many values, each over `step_s`."""
    wanted = max(_DAY_S / step_s, float(count) ** (1 / 3))
    return float(max(min(wanted, count / _SHARE_OF_SERIES), 1.0))


def interval_of(
    values: Float, step_s: float, seed: int, *, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """The percentile interval of a mean.

    Args:
        values: float64 (n,), in time order, finite.
        step_s: What each is over.
        seed: Of the resampling.
        level: What the interval covers. Where so few resamples are beyond its ends that they cannot be told, its ends
            are the furthest resamples.
        resamples: How many.
    """
    count = len(values)
    mean = float(np.add.reduce(values) / count) if count else float("nan")
    mean_block = block_length(count, step_s) if count else 1.0
    if count < FEWEST:
        return Interval(mean, float("nan"), float("nan"), level, count)
    means = np.sort(_resampled_means(values, mean_block, seed, resamples))
    # Counted from outside, so that a tail thinner than one resample is the furthest one.
    outside = int((1.0 - level) / 2 * resamples)
    wider = _widening(count / mean_block, level)
    low, high = (mean + wider * (float(means[at]) - mean) for at in (outside, -1 - outside))
    return Interval(mean, low, high, level, count)


def _widening(blocks: float, level: float) -> float:
    """By how much an interval from so many blocks is widened."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    # Student's t by its expansion around the normal quantile (Abramowitz and Stegun 1964, 26.7.5).
    freedom = max(blocks - 1.0, 1.0)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return t / z / math.sqrt(1.0 - 1.0 / blocks)


def _resampled_means(values: Float, mean_block: float, seed: int, resamples: int) -> Float:
    """float64 (resamples,): the stationary bootstrap, step by step for all resamples at once."""
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
