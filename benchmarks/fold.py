"""Fold: 100,000 readings of one tick become the demand of their fleets, also where some are bad.

The goal is 50 ms. Each figure is also given as a ratio to the calibration kernel, one in-place add of 1,000 numbers.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.demand import fold
from autoscaler.core.learned.capacity import Capacities, CapacityParams
from autoscaler.core.learned.condition import VmPasts, judging
from autoscaler.core.params import FoldParams
from autoscaler.core.types import Float, Int, Readings, Signal
from benchmarks.calibration import Result, kernel_s, percentiles_ms

READINGS = 100_000
FLEETS = (1, 200, 10_000)
REPEATS = 60
NOW_S = 1e9
GOAL_MS = 50.0


def run() -> list[Result]:
    kernel_ms = kernel_s() * 1e3
    results = []
    for lanes in FLEETS:
        for bad in (False, True):
            params, readings, in_service = _tick(lanes, bad=bad)
            capacity = in_service * 100.0

            def one(
                p: FoldParams = params, r: Readings = readings, n: Int = in_service, c: Float = capacity
            ) -> object:
                return fold(p, r, n, c, NOW_S)

            name = f"{READINGS:,} readings of {lanes:,} fleets" + (", a tenth bad" if bad else "")
            results.append(_result(name, percentiles_ms(one, REPEATS), kernel_ms))
    results.append(_result(*_judged(), kernel_ms, goal=", every 30 s"))
    results.append(_result(*_learned(), kernel_ms, goal=", every 10 s"))
    return results


def _result(name: str, ms: tuple[float, float], kernel_ms: float, *, goal: str = "") -> Result:
    median, slow = ms
    goal = goal or f", {'within' if slow <= GOAL_MS else 'beyond'} {GOAL_MS:.0f} ms"
    return Result(name, median, "ms", f"{median / kernel_ms:,.0f} kernels, 99 %: {slow:.2f} ms{goal}")


def _tick(lanes: int, *, bad: bool) -> tuple[FoldParams, Readings, np.ndarray]:
    rng = np.random.default_rng(7)
    signals = np.array([int(Signal.UTILISATION), int(Signal.THROUGHPUT), int(Signal.CONCURRENCY)])
    params = FoldParams(
        signals[np.arange(lanes) % 3], np.full(lanes, 60.0), np.full(lanes, 0.9),
        np.full(lanes, 50.0), np.full(lanes, 300.0),
    )  # fmt: skip
    lane = np.sort(rng.integers(0, lanes, READINGS))
    value, stamps = rng.uniform(0.0, 0.9, READINGS), NOW_S - rng.uniform(0.0, 30.0, READINGS)
    if bad:
        value[rng.random(READINGS) < 0.05] = np.nan
        stamps[rng.random(READINGS) < 0.05] -= 600.0
    received = stamps + 1.0
    readings = Readings(lane, value, stamps, np.full(READINGS, 100.0), received)
    return params, readings, np.bincount(lane, minlength=lanes)


def _judged() -> tuple[str, tuple[float, float]]:
    rng = np.random.default_rng(7)
    lanes = 200
    lane = np.sort(rng.integers(0, lanes, READINGS))
    pasts, speed = VmPasts.empty(READINGS), rng.gamma(50.0, 2.0, READINGS)
    silent, below, comparable = speed < 0.0, np.full(lanes, 0.5), np.ones(lanes, np.bool_)

    def one() -> None:
        for _ in judging(pasts, lane, speed, silent, below, comparable):
            pass

    return f"{READINGS:,} VMs of {lanes} fleets judged", percentiles_ms(one, REPEATS)


def _learned() -> tuple[str, tuple[float, float]]:
    rng = np.random.default_rng(7)
    lanes = 200
    lane, busy = rng.integers(0, lanes, READINGS), rng.uniform(0.1, 0.89, READINGS)

    def full(value: float) -> np.ndarray:
        return np.full(lanes, value)

    params = CapacityParams(full(100.0), full(1.0), full(0.9), full(3.0), full(0.2))
    capacities, work = Capacities.empty(lanes), 100.0 * busy

    def one() -> None:
        capacities.take(params, lane, work, busy)

    return f"{READINGS:,} pairs of {lanes} fleets learned from", percentiles_ms(one, REPEATS)
