"""Random bad days, which are the same for the same seed: troubles of the cloud, of metrics and by hand, and their times.

Rules of this file: values only. Every trouble has a window and ends. None begins in the first or the last hour, so the
run begins and ends with a quiet cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from autoscaler.cloud.faults import Fault, FaultKind

DAY_S = 86_400.0
QUIET_S = 3600.0
"""Time at both ends in which nothing goes wrong, in seconds."""
LISTING_LAG_S = 20.0
"""Less than the 30 s by which the daemon allows listings to lag: beyond that, it takes an old row as current."""


class Kind(StrEnum):
    """Kind of a trouble on our side of the cloud."""

    SOURCE_HANGS = "the source hangs"
    SOURCE_DEAF = "the source hangs and does not hear that it was given up"
    SOURCE_RAISES = "the source raises"
    SOURCE_NONSENSE = "the source returns nonsense"
    SOURCE_SILENT = "metrics are lost"
    LISTING_HANGS = "the listing hangs"
    LISTING_RAISES = "the listing raises"
    CALLS_HANG = "calls do not come back"
    RELOAD = "policies are reloaded"
    PAUSE = "an operator pauses"
    TERMINATED = "somebody terminates a VM"
    STOPPED = "somebody stops a VM"
    CLOCK_AHEAD = "the clock jumps ahead"
    CLOCK_BACK = "the clock is set back"


OF_A_SOURCE = (
    Kind.SOURCE_HANGS,
    Kind.SOURCE_DEAF,
    Kind.SOURCE_RAISES,
    Kind.SOURCE_NONSENSE,
    Kind.SOURCE_SILENT,
)
OF_THE_PROVIDER = (Kind.LISTING_HANGS, Kind.LISTING_RAISES, Kind.CALLS_HANG)
ONCE = (Kind.RELOAD, Kind.PAUSE, Kind.TERMINATED, Kind.STOPPED)
PER_DAY = {Kind.RELOAD: 12, Kind.PAUSE: 6, Kind.TERMINATED: 8, Kind.STOPPED: 8}
WORLD_PER_DAY = 3
"""Number of faults of each of the cloud's kinds per day."""

LENGTH_S = {
    FaultKind.STUCK_PENDING: 120.0,
    FaultKind.STUCK_STOPPING: 600.0,
    FaultKind.UNREADY: 120.0,
    FaultKind.LATENCY: 4.0,
    FaultKind.LISTING_LAG: LISTING_LAG_S,
}
CHANCE = {
    FaultKind.NO_CAPACITY: 1.0,
    FaultKind.LISTING_LAG: 1.0,
    FaultKind.HOST_STOP: 0.1,
    FaultKind.MISSING_ROWS: 0.05,
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A trouble on our side, in seconds since the beginning; `fleet` is empty if it concerns all."""

    kind: Kind
    start_s: float
    end_s: float
    fleet: str = ""
    draw: float = 0.0


@dataclass(frozen=True, slots=True)
class BadDays:
    """All troubles of a run."""

    faults: tuple[Fault, ...]
    troubles: tuple[Trouble, ...]

    def of(self, *kinds: Kind, fleet: str = "") -> tuple[Trouble, ...]:
        """The troubles of these kinds and this fleet, in order of time."""
        found = (t for t in self.troubles if t.kind in kinds and t.fleet == fleet)
        return tuple(sorted(found, key=lambda t: t.start_s))


def bad_days(seed: int, days: float, fleets: tuple[str, ...], zones: str) -> BadDays:
    """Draw the troubles of a run.

    Args:
        seed: Seed of the draws.
        days: Length of the run.
        fleets: Names of the fleets.
        zones: Last letters of the cloud's zones.
    """
    rng = np.random.default_rng(seed)
    span_s = days * DAY_S

    def moment() -> float:
        return float(rng.uniform(QUIET_S, span_s - 2.0 * QUIET_S))

    def window(longest_s: float) -> tuple[float, float]:
        start_s = moment()
        return start_s, start_s + float(rng.uniform(30.0, longest_s))

    faults = []
    for kind in FaultKind:
        for _ in range(max(1, round(WORLD_PER_DAY * days))):
            start_s, end_s = window(1800.0)
            faults.append(
                Fault(
                    kind,
                    start_s,
                    end_s,
                    probability=CHANCE.get(kind, 0.5),
                    delay_s=LENGTH_S.get(kind),
                    zone=f"us-east-1{rng.choice(list(zones))}" if kind is FaultKind.NO_CAPACITY else "",
                    fleet=str(rng.choice(fleets)) if kind is FaultKind.HOST_STOP else "",
                )
            )
    troubles = []
    for fleet in fleets:
        for kind in OF_A_SOURCE:
            troubles += [
                Trouble(kind, *window(600.0), fleet, float(rng.random())) for _ in range(max(1, round(days)))
            ]
    for kind in OF_THE_PROVIDER:
        longest_s, a_day = (900.0, 8) if kind is Kind.CALLS_HANG else (300.0, 3)
        troubles += [Trouble(kind, *window(longest_s)) for _ in range(max(1, round(a_day * days)))]
    for kind in ONCE:
        for _ in range(max(1, round(PER_DAY[kind] * days))):
            at_s = moment()
            troubles.append(Trouble(kind, at_s, at_s, str(rng.choice(fleets)), float(rng.random())))
    for kind in (Kind.CLOCK_AHEAD, Kind.CLOCK_BACK):
        at_s = moment()
        troubles.append(Trouble(kind, at_s, at_s, draw=float(rng.uniform(300.0, 3600.0))))
    return BadDays(tuple(faults), tuple(troubles))
