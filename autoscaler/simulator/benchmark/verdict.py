"""The verdict over all traces: how close a rule comes to the best peer, with each peer at its best setting per trace.

The ratio of a rule on a trace, at a level of unserved work, is (its regret + half a point) over (the least regret of all
peers + half a point). The half points keep a tenth of a point above a perfect peer from counting as a disaster. Below 1, the
rule beats every peer. Traces with less than seven scored days are reported separately, because luck decides there.

Rules of this file: it computes figures from bouts and runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoscaler.simulator.benchmark.curves import LEVELS
from autoscaler.simulator.benchmark.trace_run import Bout, FleetResult

SLACK = 0.005


@dataclass(frozen=True, slots=True)
class Match:
    """A rule against the peers on one trace, at one fleet size and one level of unserved work.

    Attributes:
        trace: Name of the trace.
        size: Number of VMs that the 99.9 % quantile of demand needs.
        level: Share of unserved work.
        long: Whether at least seven days are scored.
        regret: Regret of the rule. Infinite if it does not reach the level.
        best: Key of the peer with the least regret. Empty if no peer reaches the level.
        best_regret: Regret of that peer. Infinite if no peer reaches the level.
        starts: Starts of the rule divided by those of the clairvoyant. NaN if the rule does not reach the level.
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
        """Ratio of the regrets. Infinite if only a peer reaches the level, 0 if only the rule does, NaN if neither does."""
        if math.isinf(self.regret):
            return math.inf if math.isfinite(self.best_regret) else math.nan
        return (self.regret + SLACK) / (self.best_regret + SLACK)


def by_fleet(found: Iterable[Match]) -> dict[tuple[str, int], list[Match]]:
    """Group matches by trace and fleet size, keeping their order."""
    rows: dict[tuple[str, int], list[Match]] = {}
    for match in found:
        rows.setdefault((match.trace, match.size), []).append(match)
    return rows


def matches(bouts: Iterable[Bout], key: str, peers: Sequence[str]) -> list[Match]:
    """Compare a rule with the peers on each trace, at each fleet size and level."""
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
    """Several matches, summarised.

    Attributes:
        matches: Number of matches in which the rule or a peer reaches the level. Only these count.
        reached: Number of matches in which the rule reaches the level.
        won: Number of matches in which its regret is below every peer's.
        ratio: Geometric mean of the ratios of the matches that it reaches.
        worst: The highest ratio. Infinite if a peer reaches a level that the rule does not.
        starts: Geometric mean of its starts divided by the clairvoyant's.
    """

    matches: int
    reached: int
    won: int
    ratio: float
    worst: float
    starts: float


def summary(found: Sequence[Match]) -> Summary:
    """Summarise matches. Means are NaN if nothing is reached, and `worst` is NaN if no match counts."""
    known = [match for match in found if not math.isnan(match.ratio)]
    reached = [match for match in known if math.isfinite(match.ratio)]
    return Summary(
        matches=len(known),
        reached=len(reached),
        won=sum(match.ratio < 1.0 for match in reached),
        ratio=geometric_mean([match.ratio for match in reached]),
        worst=max((match.ratio for match in known), default=math.nan),
        starts=geometric_mean([match.starts for match in reached]),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of the values that are positive and finite. NaN if there are none."""
    logs = [math.log(value) for value in values if value > 0 and math.isfinite(value)]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan
