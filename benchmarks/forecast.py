"""The forecaster on recorded traffic: is it honest, is it sharp, and what does it cost, against naive rules and a library.

Each recording is scaled so that 40 VMs of capacity 1 serve all but a thousandth of its ticks, and stepped through in its
own ticks. The first third is for learning, the rest is judged: outcomes at the lead time (60 s, rounded up to ticks).

- Calibration: the share of outcomes within the lower 50, 90, 95 and 99 % of the law, by the randomised probability
  integral transform, since demand has atoms (Czado, Gneiting and Held 2009); outcomes of one bin are spread over it.
- Sharpness: mean pinball loss at the levels of an Outlook over mean demand (Koenker and Bassett 1978).
- Peers: the last value, and the same time a day ago, each with the quantiles of the errors it made so far, learned
  anew each day; and seasonal naive, AutoETS and AutoTheta of statsforecast, fitted anew each day and carried
  forward, on some days of each recording (`--against FILE` keeps what they said: `forecast_library`).
- Time of the processor: per forecast of one series, and of a thousand series side by side; of learning only.

The recordings' folder is named by AUTOSCALER_TRACES, else ../shared/traces.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.forecast import SeriesState, learn, step, steps
from autoscaler.core.params import SCALE_IN_VMS, SeriesParams
from autoscaler.core.types import QUANTILE_LEVELS, Samples
from autoscaler.simulator.judging.calibration import calibrated, covers
from autoscaler.traces.per_vm import read_per_vm
from autoscaler.traces.reading import read_trace
from benchmarks.calibration import Result, kernel_s
from benchmarks.forecast_library import Library

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
        refill_laws=np.full(series, laws),
        event_start_s=none,
        event_end_s=none,
        event_factor=none,
        event_odds=none,
    )


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What was issued at each tick for `lead` ticks later: quantiles (T, Q), and where the outcome fell (T, 2)."""

    quantiles: Float
    below: Float


def drive(each: Sequence[Recording]) -> list[Forecasts]:
    """Step through recordings of one tick length side by side, on the clock of the first."""
    first, count = each[0], max(len(recording.demand) for recording in each)
    demand = np.full((count, len(each)), np.nan)
    for at, recording in enumerate(each):
        demand[: len(recording.demand), at] = recording.demand
    params = params_of(first.tick_s, len(each))
    state = SeriesState.empty(params)
    quantiles = np.full((count, len(QUANTILE_LEVELS), len(each)), np.nan)
    below = np.full((count, len(each), len(QUANTILE_LEVELS)), np.nan)
    ones, never = np.ones(len(each)), np.zeros(len(each), np.bool_)
    for tick in range(count):
        now_s = first.start_s + tick * first.tick_s
        row = demand[tick]
        freshness = np.where(np.isnan(row), 3, 0)
        outlook = step(params, state, Samples(now_s, row, np.full(len(each), now_s), freshness, ones, never))
        quantiles[tick] = outlook.at_lead
        if tick + first.lead < count:
            below[tick] = covers(outlook, demand[tick + first.lead])
    return [
        Forecasts(quantiles[: len(each[at].demand), :, at], below[: len(each[at].demand), at])
        for at in range(len(each))
    ]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Share of outcomes at or below each quantile (Q,), pinball (Q,) over mean demand."""

    covered: Float
    pinball: Float


def judge(recording: Recording, found: Forecasts) -> Judgement:
    """Over the judged part."""
    lead = recording.lead
    issued = slice(recording.first_judged, len(recording.demand) - lead)
    outcome = recording.demand[recording.first_judged + lead :]
    known = ~np.isnan(outcome) & ~np.isnan(found.quantiles[issued, 0])
    outcome, quantiles = outcome[known], found.quantiles[issued][known]
    return Judgement(
        covered=np.mean(found.below[issued][known], axis=0),
        pinball=pinball(quantiles, outcome) / max(float(np.mean(outcome)), 1e-12),
    )


def pinball(quantiles: Float, outcome: Float) -> Float:
    missed = outcome[:, np.newaxis] - quantiles
    lost: Float = np.mean(np.maximum(LEVELS * missed, (LEVELS - 1.0) * missed), axis=0)
    return lost


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
    told: Float = np.maximum(point[:, np.newaxis] + offsets, 0.0)
    return told


# ── a library ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Compared:
    """Ours against peers of a library at the same origins: ratios of pinball by peer, and to the best of them; seconds."""

    ratios: dict[str, float]
    best: float
    theta_s: float


def compared(recording: Recording, found: Forecasts, library: Library) -> Compared | None:
    """None where the library is not here, nor what it said is kept."""
    day = min(max(1, round(DAY_S / recording.tick_s)), recording.first_judged // 2)
    told = library.told(recording.name, recording.demand, recording.first_judged, recording.lead, day)
    if told is None:
        return None
    origins = np.array(told.origins)
    outcome = recording.demand[origins + recording.lead]
    ours = float(np.mean(pinball(found.quantiles[origins], outcome)))
    theirs = {name: float(np.mean(pinball(np.array(rows), outcome))) for name, rows in told.quantiles.items()}
    ratios = {name: ours / value for name, value in theirs.items()}
    return Compared(ratios, ours / min(theirs.values()), told.fit_s["AutoTheta"])


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────


def step_times(series: int, count: int, *, laws: bool = True, tick_s: float = 60.0) -> Float:
    """Seconds of the processor for single steps over random demand, after a quarter to warm up."""
    params, rng = params_of(tick_s, series, laws=laws), np.random.default_rng(0)
    state = SeriesState.empty(params)
    demand = 10.0 * np.exp(rng.normal(0.0, 0.1, (count, series)))
    zeros, ones, never = np.zeros(series, np.int64), np.ones(series), np.zeros(series, np.bool_)
    times = []
    for tick in range(count):
        now_s = 1e9 + tick * tick_s
        samples = Samples(now_s, demand[tick], np.full(series, now_s), zeros, ones, never)
        before = time.process_time()
        step(params, state, samples)
        times.append(time.process_time() - before)
    return np.array(times[count // 4 :])


def learn_times(series: int, count: int) -> Float:
    """The same for what is only learned."""
    params, rng = params_of(60.0, series), np.random.default_rng(0)
    state = SeriesState.empty(params)
    demand = 10.0 * np.exp(rng.normal(0.0, 0.1, (count, series)))
    zeros, ones, never = np.zeros(series, np.int64), np.ones(series), np.zeros(series, np.bool_)
    times = []
    for tick in range(count):
        now_s = 1e9 + tick * 60.0
        samples = Samples(now_s, demand[tick], np.full(series, now_s), zeros, ones, never)
        before = time.process_time()
        learn(params, state, samples)
        times.append(time.process_time() - before)
    return np.array(times[count // 4 :])


def together_s(series: int, count: int) -> float:
    """The same for each tick of a replay, which goes through many ticks at once."""
    params, rng = params_of(60.0, series), np.random.default_rng(0)
    demand = 10.0 * np.exp(rng.normal(0.0, 0.1, (count, series)))
    zeros, ones, never = np.zeros(series, np.int64), np.ones(series), np.zeros(series, np.bool_)
    samples = [Samples(1e9 + tick * 60.0, row, row, zeros, ones, never) for tick, row in enumerate(demand)]
    before = time.process_time()
    for _ in steps(params, SeriesState.empty(params), samples):
        pass
    return (time.process_time() - before) / count


def run(names: Sequence[str] = (), against: Path | None = None) -> list[Result]:
    """All recordings; minutes.

    Args:
        names: Of recordings; empty for all.
        against: A file that keeps what the library said, written where it is not there yet; None keeps nothing.
    """
    unit_us = kernel_s() * 1e6
    results = [Result("calibration: in-place add, 1,000 float64", unit_us, "us")]
    for series, laws, count in ((1, True, 3000), (1, False, 3000), (1000, True, 200)):
        times_us = step_times(series, count, laws=laws) * 1e6
        what = f"step, {series:,} series, {'laws' if laws else 'quantiles only'}"
        for label, at in (("p50", 50), ("p99", 99)):
            value = float(np.percentile(times_us, at))
            results.append(Result(f"{what}, {label}", value, "us", f"{value / unit_us:,.0f} adds of 1,000"))
    for series, count in ((1, 2000), (64, 600), (1000, 120)):
        stepped, learned = (
            float(np.median(times)) for times in (step_times(series, count), learn_times(series, count))
        )
        results.append(
            Result(f"learn / step, {series:,} series", learned / stepped, "x", f"{learned * 1e6:,.0f} us")
        )
    for series, count in ((1, 8000), (8, 2000)):
        each_us = min(together_s(series, count) for _ in range(3)) * 1e6
        results.append(Result(f"a tick of a replay, {series:,} series", each_us, "us", "many ticks at once"))
    one_s = float(np.median(step_times(1, 2000)))
    fits: list[bool] = []
    naive_skill, skills, theta_s = [], defaultdict(list), []
    library = Library(against)
    for recording in recordings(names):
        found = drive([recording])[0]
        told, peers = judge(recording, found), compared(recording, found, library)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            day = min(round(DAY_S / recording.tick_s), len(recording.demand) // 10)
            rivals = [
                judge(recording, Forecasts(naive(recording, back), np.zeros((len(recording.demand), 2))))
                for back in (0, day)
            ]
        fits.append(calibrated(told.covered))
        mine, best = float(told.pinball.mean()), min(np.nanmin([r.pinball.mean() for r in rivals]), np.inf)
        naive_skill.append(mine / best)
        words = "PIT " + " ".join(f"{share:.3f}" for share in told.covered) + ("" if fits[-1] else " (out)")
        words += f"; / naive {mine / best:.3f}"
        if peers is not None:
            for name, ratio in peers.ratios.items():
                skills[name].append(ratio)
            skills["best"].append(peers.best)
            theta_s.append(peers.theta_s)
            words += "; / " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in peers.ratios.items())
        results.append(Result(recording.name, mine, "pinball", words))
    results.append(
        Result(
            "recordings whose coverage is within the goal",
            100.0 * float(np.mean(fits)),
            "%",
            "50, 90, 95 % within 2 points, 99 % within 0.7",
        )
    )
    results.append(
        Result(
            "pinball / better of last value and seasonal naive",
            _geometric(naive_skill),
            "x",
            "geometric mean",
        )
    )
    for name, ratios in skills.items():
        what = "the best of them on each" if name == "best" else name
        results.append(
            Result(
                f"pinball / {what} of statsforecast", _geometric(ratios), "x", "geometric mean, same origins"
            )
        )
    if theta_s:
        results.append(
            Result(
                "time of one fit of AutoTheta / one step of ours",
                float(np.median(theta_s)) / one_s,
                "x",
                f"{np.median(theta_s):.3f} s",
            )
        )
    return results


def _geometric(ratios: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))
