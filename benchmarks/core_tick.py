"""One tick of core for 1,000 fleets with 10,000 VMs: fold, forecast.step, decide."""

from __future__ import annotations

import itertools

import numpy as np

from autoscaler.core.decide import decide
from autoscaler.core.demand import fold
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.params import FoldParams, LaneParams, SeriesParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Readings, Samples, Snapshot
from benchmarks.calibration import Result, kernel_s, percentiles_ms

LANES, VMS, TICK_S = 1000, 10_000, 10.0


def _params() -> tuple[FoldParams, SeriesParams, LaneParams]:
    def full(value: object) -> np.ndarray:
        return np.full(LANES, value)

    fold_params = FoldParams(signal=full(1), max_age_s=full(60.0), saturation=full(0.95))
    series = SeriesParams(
        tick_s=TICK_S,
        lead_ticks=full(4),
        keep_ticks=full(8),
        half_life_ticks=full(43_200.0),
        scale=full(30.0),
    )
    lane = LaneParams(
        tick_s=TICK_S,
        series=np.arange(LANES),
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
        window_start_s=np.zeros((10, LANES)),
        window_end_s=np.ones((10, LANES)),
        window_floor=np.full((10, LANES), 3),
        cover=full(True),
        cover_quantile=full(2),
        uses_signal=full(True),
        min_coverage=full(0.7),
        stabilisation_ticks=full(30),
        cooldown_out_s=full(0.0),
        cooldown_in_s=full(120.0),
        minimum=full(1),
        maximum=full(50),
        rate_out_vms=full(50.0),
        rate_out_period_s=full(60.0),
        rate_in_vms=full(5.0),
        rate_in_period_s=full(60.0),
        provision=full(False),
        max_provisioned=full(60),
        warm_minimum=full(0),
        warm_maximum=full(60),
        warm_memory_ticks=full(8640),
        warm_spare=full(0.1),
    )
    return fold_params, series, lane


def run() -> list[Result]:
    """Times over 3,000 ticks of random demand, after 200 to warm up."""
    rng = np.random.default_rng(0)
    fold_params, series_params, lane_params = _params()
    series_state, lane_state = SeriesState.empty(series_params), LaneState.empty(lane_params)
    in_service = np.full(LANES, VMS // LANES)
    lane = np.repeat(np.arange(LANES), VMS // LANES)
    capacity = np.full(VMS, 100.0)
    ticks = itertools.count(1_000_000)
    zeros = np.zeros(LANES, np.int64)
    shared: dict[str, object] = {}

    def do_fold() -> None:
        shared["tick"] = tick = next(ticks)
        readings = Readings(
            lane=lane, value=shared["values"], observed_at_s=np.full(VMS, tick * TICK_S), capacity=capacity
        )
        shared["samples"] = fold(fold_params, readings, in_service, in_service * 100.0, tick * TICK_S)

    def do_step() -> None:
        shared["outlook"] = step(series_params, series_state, shared["samples"])

    def do_decide() -> None:
        samples, tick = shared["samples"], shared["tick"]
        assert isinstance(samples, Samples)
        view = Snapshot(
            now_s=samples.now_s, tick=tick, demand=samples.demand, observed_at_s=samples.observed_at_s,
            freshness=samples.freshness, coverage=samples.coverage, censored=samples.censored,
            in_service=in_service, starting=zeros, draining=zeros, stopping=zeros, stopped=in_service,
            provisioned=in_service * 2, stoppable=in_service, listed=np.ones(LANES, np.bool_),
            may_start=np.ones(LANES, np.bool_), may_provision=np.ones(LANES, np.bool_),
            may_stop=np.ones(LANES, np.bool_), floor=zeros, ceiling=np.full(LANES, NO_CEILING),
        )  # fmt: skip
        decide(lane_params, lane_state, view, shared["outlook"])

    parts = (("fold", do_fold), ("forecast.step", do_step), ("decide (sizing and guards)", do_decide))
    times: dict[str, list[float]] = {name: [] for name, _ in parts}
    for index in range(3200):
        shared["values"] = rng.gamma(9.0, 8.0, VMS)
        for name, part in parts:
            once, _ = percentiles_ms(part, 1)
            if index >= 200:
                times[name].append(once)
    unit_ms = kernel_s(LANES) * 1e3
    results = [Result("calibration: in-place add, 1,000 float64", unit_ms * 1e3, "us")]
    for name, values in times.items():
        p50, p99 = np.percentile(values, [50, 99])
        results.append(Result(f"{name}, p50", p50, "ms", f"{p50 / unit_ms:.0f} adds of 1,000"))
        results.append(Result(f"{name}, p99", p99, "ms", f"{p99 / unit_ms:.0f} adds of 1,000"))
    return results
