"""The stage of limits that fleets share: ceilings on VMs, hourly cost and starts for groups of lanes.

VMs that run or are on their way stay, and count, including draining ones: a limit is never a reason to stop a VM. Next, the safety
floors are reserved: the policy's minimum and an operator's floor (a schedule's floor is a wish like any other). They may exceed the
limit, and are granted all the same, as far as the group's starts allow. The rest goes to the VMs that earn most: by prices and forecast
if a lane has an objective, otherwise by how busy VMs would be, from the last known demand, so that a lane without data neither gains
nor loses. The limits apply one after the other, each to what the previous one left.

Rules of this file: as for guards. Only the lanes of a group read each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from autoscaler.core.allocation import BLOCK, HeldBack, Limit, full_tokens, handed_out
from autoscaler.core.objective.worth import Worth
from autoscaler.core.params import LaneParams
from autoscaler.core.rules import FRESH, Rule, RuleInputs, Why, within
from autoscaler.core.types import NO_CEILING, CountType, Float, Horizon, Int, Reason

_REASONS = np.array(
    [int(Reason.SHARED_VMS), int(Reason.SHARED_MONEY), int(Reason.SHARED_STARTS), int(Reason.NONE)]
)
_FREE = len(_REASONS) - 1


def shared(params: LaneParams, counts: CountType) -> Rule | None:
    """Limit the wish to what the lane's group leaves it; None if no lane is in a group."""
    groups = [
        Group(params, np.flatnonzero(params.group == number))
        for number in np.unique(params.group)
        if number >= 0
    ]
    if not groups:
        return None
    full = full_tokens(params)
    most = within(np.where(params.provision, params.max_provisioned, 0), counts)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        view, state = seen.snapshot, seen.state.shared
        known = (view.freshness == FRESH) & ~np.isnan(view.demand)
        state.demand = np.where(known, view.demand, state.demand)
        passed_s = max(view.now_s - state.refilled_s, 0.0)
        state.tokens = np.minimum(state.tokens + passed_s * full / params.group_period_s, full)
        state.refilled_s = view.now_s
        can = _can_be_had(seen, wish, most)
        value, code = wish.copy(), np.full(len(wish), _FREE)
        for group in groups:
            lanes = group.lanes
            claim = Claim.of(params, seen, can, lanes)
            got, code[lanes], held = group.share(seen, claim)
            value[lanes] = np.where(got < claim.wanted, got, wish[lanes])
            seen.held_back += held

        def why() -> Int:
            told: Int = _REASONS.take(code) * (value < wish)
            return told

        return value, why

    return rule


def _can_be_had(seen: RuleInputs, wish: Int, most: Int) -> Int:
    """VMs that each lane wants and can get from the warm pool and, if allowed, by provisioning: int64 (L,)."""
    view = seen.snapshot
    room = np.maximum(most - view.provisioned, 0) * view.may_provision
    reach = seen.ordered + view.stopped * view.may_start + room
    can: Int = np.minimum(np.maximum(wish, seen.ordered), reach).astype(np.int64)
    return can


@dataclass(frozen=True, slots=True)
class Claim:
    """What the lanes of one group have and want: int64 (G,) each.

    Attributes:
        ordered: VMs in service or starting.
        leaving: Draining VMs, which count until they are gone.
        floor: The safety floor: the policy's minimum or an operator's floor.
        wanted: VMs wanted that can be had, at least those ordered.
    """

    ordered: Int
    leaving: Int
    floor: Int
    wanted: Int

    @classmethod
    def of(cls, params: LaneParams, seen: RuleInputs, can: Int, lanes: Int) -> Claim:
        """The claim of some lanes; `can`, int64 (L,), is what each lane can get."""
        view = seen.snapshot
        ceiling, floor = view.ceiling[lanes].astype(np.int64), view.floor[lanes].astype(np.int64)
        most = np.where(ceiling < NO_CEILING, ceiling, params.maximum[lanes])
        least = np.minimum(np.maximum(params.minimum[lanes], floor), np.maximum(most, floor))
        return cls(
            ordered=seen.ordered[lanes].astype(np.int64),
            leaving=view.draining[lanes].astype(np.int64),
            floor=least,
            wanted=can[lanes],
        )


@dataclass(slots=True)
class Group:
    """The lanes that share limits, compiled.

    Attributes:
        params: The policies of all lanes.
        lanes: int64 (G,), the lanes of this group.
    """

    params: LaneParams
    lanes: Int
    _worth: Worth = field(init=False)
    _money: Float = field(init=False)

    def __post_init__(self) -> None:
        series, capacity = self.params.series[self.lanes], self.params.vm_capacity[self.lanes]
        self._worth = Worth(series, capacity, (Horizon.LEAD,) * BLOCK)
        self._money = self.params.vm_price[self.lanes]

    def share(self, seen: RuleInputs, claim: Claim) -> tuple[Int, Int, tuple[HeldBack, ...]]:
        """Divide the limits among the lanes, and deduct the granted starts from the group's tokens.

        Returns:
            int64 (G,), VMs of each lane, between those ordered and those wanted; int64 (G,), the `Limit` that decided, or a
            number beyond the last one if no limit did; and one value for each lane that gets less than it wants.
        """
        first = self.lanes[0]
        worth = self.worth(seen)
        got, code = claim.wanted, np.full(len(self.lanes), _FREE)
        one = np.ones(len(self.lanes))
        for limit, most, takes in (
            (Limit.VMS, float(self.params.group_vms[first]), one),
            (Limit.MONEY, float(self.params.group_money[first]), self._money),
        ):
            if np.isfinite(most):
                safe = np.maximum(claim.ordered, claim.floor)
                left = most - _together((safe + claim.leaving) * takes)
                fits = handed_out(safe, np.maximum(got, safe), takes, left, worth)
                got, code = _lower(got, fits, code, limit)
        if np.isfinite(self.params.group_starts[first]):
            # A lane that joins the group brings full tokens; what the others have left is what counts.
            left = np.floor(np.minimum.reduce(seen.state.shared.tokens[self.lanes]))
            safe = np.minimum(got, np.maximum(claim.ordered, claim.floor))
            fits = handed_out(claim.ordered, safe, one, left, worth)
            if (fits == safe).all():
                fits = handed_out(safe, got, one, left - _together(safe - claim.ordered), worth)
            got, code = _lower(got, fits, code, Limit.STARTS)
            seen.state.shared.tokens[self.lanes] = np.minimum.reduce(
                seen.state.shared.tokens[self.lanes]
            ) - _together(got - claim.ordered)
        short = np.flatnonzero(got < claim.wanted)
        return got, code, self._held_back(short, code, claim, got, worth) if len(short) else ()

    def worth(self, seen: RuleInputs) -> Callable[[Int], Float]:
        """Return a function of numbers of VMs, int64 (BLOCK, G): what the last of them earns, float64 (BLOCK, G)."""
        lanes, capacity = self.lanes, self.params.vm_capacity[self.lanes]
        demand = seen.state.shared.demand[lanes]
        laws = None if seen.outlook is None else seen.outlook.laws
        economics = seen.economics
        if economics is None or laws is None:
            return lambda vms: demand / (capacity * vms)
        place = np.minimum(np.searchsorted(economics.lanes, lanes), len(economics.lanes) - 1)
        priced = economics.lanes[place] == lanes
        price = np.where(priced, economics.price[place], np.nan)

        def earned(vms: Int) -> Float:
            by_price = self._worth.share(laws, vms) * price
            return np.where(np.isnan(by_price), demand / (capacity * vms), by_price)

        return earned

    def _held_back(
        self, short: Int, code: Int, claim: Claim, got: Int, worth: Callable[[Int], Float]
    ) -> tuple[HeldBack, ...]:
        """Describe the lanes that get less than they want."""
        asked = np.broadcast_to(np.maximum(got, 1), (BLOCK, len(got))).copy()
        asked[1] = got + 1
        last, following = worth(asked)[:2]
        known = np.flatnonzero((got > 0) & ~np.isnan(last))
        # The two lanes that earn least, so that every lane has a rival other than itself.
        least = known[np.argsort(last[known], kind="stable")[:2]].tolist()
        told = []
        for at in short.tolist():
            one = next((other for other in least if other != at), -1)
            earned = float(last[one]) if one >= 0 else float("nan")
            told.append(
                HeldBack(
                    lane=int(self.lanes[at]),
                    limit=Limit(int(code[at])),
                    wanted=int(claim.wanted[at]),
                    worth=float(following[at]),
                    rival=int(self.lanes[one]) if one >= 0 else -1,
                    rival_vm=int(got[one]) if one >= 0 else 0,
                    rival_worth=earned,
                )
            )
        return tuple(told)


def _lower(got: Int, fits: Int, code: Int, limit: Limit) -> tuple[Int, Int]:
    """The lower of two numbers of VMs, and the limit that set it."""
    lower = fits < got
    return np.where(lower, fits, got), np.where(lower, int(limit), code)


def _together(takes: Int | Float) -> float:
    """The sum over lanes, added in their order."""
    return float(np.add.accumulate(takes)[-1])
