"""One tick of core: fold, forecast.step and decide, for one fleet, for 1,000 and, as sweeps have it, for 8,000 lanes.

Two sets of policies. `every stage` uses all of them, as arrays come live: new ones each tick, every reason read.
`plain reactive` has demand, headroom, a stabilisation window, bounds and the warm target's memory, as arrays come in a
sweep: what never changes is read-only, counts are int32, nobody reads reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from autoscaler.core.decide import decide
from autoscaler.core.demand import fold
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.params import FoldParams, LaneParams, SeriesParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Outlook, Readings, Samples, Signal, Snapshot
from benchmarks.calibration import Result, kernel_s, timed

VMS, TICK_S, TICKS, WARM_UP = 10, 10.0, 2000, 200
"""VMs per fleet, length of a tick, ticks that count, and ticks before them."""

COUNTS = (
    "in_service",
    "starting",
    "draining",
    "stopping",
    "stopped",
    "provisioned",
    "stoppable",
    "floor",
    "ceiling",
)


def every_stage(lanes: int) -> LaneParams:
    def full(value: object) -> np.ndarray:
        return np.full(lanes, value)

    return LaneParams(
        tick_s=TICK_S,
        series=np.arange(lanes),
        vm_capacity=full(100.0),
        reactive=full(True),
        headroom=full(0.3),
        tolerance=full(0.05),
        censored_growth=full(1.5),
        steps=full(True),
        step_lower=np.stack([full(0.9), full(-np.inf)]),
        step_upper=np.stack([full(np.inf), full(0.2)]),
        step_vms=np.stack([full(1), full(-1)]),
        step_share=np.stack([full(0.1), full(0.0)]),
        schedule=full(True),
        window_start_s=np.zeros((10, lanes)),
        window_end_s=np.full((10, lanes), 1e12),
        window_floor=np.full((10, lanes), 3),
        known_from_s=np.zeros((0, lanes)),
        known_begins_s=np.zeros((0, lanes)),
        known_end_s=np.zeros((0, lanes)),
        cover=full(True),
        cover_quantile=full(2),
        uses_signal=full(True),
        min_coverage=full(0.7),
        loss_hold_s=full(300.0),
        zero_hold_s=full(0.0),
        stabilisation_ticks=full(30),
        cooldown_out_s=full(30.0),
        cooldown_in_s=full(120.0),
        minimum=full(1),
        maximum=full(50),
        rate_out_vms=full(50.0),
        rate_out_period_s=full(60.0),
        rate_in_vms=full(5.0),
        rate_in_period_s=full(60.0),
        provision=full(True),
        max_provisioned=full(60),
        warm_minimum=full(0),
        warm_maximum=full(60),
        warm_memory_ticks=full(8640),
        warm_spare=full(0.1),
        economic=full(False),
        shortage_price=full(100.0),
        unserved_target=full(0.0),
        start_cost=full(6.0),
        lead_ticks=full(4),
        hold_ticks=full(30),
        billed_ticks=full(6),
        start_success=full(1.0),
        stopped_cost=full(0.0),
        provision_cost=full(0.0),
        cold_ticks=full(30.0),
        hibernate=full(False),
        sooner_ticks=full(np.nan),
        unbilled_ticks=full(0.0),
        saving_cost=full(0.0),
        memory_cost=full(0.0),
        group=full(-1),
        group_vms=full(np.inf),
        group_money=full(np.inf),
        group_starts=full(np.inf),
        group_period_s=full(60.0),
        vm_price=full(0.0),
    )


def plain_reactive(lanes: int) -> LaneParams:
    def full(value: object) -> np.ndarray:
        return np.full(lanes, value)

    return replace(
        every_stage(lanes),
        tolerance=full(0.0),
        steps=full(False),
        schedule=full(False),
        cover=full(False),
        cooldown_out_s=full(0.0),
        cooldown_in_s=full(0.0),
        rate_out_vms=full(np.inf),
        rate_in_vms=full(np.inf),
        provision=full(False),
    )


@dataclass(slots=True)
class Tick:
    """What one tick hands on."""

    number: int
    readings: Readings
    in_service: np.ndarray
    samples: Samples | None = None
    outlook: Outlook | None = None
    snapshot: Snapshot | None = None


def snapshot_of(tick: Tick) -> Snapshot:
    """Arrays as they come live."""
    samples, lanes = tick.samples, len(tick.in_service)
    assert samples is not None
    zeros = np.zeros(lanes, np.int64)
    return Snapshot(
        now_s=samples.now_s, tick=tick.number, demand=samples.demand, observed_at_s=samples.observed_at_s,
        freshness=samples.freshness, coverage=samples.coverage, censored=samples.censored,
        in_service=tick.in_service, starting=zeros, draining=zeros, stopping=zeros, stopped=tick.in_service,
        provisioned=tick.in_service * 2, stoppable=tick.in_service.copy(), listed=np.ones(lanes, np.bool_),
        may_start=np.ones(lanes, np.bool_), may_provision=np.ones(lanes, np.bool_),
        may_stop=np.ones(lanes, np.bool_), floor=zeros, ceiling=np.full(lanes, NO_CEILING),
    )  # fmt: skip


def live(lanes: int) -> dict[str, np.ndarray]:
    """Seconds of each part of a live tick with every stage but those of an objective: float64 (TICKS,) by name."""
    fold_params = FoldParams(
        np.full(lanes, int(Signal.THROUGHPUT)),
        np.full(lanes, 60.0),
        np.full(lanes, 0.95),
        np.ones(lanes),
        np.full(lanes, 300.0),
    )
    series_params = SeriesParams(
        tick_s=TICK_S,
        lead_ticks=np.full(lanes, 4),
        keep_ticks=np.full(lanes, 8),
        half_life_ticks=np.full(lanes, 43_200.0),
        scale=np.full(lanes, 30.0),
        hold_ticks=np.full(lanes, 30),
        refill_ticks=np.full(lanes, 360),
        laws=np.full(lanes, False),
        refill_laws=np.full(lanes, False),
        event_start_s=np.zeros((0, lanes)),
        event_end_s=np.zeros((0, lanes)),
        event_factor=np.ones((0, lanes)),
        event_odds=np.zeros((0, lanes)),
    )
    lane_params = every_stage(lanes)
    series_state, lane_state = SeriesState.empty(series_params), LaneState.empty(lane_params)

    def do_fold(tick: Tick) -> None:
        capacity = tick.in_service * 100.0
        tick.samples = fold(fold_params, tick.readings, tick.in_service, capacity, tick.number * TICK_S)

    def do_step(tick: Tick) -> None:
        assert tick.samples is not None
        tick.outlook = step(series_params, series_state, tick.samples)

    def do_decide(tick: Tick) -> None:
        assert tick.snapshot is not None
        decision = decide(lane_params, lane_state, tick.snapshot, tick.outlook)
        _ = (decision.reason, decision.value, decision.warm_target, decision.forecast, decision.forecast_hi)

    def look(tick: Tick) -> None:
        tick.snapshot = snapshot_of(tick)

    parts: dict[str, Callable[[Tick], None]] = {
        "fold": do_fold,
        "forecast.step": do_step,
        "look": look,
        "decide": do_decide,
    }
    rng = np.random.default_rng(0)
    lane, in_service = np.repeat(np.arange(lanes), VMS), np.full(lanes, VMS)
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(1_000_000, 1_000_000 + WARM_UP + TICKS):
        values = rng.gamma(9.0, 8.0, lanes * VMS)
        observed_at_s = np.full(lanes * VMS, number * TICK_S)
        readings = Readings(lane, values, observed_at_s, np.full(lanes * VMS, 100.0))
        tick = Tick(number, readings, in_service)
        for name, part in parts.items():
            times[name].append(timed(partial(part, tick)))
    del times["look"]
    return {name: np.array(values[WARM_UP:]) for name, values in times.items()}


def swept(params: LaneParams) -> np.ndarray:
    """Seconds of `decide` as a sweep calls it: float64 (TICKS,)."""
    lanes = len(params.series)
    state = LaneState.empty(params)
    rng = np.random.default_rng(0)
    demands = [rng.gamma(9.0, 80.0, lanes) for _ in range(64)]
    in_service = np.full(lanes, VMS)
    samples = Samples(0.0, demands[0], demands[0], in_service * 0, np.ones(lanes), np.zeros(lanes, np.bool_))
    still = snapshot_of(Tick(0, Readings(in_service, *[demands[0]] * 3), in_service, samples))
    kept = {f.name: getattr(still, f.name) for f in fields(still)}
    kept |= {name: kept[name].astype(np.int32) for name in COUNTS}
    for value in kept.values():
        if isinstance(value, np.ndarray) and value.base is None:
            value.flags.writeable = False
    kept["stoppable"] = kept["in_service"]
    times = []
    for number in range(1_000_000, 1_000_000 + WARM_UP + TICKS):
        view = Snapshot(**kept | {"now_s": number * TICK_S, "tick": number, "demand": demands[number % 64]})
        times.append(timed(partial(decide, params, state, view, None)))
    return np.array(times[WARM_UP:])


def run() -> list[Result]:
    """Times over 2,000 ticks of random demand, after 200 to warm up."""
    found: dict[str, np.ndarray] = {}
    for lanes in (1, 1000):
        parts = live(lanes)
        found |= {f"{name}, {lanes:,} fleets live, every stage": times for name, times in parts.items()}
        found[f"fold + step + decide, {lanes:,} fleets live, every stage"] = sum(
            parts.values(), np.zeros(TICKS)
        )
    for lanes in (1000, 8000):
        found[f"decide, {lanes:,} lanes swept, plain reactive"] = swept(plain_reactive(lanes))
    unit_us = kernel_s(1000) * 1e6
    results = [Result("calibration: in-place add, 1,000 float64", unit_us, "us")]
    for name, times in found.items():
        for label, at in (("p50", 50), ("p99", 99)):
            value_us = float(np.percentile(times, at)) * 1e6
            results.append(
                Result(f"{name}, {label}", value_us, "us", f"{value_us / unit_us:,.0f} adds of 1,000")
            )
    return results
