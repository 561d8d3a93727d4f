"""The lane engine: a year of one-minute ticks under a thousand variants of a policy, and under one.

Reactive variants run the whole year. Forecasting ones run days of it, and so do a thousand fleets whose demand
differs; the year and the week follow from their ticks (after the first quarter, in which little has been learned yet).

The sweep runs in a process of its own, so that its peak memory is its own too. Seconds are those of one core
(CPU time), which other programs on the machine lengthen, if less than the clock on the wall. A tick-evaluation
is one variant advanced by one tick: plant, decision by the daemon's own function, ledger and digest. The peer
is vectorbt, where it is installed: moving-average crossovers from price to total return, bar by bar; it decides
less per bar and keeps no ledger of episodes. The sums are those of a sweep: all but the elasticity figures.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

from autoscaler.config.policy import Policy, policy_from
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.lanes.segments import run_segmented
from autoscaler.simulator.traffic.synth import synth_day
from benchmarks.calibration import Result, kernel_s

P = ParamSpec("P")
T = TypeVar("T")

VARIANTS = 1000
DAYS = 365
TICK_S = 60.0
BARS = 20_000
WINDOWS = 46
"""1,035 pairs of windows."""


def reactive(number: int) -> Policy:
    """One of a thousand variants in sizing: of headroom, tolerance and minimum."""
    return policy_from(
        {
            "fleet": "web",
            "signal": {"kind": "throughput", "source": "trace", "max_age": "150s", "trace": {}},
            "vm": {"capacity": "120/s", "start_time": "40s", "stop_time": "40s"},
            "bounds": {"minimum": 1 + number // 500, "maximum": 60},
            "reactive": {"headroom": f"{5 + number % 50}%", "tolerance": f"{number // 50 % 10}%"},
            "prices": {"in_service": "0.1/h", "stopped": "0.01/h"},
        }
    )


def year_of(variants: int) -> tuple[float, float, float]:
    """A year under so many variants: seconds of one core, seconds on the wall, peak MB of this process."""
    trace = synth_day(1, days=float(DAYS), interval_s=TICK_S)
    plant = PlantSettings(vms=60, in_service=10, start=Duration(40.0), stop_s=40.0)
    ticks = Ticks.over(trace.start_s, DAYS * 86_400.0, TICK_S)
    policies = tuple(reactive(number) for number in range(variants))
    run = LaneRun(policies, (plant,) * variants, (trace,) * variants, ticks)
    cpu, wall = time.process_time(), time.perf_counter()
    run_segmented(run, elasticity=False)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    return *spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def forecasting(number: int, kind: str) -> Policy:
    """One of a thousand different variants that order by forecast: by a quantile of it, or by prices.

    Of those by prices a hundred have another price or minimum, for which models compete apart, and ten of each differ in a guard.
    """
    if kind == "quantile":
        cover, headroom, minimum, minutes = number % 4, number // 4 % 25, number // 100 % 2, number // 200
        wishes = {
            "forecast": {"cover": ("50%", "90%", "95%", "99%")[cover]},
            "reactive": {"headroom": f"{5 + headroom}%"},
        }
    else:
        price, minutes, minimum = number % 50, number // 50 % 10, number // 500
        wishes = {"objective": {"shortage_price": f"{1 + price * 0.2:.1f}/h"}}
    return policy_from(
        {
            "fleet": "web",
            "signal": {"kind": "throughput", "source": "trace", "max_age": "150s", "trace": {}},
            "vm": {"capacity": "120/s", "start_time": "40s", "stop_time": "40s"},
            "bounds": {"minimum": 1 + minimum, "maximum": 60},
            "guards": {"cooldown_in": f"{minutes}m"},
            "prices": {"in_service": "0.1/h", "stopped": "0.01/h"},
            **wishes,
        }
    )


def per_tick(kind: str, days: float, series: int) -> tuple[float, float, float]:
    """A thousand lanes that order by forecast, of so many different demands, over some days.

    Returns:
        Seconds of one core per tick for forecasts, for all else, and the peak MB of this process. Where forecasts are
        made beside the lanes, all is in the second.
    """
    traces = [synth_day(1 + seed, days=days, interval_s=TICK_S) for seed in range(series)]
    plant = PlantSettings(vms=60, in_service=10, start=Duration(40.0), stop_s=40.0)
    ticks = Ticks.over(traces[0].start_s, days * 86_400.0, TICK_S)
    policies = tuple(forecasting(number, kind) for number in range(VARIANTS))
    each = tuple(traces[number % series] for number in range(VARIANTS))
    run = LaneRun(policies, (plant,) * VARIANTS, each, ticks)
    before = time.process_time()
    lanes = Lanes(run)
    made_s = (time.process_time() - before) / ticks.count
    sums, prints = lanes.sums(elasticity=False), Fingerprints(VARIANTS)
    lanes.run(ticks.count // 4, sums, prints)
    left, before = ticks.count - lanes.tick, time.process_time()
    lanes.run(left, sums, prints)
    decided_s = (time.process_time() - before) / left
    return made_s, decided_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def forecasts() -> list[Result]:
    """A year of variants and a week of different fleets, from days of them."""
    results = []
    year, week = DAYS * 1440, 7 * 1440
    for kind in ("quantile", "objective"):
        made_s, decided_s, peak_mb = _in_a_process(per_tick, kind, 3.0, 1)
        note = f"from 3 days: forecasts {made_s * year:.0f} s, {decided_s * 1e6:.0f} us per tick beside; {peak_mb:.0f} MB"
        results.append(Result(f"1,000 variants of {kind}, a year", (made_s + decided_s) * year, "s", note))
    for kind in ("quantile", "objective"):
        made_s, decided_s, peak_mb = _in_a_process(per_tick, kind, 0.5, VARIANTS)
        note = f"from half a day: {(made_s + decided_s) * 1e3:.1f} ms per tick; {peak_mb:.0f} MB"
        results.append(Result(f"1,000 series of {kind}, a week", (made_s + decided_s) * week, "s", note))
    return results


def _in_a_process(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments, options)


def apart(variants: int) -> tuple[float, float, float]:
    """The same in a process of its own."""
    return _in_a_process(year_of, variants)


def run() -> list[Result]:
    unit_s = kernel_s(VARIANTS)
    ticks = DAYS * 1440
    one_cpu, one_wall, _ = apart(1)
    cpu_s, wall_s, peak_mb = apart(VARIANTS)
    rate = VARIANTS * ticks / cpu_s
    ratio = f"{cpu_s / ticks / unit_s:.0f} adds of 1,000 per tick of 1,000 variants"
    results = [
        Result("calibration: in-place add, 1,000 float64", unit_s * 1e6, "us"),
        Result("one policy, a year of one-minute ticks", one_cpu, "s", f"{one_wall:.2f} s on the wall"),
        Result("1,000 variants, the same year", cpu_s, "s", f"{wall_s:.1f} s on the wall; {ratio}"),
        Result("tick-evaluations per second and core", rate / 1e6, "M/s"),
        Result("peak memory of that sweep", peak_mb, "MB"),
    ]
    # Before the peer: a process begins with the peak memory of the one that makes it.
    ahead = forecasts()
    return results + peer(rate) + ahead


def peer(rate: float) -> list[Result]:
    """The same figure for vectorbt, where it is installed."""
    try:
        import pandas as pd
        import vectorbt as vbt
    except ImportError:
        return [Result("vectorbt", float("nan"), "M/s", "not installed, so not compared")]
    rng = np.random.default_rng(0)
    price = pd.Series(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.001, BARS))))

    def sweep() -> None:
        fast, slow = vbt.MA.run_combs(price, window=np.arange(2, 2 + WINDOWS), r=2)
        entries, exits = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
        vbt.Portfolio.from_signals(price, entries, exits, freq="1min").total_return()

    sweep()  # compiles
    times = []
    for _ in range(3):
        before = time.process_time()
        sweep()
        times.append(time.process_time() - before)
    theirs = WINDOWS * (WINDOWS - 1) / 2 * BARS / min(times)
    return [
        Result("vectorbt, bar-evaluations per second and core", theirs / 1e6, "M/s", "best of 3"),
        Result("ours / vectorbt", rate / theirs, "x", "more is better"),
    ]
