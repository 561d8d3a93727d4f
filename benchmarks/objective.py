"""`decide` for fleets of each kind of policy: how long a tick takes; and with an objective, which stage takes it.

With an objective, models compete: each lane has a shadow fleet for every model, charged for what it would have cost. The contest is
therefore shown beside what a lane of any policy has: sizing, the warm pool and guards.

Live, each fleet has its own demand, and arrays are new each tick; in a sweep variants of a fleet share the demand of one trace. Demand
comes in ticks of ten seconds and forecasts are the real ones, made beside what is timed; what is decided is in force at once.
With an objective models are compared every six ticks, so that the 99th percentile is such a tick; once in an hour what is known
of hours is worked out, which is the worst. Times are those of one core (CPU time): others on the machine lengthen them less
than those on the wall, but do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import Policy, policy_from
from autoscaler.core.decide import decide
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.objective import columns, competition, demand_buffer, pricing, worth
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Samples, Snapshot
from autoscaler.core.warm import provisioned_target
from autoscaler.simulator.traffic.synth import synth_day
from benchmarks.calibration import Result, kernel_s

TICK_S, TICKS, WARM_UP = 10.0, 360, 150
"""Length of a tick, ticks that count, and ticks before them."""
CASES = (
    ("objective", 1, 1),
    ("objective", 100, 100),
    ("objective", 1000, 1000),
    ("objective", 1000, 1),
    ("quantile", 1000, 1000),
    ("reactive", 1000, 1000),
)
"""How VMs are wished for, lanes, and series that they share."""
MOST = 60
"""VMs that a fleet may have."""

PARTS: tuple[tuple[str, Any, str], ...] = (
    ("the price that a served share takes", pricing.ShortagePriceController, "step"),
    ("what VMs are worth by the forecast", worth.Worth, "vms"),
    ("what is usual: noting", demand_buffer, "note"),
    ("what is usual: noting", demand_buffer, "note_page"),
    ("what is usual: every hour", columns, "revise"),
    ("what yesterday needed", columns, "yesterday"),
    ("what plain models want", competition.ModelCompetition, "plain"),
    ("models in shadow: charged and choosing", competition.ModelCompetition, "step"),
    ("the warm pool by prices", provisioned_target.ProvisionedTarget, "step"),
)
"""What takes time: its name, and the class or module and the name by which it is called there."""
CONTEST = frozenset(
    {
        "what is usual: noting",
        "what is usual: every hour",
        "what yesterday needed",
        "what plain models want",
        "models in shadow: charged and choosing",
    }
)
"""The parts that only the contest of models needs."""


def policy(fleet: int, kind: str, number: int) -> Policy:
    """One of many fleets, or variants of one, that differ in their price of shortage, or in headroom."""
    headroom = {"headroom": f"{5 + number % 50}%"}
    wishes: dict[str, dict[str, dict[str, str]]] = {
        "objective": {"objective": {"shortage_price": f"{1.0 + number % 1000 * 0.01:.2f}/h"}},
        "quantile": {"forecast": {"cover": "95%"}, "reactive": headroom},
        "reactive": {"reactive": headroom},
    }
    return policy_from(
        {
            "fleet": f"fleet-{fleet}",
            "signal": {"kind": "throughput", "source": "trace", "trace": {}},
            "vm": {"capacity": "120/s", "start_time": "40s", "stop_time": "40s"},
            "bounds": {"minimum": 1, "maximum": MOST},
            "prices": {"in_service": "0.1/h", "stopped": "0.01/h"},
            **wishes[kind],
        }
    )


@contextmanager
def timed(parts: tuple[tuple[str, Any, str], ...], spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds of one core that calls of these take to what was spent."""

    def clocked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*given: Any, **named: Any) -> Any:
            before = time.process_time()
            found = call(*given, **named)
            spent[name] += time.process_time() - before
            return found

        return timing

    kept = [(owner, called, getattr(owner, called)) for _, owner, called in parts]
    for name, owner, called in parts:
        setattr(owner, called, clocked(name, getattr(owner, called)))
    try:
        yield
    finally:
        for owner, called, call in kept:
            setattr(owner, called, call)


def decided(lanes: int, series: int) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Seconds of `decide` with an objective.

    Returns:
        For each tick, float64 (TICKS,); for each tick of a second run without the contest, likewise; and for each part, over all
        ticks of the second run.
    """
    spent = {name: 0.0 for name, _, _ in PARTS}
    times = ticks_of(lanes, series)
    with timed(PARTS, spent):
        rest = ticks_of(lanes, series, left_out=lambda: sum(spent[name] for name in CONTEST))
    return times, rest, spent


def ticks_of(
    lanes: int, series: int, kind: str = "objective", left_out: Callable[[], float] = float
) -> np.ndarray:
    """Seconds of `decide` for each tick, float64 (TICKS,), less those that `left_out` has counted meanwhile."""
    count = WARM_UP + TICKS
    traces = [
        synth_day(1 + seed, days=count * TICK_S / 86_400.0, interval_s=TICK_S) for seed in range(series)
    ]
    demands = np.stack([trace.values[:count] / TICK_S for trace in traces], axis=1)
    first = int(traces[0].timestamps[0] // TICK_S)
    policies = [policy(number % series, kind, number) for number in range(lanes)]
    compiled = compile_params(policies, TICK_S, first * TICK_S)
    some = compile_params(policies[:series], TICK_S, first * TICK_S).series
    params = replace(compiled.lanes, series=np.arange(lanes) % series)
    forecasts, state = SeriesState.empty(some), LaneState.empty(params)
    serving, none = np.full(lanes, 10), np.zeros(lanes, np.int64)
    yes, known = np.ones(lanes, np.bool_), np.ones(series)
    times = np.empty(count)
    for at in range(count):
        now_s, demand = (first + at) * TICK_S, demands[at]
        samples = Samples(now_s, demand, known * now_s, np.zeros(series, np.int64), known, known < 0.0)
        outlook = step(some, forecasts, samples)
        view = Snapshot(
            now_s=now_s, tick=first + at, demand=demand[params.series], observed_at_s=np.full(lanes, now_s),
            freshness=none.copy(), coverage=np.ones(lanes), censored=~yes, in_service=serving, starting=none.copy(),
            draining=none.copy(), stopping=none.copy(), stopped=MOST - serving, provisioned=none + MOST,
            stoppable=serving.copy(), listed=yes.copy(), may_start=yes.copy(), may_provision=yes.copy(),
            may_stop=yes.copy(), floor=none.copy(), ceiling=np.full(lanes, NO_CEILING),
        )  # fmt: skip
        before = time.process_time() - left_out()
        decision = decide(params, state, view, outlook)
        times[at] = time.process_time() - left_out() - before
        serving = serving + decision.start - decision.stop
    return times[WARM_UP:]


def run() -> list[Result]:
    """Times over an hour of ticks."""
    unit_us = kernel_s(1000) * 1e6
    results = [Result("calibration: in-place add, 1,000 float64", unit_us, "us")]
    for kind, lanes, series in CASES:
        of = f"{lanes:,} lanes, " + ("each its own demand" if lanes == series else f"{series} demand")
        rest, spent = None, dict[str, float]()
        if kind == "objective":
            times, rest, spent = decided(lanes, series)
        else:
            of += f", by {'a quantile' if kind == 'quantile' else 'present demand'}"
            times = ticks_of(lanes, series, kind)
        for name, each in (
            (f"decide, {of}", times),
            ("  sizing, pool and guards, without the contest", rest),
        ):
            for label, at in (("p50", 50), ("p99", 99), ("worst", 100)):
                if each is not None:
                    value_us = float(np.percentile(each, at)) * 1e6
                    note = f"{value_us / unit_us:,.0f} adds of 1,000"
                    results.append(Result(f"{name}, {label}", value_us, "us", note))
        results += [
            Result(f"  {name}", seconds / (TICKS + WARM_UP) * 1e6, "us", "mean of a tick")
            for name, seconds in spent.items()
        ]
    return results
