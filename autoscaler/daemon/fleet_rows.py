"""One fleet's part of a tick, as the journal records it: numbers, reasons, and the sentence that explains them.

Rules of this file: nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import TYPE_CHECKING, Any

from autoscaler.core.allocation import HeldBack, Limit
from autoscaler.core.objective.economics import Economics
from autoscaler.core.objective.models import MODELS
from autoscaler.core.rules import is_fixed
from autoscaler.core.types import (
    MOST_VMS,
    Array,
    BurstOdds,
    Decision,
    Freshness,
    Int,
    Reason,
    Samples,
    Stage,
    TierReason,
)
from autoscaler.daemon.decision_sentences import SentenceInputs, sentence
from autoscaler.daemon.vms.tracked import Counts
from autoscaler.ports import DueBurst, Earnings, FleetTick, Memories, RealVms, SharedHold, name_of

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet


_AHEAD = frozenset({int(Reason.FORECAST_COVER), int(Reason.WORTH_START)})
"""Reasons whose sentences mention what demand may be by the time a start serves."""


@dataclass(frozen=True, slots=True)
class LastSentence:
    """The last sentence of a fleet, and the numbers that it was written from."""

    of: SentenceInputs | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class CachedRow:
    """The last row of a fleet, and what it was made from."""

    values: tuple[Any, ...]
    counts: Counts
    row: FleetTick

    def is_of(
        self, fleet: Fleet, values: tuple[Any, ...], counts: Counts, cost: float, real: RealVms | None
    ) -> bool:
        """Return whether a row made from these inputs would be identical to this one."""
        row = self.row
        return (
            values is self.values
            and (counts is self.counts or counts == self.counts)
            and cost == row.cost
            and real == row.real
            and fleet.source_error == row.source_error
            and counts.in_service * fleet.capacity_per_s == row.capacity
        )


class LaneValues:
    """Caches what `fleet_tick` needs of each lane, so that ticks without changes yield the same objects."""

    def __init__(self) -> None:
        self._of: tuple[Any, ...] = ()
        self._values: list[tuple[Any, ...]] = []

    def of(self, samples: Samples, decision: Decision, fleets: Sequence[Fleet]) -> list[tuple[Any, ...]]:
        """Return `lane_values`, reusing the last ones where nothing but the time of observation has changed."""
        arrays: tuple[Array, ...] = (samples.demand, samples.freshness, samples.coverage, samples.censored)
        when = samples.observed_at_s
        of = (decision, fleets, *arrays, when)
        if self._of and all(map(is_, of[:-1], self._of)):
            if when is self._of[-1]:
                return self._values
            self._values = [
                (demand, observed_at_s, *rest)
                for (demand, _, *rest), observed_at_s in zip(self._values, when.tolist(), strict=True)
            ]
            fixed = is_fixed(when)
        else:
            self._values = lane_values(samples, decision, fleets)
            fixed = all(map(is_fixed, (*arrays, when)))
        # Arrays that are writable may change in place, so identity proves nothing about them.
        self._of = of if fixed else ()
        return self._values


def lane_values(samples: Samples, decision: Decision, fleets: Sequence[Fleet]) -> list[tuple[Any, ...]]:
    """Return per lane, in lane order, what `fleet_tick` needs of samples and decision, as Python numbers."""
    arrays = (
        samples.demand,
        samples.observed_at_s,
        samples.freshness,
        samples.coverage,
        samples.censored,
        decision.forecast,
        decision.forecast_hi,
        decision.wish,
        decision.desired,
        decision.start,
        decision.provision,
        decision.stop,
        decision.warm_target,
        decision.value.T,
        decision.reason.T,
    )
    columns = [array.tolist() for array in arrays]
    held: list[SharedHold | None] = [None] * len(fleets)
    for one in decision.held_back:
        held[one.lane] = _hold(one, fleets)
    bursts, memories = due_bursts(decision.bursts, fleets), memories_of(decision)
    return list(zip(*columns, earnings_of(decision), held, bursts, memories, strict=True))


def due_bursts(bursts: BurstOdds | None, fleets: Sequence[Fleet]) -> list[DueBurst | None]:
    """Return the burst that is due for each fleet; None if none is due, or if the policy uses no forecasts."""
    found: list[DueBurst | None] = [None] * len(fleets)
    if bursts is None:
        return found
    rows = zip(fleets, bursts.at_s.tolist(), bursts.odds.tolist(), bursts.period_s.tolist(), strict=True)
    for lane, (fleet, at_s, odds, period_s) in enumerate(rows):
        if not math.isnan(at_s) and (fleet.policy.objective or fleet.policy.forecast):
            found[lane] = DueBurst(float(round(at_s)), round(odds, 2), period_s)
    return found


def _hold(held: HeldBack, fleets: Sequence[Fleet]) -> SharedHold | None:
    """Describe, with names, how a shared limit holds a lane back; None if the fleet no longer has a group."""
    policy = fleets[held.lane].policy
    limits = policy.group
    if limits is None:
        return None
    starts = limits.most_starts
    most = {
        Limit.VMS: limits.most_vms,
        Limit.MONEY: limits.most_money_per_h,
        Limit.STARTS: None if starts is None else starts.vms,
    }
    rival = fleets[held.rival] if held.rival >= 0 else None
    return SharedHold(
        group=limits.name,
        limit=held.limit.name.lower(),
        most=float(most[held.limit] or 0.0),
        per_s=starts.per_s if starts is not None and held.limit is Limit.STARTS else 0.0,
        wanted=held.wanted,
        worth=_few(held.worth),
        rival="" if rival is None else rival.name,
        rival_vm=held.rival_vm,
        rival_worth=_few(held.rival_worth),
        priced=policy.objective is not None,
        rival_priced=rival is not None and rival.policy.objective is not None,
    )


def earnings_of(decision: Decision) -> list[Earnings | None]:
    """Return what each lane was sized by; None for lanes without an objective."""
    found: list[Earnings | None] = [None] * len(decision.desired)
    economics = decision.economics
    if economics is None:
        return found
    told = earnings(economics, decision.value[Stage.ECONOMIC][economics.lanes])
    for lane, earned in zip(economics.lanes.tolist(), told, strict=True):
        found[lane] = earned
    return found


def earnings(economics: Economics, vms: Int) -> list[Earnings]:
    """Return what each lane of `economics` was sized by.

    Args:
        economics: Prices, models and bounds of the lanes with an objective.
        vms: int64 (n,), how many VMs the economic stage wants in each of these lanes.
    """
    doubted = repeat(0) if economics.doubted is None else economics.doubted.tolist()
    last, following = economics.worth(vms)
    rows = zip(
        economics.price.tolist(), economics.models(vms).tolist(), economics.low.tolist(), economics.high.tolist(),
        last.tolist(), following.tolist(), doubted, strict=False,
    )  # fmt: skip
    return [
        Earnings(_few(price) or 0.0, str(MODELS[model]), low, high, _few(earns), _few(earned), held)
        for price, model, low, high, earns, earned, held in rows
    ]


def memories_of(decision: Decision) -> list[Memories | None]:
    """Return how the VMs of each lane should wait; None for lanes whose VMs may not hibernate."""
    found: list[Memories | None] = [None] * len(decision.desired)
    tiers = decision.tiers
    if tiers is None:
        return found
    last, following = tiers.shares()
    rows = zip(
        tiers.lanes.tolist(), tiers.first.tolist(), tiers.reason.tolist(),
        tiers.least.tolist(), last.tolist(), following.tolist(), strict=True,
    )  # fmt: skip
    for lane, first, reason, *shares in rows:
        hibernated = first if first < MOST_VMS else None
        found[lane] = Memories(hibernated, TierReason(reason).name.lower(), *map(_few, shares))
    return found


def _few(number: float) -> float | None:
    """Round to three significant digits, because more would say nothing and change the sentence at every tick.

    Returns None if the number is NaN.
    """
    return None if math.isnan(number) else float(f"{number:.3g}")


def fleet_tick(
    fleet: Fleet, values: tuple[Any, ...], counts: Counts, cost: float, real: RealVms | None = None
) -> FleetTick:
    """Return one lane of a tick as the journal records it.

    Args:
        fleet: The fleet of the lane.
        values: The lane's entry of `lane_values`.
        counts: VMs by phase.
        cost: Money over the interval that this tick closes.
        real: The real VMs of a fleet in shadow.
    """
    last = fleet.row
    if last is not None and last.is_of(fleet, values, counts, cost, real):
        return last.row
    row = _fleet_tick(fleet, values, counts, cost, real)
    fleet.row = CachedRow(values, counts, row)
    return row


def _fleet_tick(
    fleet: Fleet, values: tuple[Any, ...], counts: Counts, cost: float, real: RealVms | None
) -> FleetTick:
    (
        demand, observed_at_s, freshness, coverage, censored, forecast, forecast_hi,
        wish, desired, start, provision, stop, warm_target, stages, reasons, earnings, shared, burst, memories,
    ) = values  # fmt: skip
    # NaN is not equal to itself, but `math.nan` is the same object each time, and tuples compare by identity first.
    told = SentenceInputs(
        stages=tuple(stages),
        reasons=tuple(reasons),
        in_service=counts.in_service,
        starting=counts.starting,
        start=start,
        provision=provision,
        stop=stop,
        desired=desired,
        freshness=freshness,
        coverage=coverage,
        demand=math.nan if math.isnan(demand) else demand,
        forecast_hi=forecast_hi if _AHEAD.intersection(reasons) else 0.0,
        earnings=earnings,
        shared=shared,
        burst=burst,
    )
    if told != fleet.last_sentence.of:
        fleet.last_sentence = LastSentence(told, sentence(told))
    capacity = counts.in_service * fleet.capacity_per_s
    return FleetTick(
        fleet=fleet.name,
        demand=demand,
        observed_at_s=observed_at_s,
        freshness=freshness,
        coverage=coverage,
        censored=censored,
        in_service=counts.in_service,
        starting=counts.starting,
        draining=counts.draining,
        stopping=counts.stopping,
        stopped=counts.stopped,
        provisioned=counts.provisioned,
        stoppable=counts.stoppable,
        forecast=forecast,
        forecast_hi=forecast_hi,
        wish=wish,
        desired=desired,
        start=start,
        provision=provision,
        stop=stop,
        warm_target=warm_target,
        capacity=capacity,
        shortage=max(demand - capacity, 0.0) if freshness == Freshness.FRESH else float("nan"),
        cost=cost,
        stages=told.stages,
        reasons=told.reasons,
        sentence=fleet.last_sentence.words,
        earnings=earnings,
        shared=shared,
        burst=burst,
        memories=memories,
        real=real,
        source_error=fleet.source_error,
        provider=name_of(fleet.provider),
    )
