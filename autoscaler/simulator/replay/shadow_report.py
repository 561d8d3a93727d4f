"""What a fleet in shadow would have saved or missed: its policy beside the real fleet, from the journal.

Both sides face the same measured demand and pay the same prices. The real side is what the provider listed. The policy's
side is what the shadow provider simulated. An interval runs from one tick to the next. It has the demand and the VM counts
of the tick that opens it, and the costs recorded by the tick that closes it.

Rules of this file: what is unknown is left out of both sides, and the report says for how long. An interval that no tick
closed in time (the daemon was down, the clock was set) is left out as a whole. Nothing is printed here, and no clock is
read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from autoscaler.core.types import Bool, Float
from autoscaler.ports import ActionRecord, OutcomeKind, Verb
from autoscaler.simulator.replay.recording import MOST_SKIPPED
from autoscaler.simulator.replay.timeline import Episode
from autoscaler.store.reader import TickRow

ENOUGH_S = 86_400.0
"""Seconds of history needed for a conclusion: less than a day does not show a day's demand."""

_WORST_KEPT = 5
_SAME_S = 1e-3
"""Moments closer than this many seconds are the same. Sums of float64 at epoch scale differ in the last bits."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the comparison over some time.

    Attributes:
        cost: Cost in money.
        vm_hours: Hours of VMs that run: those in service, and on the policy's side also those draining.
        unserved_work: Work that found no capacity, where demand is known.
    """

    cost: float
    vm_hours: float
    unserved_work: float


@dataclass(frozen=True, slots=True)
class ShadowComparison:
    """Both sides over some time.

    Attributes:
        name: The day (UTC), or "all".
        span_s: Length of the compared intervals in seconds.
        known_s: The part of `span_s` with known demand.
        demand_work: Work wanted in that part.
        real: The fleet as it really ran.
        policy: The fleet as the policy would have run it.
        starts, stops, provisions: Numbers of VMs that the policy would have started, stopped and provisioned.
    """

    name: str
    span_s: float
    known_s: float
    demand_work: float
    real: Side
    policy: Side
    starts: int
    stops: int
    provisions: int

    def missed_share(self, side: Side) -> float:
        """Return the share of the wanted work that a side left unserved. NaN if no work was wanted."""
        return side.unserved_work / self.demand_work if self.demand_work > 0 else math.nan


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """The comparison for one fleet.

    Attributes:
        fleet: Name of the fleet.
        start_s, end_s: First and last moment, epoch seconds.
        total: The comparison over the whole time.
        days: The comparison for each day (UTC), in order.
        episodes: Number of episodes in which the policy would have been short.
        longest: The longest episode. None if there is none.
        worst: Episodes with the most unserved work, in descending order.
        left_out_s: Seconds between start and end of which nothing is known.
        censored_s: Seconds in which saturated VMs hid demand, so that it was at least what is counted.
        capacity_unknown_s: Seconds in which the capacity of the real side was not known. Its shortage leaves them out.
        restarts: Number of daemon starts in that time. The simulation then begins anew from the real states.
    """

    fleet: str
    start_s: float
    end_s: float
    total: ShadowComparison
    days: tuple[ShadowComparison, ...]
    episodes: int
    longest: Episode | None
    worst: tuple[Episode, ...]
    left_out_s: float
    censored_s: float
    capacity_unknown_s: float
    restarts: int

    @property
    def conclusive(self) -> bool:
        """Whether there is enough history for a conclusion."""
        return self.total.known_s >= ENOUGH_S

    @property
    def priced(self) -> bool:
        """Whether any cost is above 0, so that the policy has prices that matter."""
        return self.total.real.cost > 0 or self.total.policy.cost > 0


@dataclass(frozen=True, slots=True)
class _Intervals:
    """The intervals in shadow, in the order in which they were written: float64 (n,) each."""

    at_s: Float
    length_s: Float
    tick: Float
    demand: Float
    censored: Float
    in_service: Float
    draining: Float
    capacity: Float
    shortage: Float
    running: Float
    cost: Float
    real_cost: Float


def shadow_report(
    fleet: str, ticks: Iterable[TickRow], actions: Iterable[ActionRecord], starts_s: Sequence[float] = ()
) -> ShadowReport | None:
    """Compare a fleet's policy with the real fleet. None if no two successive ticks recorded what really ran.

    Args:
        fleet: Name of the fleet.
        ticks: Ticks of the fleet, in the order in which they were written.
        actions: Actions of the shadow for the fleet, over the same time.
        starts_s: Times at which daemons started.
    """
    found = _intervals(ticks)
    if found is None:
        return None
    real_shortage = _real_shortage(found)
    ordered = _ordered(actions, found)
    days = np.array([datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d") for at_s in found.at_s])
    everything = np.ones(found.at_s.shape, np.bool_)
    episodes = _episodes(found)
    start_s = float(found.at_s.min())
    end_s = float((found.at_s + found.length_s).max())
    total = _compared("all", found, real_shortage, ordered, everything)
    return ShadowReport(
        fleet=fleet,
        start_s=start_s,
        end_s=end_s,
        total=total,
        days=tuple(
            _compared(str(day), found, real_shortage, ordered, days == day) for day in np.unique(days)
        ),
        episodes=len(episodes),
        longest=max(episodes, key=lambda e: e.end_s - e.start_s, default=None),
        worst=tuple(sorted(episodes, key=lambda e: -e.unserved_work)[:_WORST_KEPT]),
        left_out_s=max(end_s - start_s - total.span_s, 0.0),
        censored_s=float(found.length_s[found.censored > 0].sum()),
        capacity_unknown_s=float(found.length_s[np.isnan(real_shortage) & np.isfinite(found.demand)].sum()),
        restarts=sum(start_s < at_s < end_s for at_s in starts_s),
    )


def _intervals(ticks: Iterable[TickRow]) -> _Intervals | None:
    rows = []
    for tick, after in pairwise(ticks):
        r, length_s = tick.recorded, after.at_s - tick.at_s
        if r.real is None or after.recorded.real is None or length_s <= 0:
            continue
        if not 1 <= after.tick - tick.tick <= MOST_SKIPPED:
            continue
        rows.append(
            (
                *(tick.at_s, length_s, tick.tick, r.demand, r.censored, r.in_service, r.draining, r.capacity),
                *(r.shortage, r.real.running, after.recorded.cost, after.recorded.real.cost),
            )
        )
    return _Intervals(*np.array(rows, np.float64).T) if rows else None


def _real_shortage(found: _Intervals) -> Float:
    """Return the demand beyond the capacity of the VMs that really ran: float64 (n,), NaN where either is unknown.

    The capacity of one VM is taken from the policy. It can be read wherever the shadow has a VM in service.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        per_vm = np.where(found.in_service > 0, found.capacity / found.in_service, np.nan)
    known = np.flatnonzero(np.isfinite(per_vm))
    if not known.size:
        return np.full(found.at_s.shape, np.nan)
    # Between two such intervals the earlier capacity holds. Before the first one, that of the first one holds.
    latest = np.searchsorted(known, np.arange(per_vm.size), side="right") - 1
    return np.maximum(found.demand - found.running * per_vm[known[np.maximum(latest, 0)]], 0.0)


def _ordered(actions: Iterable[ActionRecord], found: _Intervals) -> dict[Verb, Float]:
    """Return, per verb, the number of VMs that the shadow ordered in each interval: float64 (n,)."""
    position = {(tick, at_s): i for i, (tick, at_s) in enumerate(zip(found.tick, found.at_s, strict=True))}
    counts = {verb: np.zeros(found.at_s.shape) for verb in Verb}
    for action in actions:
        at = position.get((float(action.tick), action.at_s))
        if at is not None:
            accepted = sum(o.kind is OutcomeKind.ACCEPTED for o in action.outcomes)
            counts[action.intent.verb][at] += accepted
    return counts


def _compared(
    name: str, found: _Intervals, real_shortage: Float, ordered: dict[Verb, Float], within: Bool
) -> ShadowComparison:
    length_s = found.length_s[within]
    known = np.isfinite(found.demand[within]) & np.isfinite(found.shortage[within])

    def work(rate: Float) -> float:
        return float(np.nansum((rate[within] * length_s)[known]))

    def hours(vms: Float) -> float:
        return float((vms[within] * length_s).sum()) / 3600.0

    return ShadowComparison(
        name=name,
        span_s=float(length_s.sum()),
        known_s=float(length_s[known].sum()),
        demand_work=work(found.demand),
        real=Side(float(found.real_cost[within].sum()), hours(found.running), work(real_shortage)),
        policy=Side(
            float(found.cost[within].sum()), hours(found.in_service + found.draining), work(found.shortage)
        ),
        starts=int(ordered[Verb.START][within].sum()),
        stops=int(ordered[Verb.STOP][within].sum()),
        provisions=int(ordered[Verb.PROVISION][within].sum()),
    )


def _episodes(found: _Intervals) -> tuple[Episode, ...]:
    """Return the runs of adjoining intervals in which the policy would have been short."""
    short = np.flatnonzero(np.nan_to_num(found.shortage, nan=0.0) > 0)
    if not short.size:
        return ()
    ends_s = found.at_s + found.length_s
    adjoining = (np.diff(short) == 1) & (np.abs(found.at_s[short[1:]] - ends_s[short[:-1]]) < _SAME_S)
    begins = np.concatenate(([0], np.flatnonzero(~adjoining) + 1))
    lasts = np.concatenate((begins[1:], [short.size])) - 1
    amounts = found.shortage[short]
    return tuple(
        Episode(float(start_s), float(end_s), float(work), float(worst))
        for start_s, end_s, work, worst in zip(
            found.at_s[short[begins]],
            ends_s[short[lasts]],
            np.add.reduceat(amounts * found.length_s[short], begins),
            np.maximum.reduceat(amounts, begins),
            strict=True,
        )
    )
