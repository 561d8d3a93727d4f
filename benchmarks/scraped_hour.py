"""An hour of one daemon that scrapes 10,000 VMs in 50 fleets every 15 s: what it holds all along, and what a round costs.

HTTP is real, on loopback, to one process that answers for all VMs; the time between two rounds is simulated. Takes as
long as 240 rounds do (about twenty minutes), so it is run when it is named: python -m benchmarks scraped_hour
"""

from __future__ import annotations

import numpy as np

from benchmarks.calibration import Result
from tests.soak.scraping import EVERY_S, Hour
from tests.soak.scraping import run as run_hour
from tests.soak.sizes import Sizes

HOUR = Hour(vms=10_000, fleets=50)
FIRST = 4
"""Rounds in which connections are made and rates begin."""


def run() -> list[Result]:
    """Every figure of CPU is of our process alone; time on the wall is shared with the one that answers."""
    found = run_hour(HOUR, _tell)
    cpu_s, seconds, turns_s = (np.array(each[FIRST:]) for each in (found.cpu_s, found.seconds, found.turns_s))
    first, last = found.samples[0], found.samples[-1]
    results = [
        Result(
            f"{HOUR.vms:,} VMs every {EVERY_S:g} s, CPU of a core",
            100.0 * float(np.median(cpu_s)) / EVERY_S,
            "%",
            f"median of {len(cpu_s)} rounds, highest {100.0 * cpu_s.max() / EVERY_S:.1f}; 60 is the limit",
        ),
        Result("  a round", float(np.median(seconds)), "s", f"longest {seconds.max():.2f}"),
        Result(
            "  longest turn of the event loop",
            1e3 * float(turns_s.max()),
            "ms",
            f"median of rounds {1e3 * np.median(turns_s):.1f}; 20 is the limit",
        ),
        Result("  fleets' least share of VMs heard", 100.0 * min(found.coverage[FIRST:]), "%"),
        Result("  failures", float(len(found.failures)), "", "; ".join(found.failures[:3])),
    ]
    results += [
        Result(f"resident after {each.at_s / 60:.0f} minutes", each.resident / 2**20, "MB", _rest(each))
        for each in found.samples
    ]
    results.append(Result("  grown since the first of them", (last.resident - first.resident) / 2**20, "MB"))
    return results


def _rest(sample: Sizes) -> str:
    items = sum(sample.containers.values())
    return (
        f"{sample.blocks:,} blocks, {items:,} items, {sample.tasks} tasks, {sample.descriptors:,} descriptors"
    )


def _tell(sample: Sizes) -> None:
    print(f"  {sample.at_s / 60:.0f} minutes: {sample.resident / 2**20:.1f} MB, {_rest(sample)}", flush=True)
