"""What the books cost a sweep: blocks of 64 ticks of 1,000 lanes into sums, per tick."""

from __future__ import annotations

import numpy as np

from autoscaler.simulator.judging.ledger import Block, Sums
from benchmarks.calibration import Result, kernel_s, timed

LANES, TICKS, TICK_S, VM = 1000, 64, 60.0, 100.0


def block(*, shared: bool) -> Block:
    """A daily cycle's slope: VMs come and go in a tenth of all ticks, some lanes short now and then."""
    rng = np.random.default_rng(0)
    made = Block.empty(TICKS, LANES, TICK_S, demands=1 if shared else None)
    assert made.shortage is not None
    noise = rng.normal(0.0, 5.0, made.demand.shape)
    made.demand[:] = 500.0 + 300.0 * np.sin(np.arange(TICKS)[:, np.newaxis] / 40.0) + noise
    stirs = rng.random((2, TICKS, LANES)) < 0.1
    made.in_service[:] = np.maximum(
        np.ceil(made.demand / VM) + stirs[0] * rng.integers(-1, 3, (TICKS, LANES)), 0
    )
    made.desired[:] = made.in_service + stirs[1]
    made.starts[:] = stirs[1]
    made.capacity[:] = made.in_service * VM
    made.shortage[:] = np.maximum(made.demand - made.capacity, 0.0)
    made.billed_vm_s[:] = made.in_service * TICK_S
    made.cost[:] = made.in_service * 0.0016
    return made


def run() -> list[Result]:
    """Best of twenty rounds of fifty blocks."""
    unit_us = kernel_s(LANES) * 1e6
    results = [Result("calibration: in-place add, 1,000 float64", unit_us, "us")]
    for shared in (True, False):
        for elasticity in (True, False):
            made = block(shared=shared)
            sums = Sums(TICK_S, np.full(LANES, VM), elasticity=elasticity)

            def books(sums: Sums = sums, made: Block = made) -> None:
                for _ in range(50):
                    sums.add(made)

            per_tick_us = min(timed(books) for _ in range(20)) / 50 / TICKS * 1e6
            name = f"a tick, demand {'shared' if shared else 'per lane'}{'' if elasticity else ', no elasticity'}"
            results.append(Result(name, per_tick_us, "us", f"{per_tick_us / unit_us:.1f} adds of 1,000"))
    return results
