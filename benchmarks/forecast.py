"""The forecaster on recorded traffic: is it honest, is it sharp, and what does it cost, against naive rules and a library.

Each recording is scaled so that 40 VMs of capacity 1 serve all but a thousandth of its ticks, and stepped through in its
own ticks. The first third is for learning, the rest is judged: outcomes at the lead time (60 s, rounded up to ticks).

- Calibration: the share of outcomes within the lower 50, 90, 95 and 99 % of the law, by the randomised probability
  integral transform, since demand has atoms (Czado, Gneiting and Held 2009); outcomes of one bin are spread over it.
- Sharpness: mean pinball loss at the levels of an Outlook over mean demand (Koenker and Bassett 1978).
- Peers: the last value, and the same time a day ago, each with the quantiles of the errors it made so far, learned
  anew each day; and seasonal naive, AutoETS and AutoTheta of statsforecast, fitted anew each day and carried
  forward, on some days of each recording.
- Time: per forecast of one series.

The recordings' folder is named by AUTOSCALER_TRACES, else ../shared/traces.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.laws import EDGES
from autoscaler.core.params import SCALE_IN_VMS, SeriesParams
from autoscaler.core.types import LAW_BINS, QUANTILE_LEVELS, Horizon, Laws, Samples
from autoscaler.traces.per_vm import read_per_vm
from autoscaler.traces.reading import read_trace
from benchmarks.calibration import Result, kernel_s, timed

Float = NDArray[np.float64]

FOLDER = Path(os.environ.get("AUTOSCALER_TRACES") or Path(__file__).parents[1].parent / "shared" / "traces")
PEAK_VMS, PEAK_QUANTILE = 40.0, 0.999
LEAD_S, STOP_S, HOLD_S, REFILL_S, HALF_LIFE_S = 60.0, 60.0, 300.0, 86_400.0, 5 * 86_400.0
DAY_S = 86_400.0
LEVELS: Float = np.array(QUANTILE_LEVELS)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording on its whole grid: demand in VMs, NaN where unknown."""

    name: str
    tick_s: float
    start_s: float
    demand: Float

    @property
    def lead(self) -> int:
        return math.ceil(LEAD_S / self.tick_s)

    @property
    def first_judged(self) -> int:
        return len(self.demand) // 3


def recordings(names: Sequence[str] = ()) -> list[Recording]:
    """All series of the folder, and the sum over its VMs where it is told by VM over one time."""
    found = []
    for path in sorted(FOLDER.glob("*.csv.gz")):
        name = path.name.removesuffix(".csv.gz")
        if (names and name not in names) or name in _NO_SERIES:
            continue
        if name == "bitbrains_vms_5min":
            vms = read_per_vm(path)
            stamps, values, interval_s = vms.timestamps, np.nansum(vms.cpu_percent, axis=1), vms.interval_s
        else:
            trace = read_trace(path)
            stamps, values, interval_s = trace.timestamps, trace.values, trace.interval_s
        place = np.round((stamps - stamps[0]) / interval_s).astype(np.int64)
        demand = np.full(int(place[-1]) + 1, np.nan)
        demand[place] = values
        demand *= PEAK_VMS / np.nanquantile(demand, PEAK_QUANTILE)
        start_s = math.floor(float(stamps[0]) / interval_s) * interval_s
        found.append(Recording(name, interval_s, start_s, demand))
    return found


_NO_SERIES = {"genai_image_jobs", "vm_boot_contention", "aws_vms_cpu_5min"}
"""Events (their counts are a recording of their own), start-up times, and VMs of different months."""


def params_of(tick_s: float, series: int, *, laws: bool = True) -> SeriesParams:
    def whole(seconds: float) -> NDArray[np.int64]:
        return np.full(series, math.ceil(seconds / tick_s))

    none = np.zeros((0, series))
    return SeriesParams(
        tick_s=tick_s,
        lead_ticks=whole(LEAD_S),
        keep_ticks=whole(LEAD_S + STOP_S),
        hold_ticks=whole(HOLD_S),
        refill_ticks=whole(REFILL_S),
        half_life_ticks=np.full(series, HALF_LIFE_S / tick_s),
        scale=np.full(series, SCALE_IN_VMS),
        laws=np.full(series, laws),
        event_start_s=none,
        event_end_s=none,
        event_factor=none,
        event_odds=none,
    )


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What was issued at each tick for `lead` ticks later: quantiles (T, Q), and where the outcome fell (T, 2)."""

    quantiles: Float
    transform: Float


def drive(each: Sequence[Recording]) -> list[Forecasts]:
    """Step through recordings of one tick length side by side, on the clock of the first."""
    first, count = each[0], max(len(recording.demand) for recording in each)
    demand = np.full((count, len(each)), np.nan)
    for at, recording in enumerate(each):
        demand[: len(recording.demand), at] = recording.demand
    params = params_of(first.tick_s, len(each))
    state = SeriesState.empty(params)
    quantiles = np.full((count, len(QUANTILE_LEVELS), len(each)), np.nan)
    transform = np.full((count, len(each), 2), np.nan)
    ones, never = np.ones(len(each)), np.zeros(len(each), np.bool_)
    for tick in range(count):
        now_s = first.start_s + tick * first.tick_s
        row = demand[tick]
        freshness = np.where(np.isnan(row), 3, 0)
        outlook = step(params, state, Samples(now_s, row, np.full(len(each), now_s), freshness, ones, never))
        quantiles[tick] = outlook.at_lead
        if tick + first.lead < count and outlook.laws is not None:
            transform[tick] = within(outlook.laws, Horizon.LEAD, demand[tick + first.lead])
    return [
        Forecasts(quantiles[: len(each[at].demand), :, at], transform[: len(each[at].demand), at])
        for at in range(len(each))
    ]


def within(laws: Laws, horizon: Horizon, outcome: Float) -> Float:
    """Probability below the bin of each outcome, and with it: (S, 2); NaN where something is unknown."""
    level, spread = laws.level[:, horizon] + laws.scale, laws.spread[:, horizon]
    log_edges = np.minimum(spread[:, np.newaxis] * EDGES, 60.0)
    edges = np.maximum(level[:, np.newaxis] * np.exp(log_edges) - laws.scale[:, np.newaxis], 0.0)
    excess = laws.excess[:, horizon].astype(np.float64)
    width = np.diff(edges, axis=1)
    mean = np.divide(
        -np.diff(excess, axis=1), width, out=np.ones_like(width), where=width > 1e-9 * level[:, np.newaxis]
    )
    mean = np.clip(mean, 0.0, 1.0)
    beyond = np.ones((len(level), LAW_BINS + 1))
    beyond[:, 1:-1] = 0.5 * (mean[:, 1:] + mean[:, :-1])
    beyond[:, -1] = 0.0
    # No demand and the least demand are one bin: nothing is below it.
    place = np.sum(edges <= outcome[:, np.newaxis], axis=1) - 1
    place = np.clip(place, 0, LAW_BINS - 1)
    rows = np.arange(len(level))
    below = np.where(edges[rows, place] <= 0.0, 0.0, 1.0 - beyond[rows, place])
    found = np.stack([below, 1.0 - beyond[rows, place + 1]], axis=1)
    found[np.isnan(outcome) | np.isnan(level)] = np.nan
    return found


@dataclass(frozen=True, slots=True)
class Judgement:
    """Coverage (Q,) by the randomised transform, coverage (Q,) of the quantiles, pinball (Q,) over mean demand."""

    transform: Float
    covered: Float
    pinball: Float


def judge(recording: Recording, found: Forecasts) -> Judgement:
    """Over the judged part."""
    lead = recording.lead
    issued = slice(recording.first_judged, len(recording.demand) - lead)
    outcome = recording.demand[recording.first_judged + lead :]
    known = ~np.isnan(outcome) & ~np.isnan(found.quantiles[issued, 0])
    outcome, quantiles = outcome[known], found.quantiles[issued][known]
    low, high = found.transform[issued][known].T
    draws = np.random.default_rng(1).random(len(outcome))
    value = low + draws * (high - low)
    return Judgement(
        transform=np.array([np.mean(value <= level) for level in LEVELS]),
        covered=np.array([np.mean(outcome <= quantiles[:, at] + 1e-9) for at in range(len(LEVELS))]),
        pinball=pinball(quantiles, outcome) / max(float(np.mean(outcome)), 1e-12),
    )


def pinball(quantiles: Float, outcome: Float) -> Float:
    missed = outcome[:, np.newaxis] - quantiles
    return np.mean(np.maximum(LEVELS * missed, (LEVELS - 1.0) * missed), axis=0)


def naive(recording: Recording, back: int) -> Float:
    """The value `back` ticks before the outcome (at least the lead), and quantiles of its past errors: (T, Q) as issued."""
    demand, lead = recording.demand, recording.lead
    count = len(demand)
    day = min(max(1, round(DAY_S / recording.tick_s)), count // 10)
    point = np.full(count, np.nan)
    source = np.arange(count) + lead - max(back, lead)
    point[source >= 0] = demand[source[source >= 0]]
    error = np.full(count, np.nan)
    error[: count - lead] = demand[lead:] - point[: count - lead]
    offsets = np.full((count, len(LEVELS)), np.nan)
    for begin in range(0, count, day):
        # Errors known at this time: forecasts whose outcome has come, of two weeks.
        past = error[max(0, begin - 14 * day) : max(0, begin - lead)]
        past = past[~np.isnan(past)]
        if len(past) > 10:
            offsets[begin : begin + day] = np.quantile(past, LEVELS)
    return np.maximum(point[:, np.newaxis] + offsets, 0.0)
