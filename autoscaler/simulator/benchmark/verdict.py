"""The verdict over all traces: how close a rule comes to the best peer, with each peer at its best setting per trace.

The ratio of a rule on a trace, at a level of unserved work, is (its regret + half a point) over (the least regret of
all peers + half a point), so that a tenth of a point above a perfect peer is no disaster. Below 1 the rule beats every
peer at once. Traces with less than seven scored days are told apart: luck decides there.

Rules of this file: figures from bouts, nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoscaler.simulator.benchmark.bout import Bout, FleetResult
from autoscaler.simulator.benchmark.curves import LEVELS

SLACK = 0.005


@dataclass(frozen=True, slots=True)
class Match:
    """One trace, one size of fleet, one level.

    Attributes:
        trace: Its name.
        size: VMs that the 99.9 % quantile of demand needs.
        level: Share of unserved work.
        long: Whether the trace counts.
        regret: Of the rule; infinite where it cannot serve as much.
        best: Key of the peer with the least regret; empty where none serves as much.
        best_regret: Its regret.
        starts: Starts of the rule over those of the clairvoyant; NaN where not reached.
    """

    trace: str
    size: int
    level: float
    long: bool
    regret: float
    best: str
    best_regret: float
    starts: float

    @property
    def ratio(self) -> float:
        """What is averaged; infinite where the rule does not reach the level, 0 where only it does."""
        if math.isinf(self.regret):
            return math.inf if math.isfinite(self.best_regret) else math.nan
        return (self.regret + SLACK) / (self.best_regret + SLACK)


def by_fleet(found: Iterable[Match]) -> dict[tuple[str, int], list[Match]]:
    """The matches of each trace and size, in their order."""
    rows: dict[tuple[str, int], list[Match]] = {}
    for match in found:
        rows.setdefault((match.trace, match.size), []).append(match)
    return rows


def matches(bouts: Iterable[Bout], key: str, peers: Sequence[str]) -> list[Match]:
    """The matches of a rule against peers, trace by trace."""
    return [
        _match(bout, fleet, at, key, peers)
        for bout in bouts
        for fleet in bout.fleets
        if key in fleet.curves
        for at in range(len(LEVELS))
    ]


def _match(bout: Bout, fleet: FleetResult, at: int, key: str, peers: Sequence[str]) -> Match:
    others = [(fleet.regrets[peer][at], peer) for peer in peers if peer in fleet.regrets and peer != key]
    best_regret, best = min(others, default=(math.inf, ""))
    curve = fleet.curves[key]
    starts = curve.hull().mixed_at(LEVELS[at], curve.starts)
    least = fleet.clairvoyant.starts[at]
    return Match(
        bout.trace,
        fleet.size,
        LEVELS[at],
        bout.long,
        fleet.regrets[key][at],
        best if math.isfinite(best_regret) else "",
        best_regret,
        starts / least if least else math.nan,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """Some matches in figures.

    Attributes:
        matches: How many count: those that the rule or a peer reaches.
        reached: In how many the rule serves as much as is asked.
        won: In how many its regret is below every peer's.
        ratio: Geometric mean of the ratios of those that it reaches.
        worst: The highest ratio; infinite where a peer reaches a level that it does not.
        starts: Geometric mean of its starts over the clairvoyant's.
    """

    matches: int
    reached: int
    won: int
    ratio: float
    worst: float
    starts: float


def summary(found: Sequence[Match]) -> Summary:
    """Matches in figures; NaN where there are none."""
    told = [match for match in found if not math.isnan(match.ratio)]
    reached = [match for match in told if math.isfinite(match.ratio)]
    return Summary(
        matches=len(told),
        reached=len(reached),
        won=sum(match.ratio < 1.0 for match in reached),
        ratio=geometric_mean([match.ratio for match in reached]),
        worst=max((match.ratio for match in told), default=math.nan),
        starts=geometric_mean([match.starts for match in reached]),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Of the values above 0; NaN where there are none."""
    logs = [math.log(value) for value in values if value > 0 and math.isfinite(value)]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan
