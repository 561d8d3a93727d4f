"""One decision for all lanes: the fixed chain of stages, then the numbers of VMs to act on.

The daemon and every simulation call this. It never asks what time it is, whether it is live, or how many lanes there are.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core import guards, sizing, trust
from autoscaler.core.allocation import HeldBack
from autoscaler.core.objective.economic import economic
from autoscaler.core.objective.economics import Economics
from autoscaler.core.params import LaneParams
from autoscaler.core.rules import UNCHANGED, InputCache, Rule, RuleInputs, StageFunction, Why, reasons, within
from autoscaler.core.shared_limits import shared
from autoscaler.core.state import LaneState
from autoscaler.core.types import (
    QUANTILE_LEVELS,
    BurstOdds,
    CountType,
    Decision,
    Float,
    Int,
    Outlook,
    SmallInt,
    Snapshot,
    Stage,
)
from autoscaler.core.validity import AFTER_DATA, LASTS, Inputs, Lasts, Rest, never
from autoscaler.core.warm.provisioned_target import ProvisionedTarget
from autoscaler.core.warm.tiers import Tiering, Tiers
from autoscaler.core.warm_pool import WarmTarget

CHAIN: dict[Stage, StageFunction] = {
    Stage.REACTIVE: sizing.reactive,
    Stage.STEPS: sizing.steps,
    Stage.SCHEDULE: sizing.schedule,
    Stage.COVER: sizing.cover,
    Stage.ECONOMIC: economic,
    Stage.STABILISATION: guards.stabilisation,
    Stage.DATA: trust.data,
    Stage.COOLDOWN: guards.cooldown,
    Stage.BOUNDS: guards.bounds,
    Stage.RATE: guards.rate,
    Stage.ON_TIME: guards.on_time,
    Stage.PAUSE: guards.pause,
    Stage.SHARED: shared,
    Stage.SUPPLY: guards.supply,
}
"""Every stage, in order; live and simulated runs use the same functions."""

_AFTER_WISH, _AFTER_BOUNDS, _AFTER_GUARDS = (
    int(stage) + 1 for stage in (Stage.ECONOMIC, Stage.BOUNDS, Stage.SHARED)
)

_EMPTY: Int = np.zeros(0, np.int64)


def decide(params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook | None) -> Decision:
    """Decide how many VMs every lane should run, start, provision and stop, and how many should wait.

    The chain is compiled at the first call and kept in `state` for as long as `params` is the same object; its arrays
    must not change in that time. There is therefore no faster variant for a hot loop; `Snapshot` says what makes ticks
    cheap.

    Args:
        params: Compiled policies, L lanes.
        state: Updated in place.
        snapshot: Inputs of this tick, L lanes.
        outlook: Forecasts over series; lanes read theirs through `params.series`. None if no lane orders by forecast; the
            decision's forecasts are then NaN.

    Returns:
        The decision, with one reason per stage. VMs that are starting are never stopped, and `stop` never takes the
        VMs in service below `desired`. Counts of paused actions are zero.

    Raises:
        ValueError: A lane orders by forecast but there is no Outlook, or has an objective but there are no laws.
    """
    chain, counts = state.chain, snapshot.in_service.dtype
    if chain is None or chain.params is not params or chain.counts != counts:
        chain = state.chain = Chain(params, counts)
    return chain.decide(state, snapshot, outlook)


def decide_later(
    params: LaneParams, state: LaneState, now_s: float, tick: int, outlook: Outlook | None
) -> Decision | None:
    """The result of `decide` at a later time if nothing else has changed, without building a snapshot.

    Args:
        params: Compiled policies, L lanes.
        state: Updated in place if there is an answer.
        now_s: Time of the decision; its snapshot would have the same arrays as that of the last decision.
        tick: Number of the tick on the absolute grid.
        outlook: As in `decide`.

    Returns:
        The decision; None if `decide` has to compute it.
    """
    chain = state.chain
    if chain is None or chain.params is not params:
        return None
    return chain.later(state, now_s, tick, outlook)


class Chain:
    """The chain of stages, compiled for a set of policies; a stage that no lane uses costs nothing.

    Args:
        params: The policies, L lanes.
        counts: The type of the snapshots' counts (`CountType`).
    """

    def __init__(self, params: LaneParams, counts: CountType) -> None:
        self.params = params
        self.counts = counts
        self.rules: list[Rule | None] = [stage(params, counts) for stage in CHAIN.values()]
        self._input_cache = InputCache()
        self._note = guards.notes(params)
        self._none = np.zeros(len(params.series), counts)
        self._none.flags.writeable = False
        self._provisions = bool(params.provision.any())
        self._lasts: list[Lasts | None] = [
            None if rule is None else LASTS.get(stage, never)(params)
            for stage, rule in zip(CHAIN, self.rules, strict=True)
        ]
        self._desired, self._wanted, self._economic_wanted = self._none, self._none, self._none
        self._inputs = Inputs()
        self._until_s, self._now_s = -np.inf, -np.inf
        self._last: StagedDecision | None = None
        self.warm_target = WarmTarget(params, counts)
        # An operator's floor may exceed the maximum, but ends one day: the warm pool holds nothing for the VMs beyond it.
        self._most = within(params.maximum, counts)
        self._economic = np.flatnonzero(params.economic)
        self._provisioned = ProvisionedTarget(params, self._economic) if len(self._economic) else None
        may_hibernate = np.flatnonzero(params.hibernate)
        self.tiering = Tiering(params, may_hibernate) if len(may_hibernate) else None
        self._rest: Rest | None = None
        self._only_own = self._provisioned is not None and self.rules[Stage.SHARED] is None
        self.forecasts = {
            level: sizing.quantiles(params, np.full(len(params.series), at))
            for at, level in enumerate(QUANTILE_LEVELS)
        }

    def decide(self, state: LaneState, snapshot: Snapshot, outlook: Outlook | None) -> Decision:
        """Decide as the function `decide` does, for the policies of this chain."""
        known = self._inputs.are_those_of(snapshot)
        if known and (later := self.later(state, snapshot.now_s, snapshot.tick, outlook)) is not None:
            return later
        self._last = None
        decision, seen = self._compute(state, snapshot, outlook)
        self._now_s = snapshot.now_s
        self._until_s = self._lasts_until_s(seen, decision) if known else -np.inf
        self._last = decision if self._until_s > snapshot.now_s else None
        return decision

    def _lasts_until_s(self, seen: RuleInputs, decision: StagedDecision) -> float:
        """Until when the same decision would be made and no state would change if only time passes; -inf if not known."""
        moving = (seen.snapshot.starting, decision.start, decision.provision, decision.stop)
        if self._provisioned is not None or any(map(np.count_nonzero, moving)):
            return -np.inf
        # The arrays may be returned again, so no receiver may change them.
        for array in moving[1:]:
            array.flags.writeable = False
        values, until_s = decision.details.values, np.inf
        for lasts, before, after in zip(self._lasts, values, values[1:], strict=False):
            if lasts is not None:
                until_s = min(until_s, lasts(seen, before, after))
        return until_s

    def later(
        self, state: LaneState, now_s: float, tick: int, outlook: Outlook | None
    ) -> StagedDecision | None:
        """The last decision if it still holds at `now_s`, else None; see `decide_later`."""
        decision = self._last
        if decision is None or not self._now_s <= now_s < self._until_s:
            return None
        self._now_s = now_s
        if self.rules[Stage.STABILISATION] is not None:
            state.wishes.hold(tick)
        if self.rules[Stage.RATE] is not None:
            state.refilled_s = now_s
        details = decision.details.with_later(outlook, state.peaks.again(tick))
        if details is not decision.details:
            decision = self._last = StagedDecision(decision.start, decision.provision, decision.stop, details)
        return decision

    def _compute(
        self, state: LaneState, snapshot: Snapshot, outlook: Outlook | None
    ) -> tuple[StagedDecision, RuleInputs]:
        """Run the stages anew; return the decision and the inputs that the stages saw."""
        seen = self._input_cache.at(state, snapshot, outlook)
        values, whys = [self._none], list[Why]()
        start = provision = stop = self._none
        same = False
        if self._provisioned is None:
            self._run_stages(seen, values, whys, 0, len(self.rules))
        else:
            same = self._run_needed(seen, values, whys)
        if not same:
            start, provision, stop = self._orders(seen, values[-1], values[_AFTER_GUARDS])
            same = self._note_desired(values)
            self._rest = Rest.of(seen, values, whys) if self._only_own else None
        peak = (state.peaks.push_again if same else state.peaks.push_and_max)(snapshot.tick, self._wanted)
        held = None
        if self._provisioned is not None and seen.economics is not None:
            held = self._provisioned.step(
                state.warm_pool, snapshot.tick, self._economic_wanted, seen.economics.price
            )
        details = DecisionDetails(self, values, whys, outlook, peak, seen.economics, held)
        details.held_back = seen.held_back
        if self.tiering is not None:
            details.at_first = self.tiering.step(state.starting, snapshot)
        return StagedDecision(start, provision, stop, details), seen

    def _run_stages(self, seen: RuleInputs, values: list[Int], whys: list[Why], first: int, end: int) -> None:
        """Run the stages `first` to `end` (exclusive) and append their results to `values` and `whys`."""
        wish = values[-1]
        for rule in self.rules[first:end]:
            why: Why = UNCHANGED
            if rule is not None:
                wish, why = rule(seen, wish)
            values.append(wish)
            whys.append(why)

    def _run_needed(self, seen: RuleInputs, values: list[Int], whys: list[Why]) -> bool:
        """Run the stages that have to run; return whether those after the data guard repeat their last results."""
        rest, rate = self._rest, self.rules[Stage.RATE]
        self._run_stages(seen, values, whys, 0, AFTER_DATA)
        if rest is None or not rest.goes_on(seen, values[-1]):
            self._run_stages(seen, values, whys, AFTER_DATA, _AFTER_BOUNDS)
            seen.settle(values[-1])
            self._run_stages(seen, values, whys, _AFTER_BOUNDS, len(self.rules))
            return False
        seen.settled = rest.settled
        if rate is not None:
            # Token buckets refill even if no rule changes a wish.
            rate(seen, rest.settled)
        values.extend(values[-1] if each is None else each for each in rest.values)
        whys.extend(rest.whys)
        return True

    def _orders(self, seen: RuleInputs, wish: Int, desired: Int) -> tuple[Int, Int, Int]:
        """Return VMs to start, to provision and to stop, int (L,) each (one shared array for all zeros); note the orders."""
        snapshot, none = seen.snapshot, self._none
        if wish is seen.settled:
            if self._note is not None:
                self._note(seen.state, snapshot)
            return none, none, none
        if seen.moving is not None and self._only_own and not self._provisions:
            return self._orders_in(seen, seen.moving, wish, desired)
        out = start = np.maximum(wish - seen.ordered, none)
        provision = none
        if self._provisions:
            start = guards.startable(seen, np.maximum(desired - seen.ordered, none))
            provision = out - start
        stop = np.minimum(np.maximum(snapshot.in_service - desired, none), snapshot.stoppable)
        if self._note is not None:
            # On thousands of counts, `(x > 0).nonzero()` is much faster than `x.nonzero()`.
            went_out, went_in = (out > 0).nonzero()[0], (stop > 0).nonzero()[0]
            self._note(seen.state, snapshot, went_out, out[went_out], went_in, stop[went_in])
            if not self._provisions and not len(went_out):
                start = none
            if not len(went_in):
                stop = none
        return start, provision, stop

    def _orders_in(self, seen: RuleInputs, lanes: Int, wish: Int, desired: Int) -> tuple[Int, Int, Int]:
        """Same as `_orders`, if only `lanes`, int64 (m,), may act and no lane provisions VMs."""
        snapshot, start, stop = seen.snapshot, self._none, self._none
        change = wish.take(lanes) - seen.ordered.take(lanes)
        more = (change > 0).nonzero()[0]
        went_out = went_in = vms_out = vms_in = _EMPTY
        if len(more):
            went_out, vms_out = lanes.take(more), change.take(more)
            start = np.zeros(len(wish), self.counts)
            start[went_out] = vms_out
        if len(more) < len(lanes):
            less = snapshot.in_service.take(lanes) - desired.take(lanes)
            if snapshot.stoppable is not snapshot.in_service:
                less = np.minimum(less, snapshot.stoppable.take(lanes))
            fewer = (less > 0).nonzero()[0]
            if len(fewer):
                went_in, vms_in = lanes.take(fewer), less.take(fewer)
                stop = np.zeros(len(wish), self.counts)
                stop[went_in] = vms_in
        if self._note is not None:
            self._note(seen.state, snapshot, went_out, vms_out, went_in, vms_in)
        return start, self._none, stop

    def _note_desired(self, values: list[Int]) -> bool:
        """Note the desired numbers; return whether all are known to equal those of the last tick.

        If they are and a lane has an objective, `values` gets the same array object as before, which later steps recognise.
        """
        desired = values[_AFTER_GUARDS]
        if self._provisioned is None:
            self._wanted = np.minimum(desired, self._most)
            return False
        if self._desired is not self._none and desired.tobytes() == self._desired.tobytes():
            values[_AFTER_GUARDS] = self._desired
            return True
        self._desired = desired
        self._wanted = np.minimum(desired, self._most)
        lanes = self._economic
        self._economic_wanted = self._wanted if len(lanes) == len(desired) else self._wanted[lanes]
        for array in (self._desired, self._wanted, self._economic_wanted):
            array.flags.writeable = False
        return False


class DecisionDetails:
    """How a decision came about; each part is computed when it is first read.

    Args:
        chain: The compiled policies.
        values: The wish before the first stage and after each stage.
        whys: The reasons of each stage.
        outlook: The Outlook given to `decide`.
        peak: int32 (L,), the highest desired number within the warm pool's memory.
        economics: The numbers behind the economic stage; None if no lane has an objective.
        held: int64 (n,), VMs worth having in lanes with an objective; None if no lane has one.
    """

    __slots__ = (
        "_chain",
        "_held",
        "_outlook",
        "_peak",
        "_reason",
        "_rows",
        "_tiers",
        "_warm_target",
        "_whys",
        "at_first",
        "economics",
        "held_back",
        "values",
    )

    def __init__(
        self,
        chain: Chain,
        values: list[Int],
        whys: list[Why],
        outlook: Outlook | None,
        peak: SmallInt,
        economics: Economics | None,
        held: Int | None,
    ) -> None:
        self.economics = economics
        self.held_back: tuple[HeldBack, ...] = ()
        self.at_first: Float | None = None
        self._held = held
        self.values = values
        self._chain = chain
        self._whys = whys
        self._outlook = outlook
        self._peak = peak
        self._rows: Int | None = None
        self._reason: Int | None = None
        self._warm_target: Int | None = None
        self._tiers: Tiers | None = None

    def with_later(self, outlook: Outlook | None, peak: SmallInt) -> DecisionDetails:
        """The story of a later tick in which nothing else has changed; this object if the arguments are unchanged too."""
        if peak is not self._peak and peak.tobytes() == self._peak.tobytes():
            peak = self._peak
        if peak is self._peak and outlook is self._outlook:
            return self
        later = DecisionDetails(
            self._chain, self.values, self._whys, outlook, peak, self.economics, self._held
        )
        later._rows, later._reason = self._rows, self._reason
        if peak is self._peak:
            later._warm_target = self._warm_target
        return later

    def rows(self) -> Int:
        """The wish before the first stage and after each stage: int (K + 1, L)."""
        if self._rows is None:
            self._rows = np.concatenate(self.values).reshape(len(self.values), -1)
        return self._rows

    def reason(self) -> Int:
        """The reason of each stage: int64 (K, L)."""
        if self._reason is None:
            self._reason = reasons(self._whys, self.rows())
        return self._reason

    def warm_target(self) -> Int:
        """Stopped VMs wanted: int (L,)."""
        if self._warm_target is None:
            self._warm_target = self._chain.warm_target.of(self._peak, self.values[_AFTER_GUARDS], self._held)
        return self._warm_target

    def tiers(self) -> Tiers | None:
        """How many of the waiting VMs should hibernate; None if no lane's VMs may hibernate."""
        tiering = self._chain.tiering
        if self._tiers is None and tiering is not None:
            laws = None if self._outlook is None else self._outlook.laws
            desired = self.values[_AFTER_GUARDS]
            self._tiers = tiering.tiers(laws, desired, self.economics, self.at_first)
        return self._tiers

    def bursts(self) -> BurstOdds | None:
        """How likely a burst is, per series; None without an Outlook."""
        return None if self._outlook is None else self._outlook.bursts

    def forecast(self, level: float) -> Float:
        """Demand at the lead time at a level of `QUANTILE_LEVELS`, work per second: float64 (L,); NaN without an Outlook."""
        if self._outlook is None:
            return np.full(len(self._peak), np.nan)
        return self._chain.forecasts[level](self._outlook.at_lead)


class StagedDecision(Decision):
    """A decision that computes rarely read fields on first access.

    A simulation needs the actions of a million ticks, but the reasons of only a few. Reasons are derived from the wish
    after each stage and from the arrays of the given snapshot and Outlook: read them before those arrays are changed in
    place. Arrays that a later decision also uses are read-only.

    Args:
        start, provision, stop: As in `Decision`.
        details: Source of the other fields.
    """

    __slots__ = ("_details",)
    _details: DecisionDetails

    def __init__(self, start: Int, provision: Int, stop: Int, details: DecisionDetails) -> None:
        note = object.__setattr__
        note(self, "start", start)
        note(self, "provision", provision)
        note(self, "stop", stop)
        note(self, "_details", details)

    @property
    def details(self) -> DecisionDetails:
        """How the decision came about."""
        return self._details

    @property
    def wish(self) -> Int:
        """VMs that the policy stages propose, before guards."""
        return self._details.values[_AFTER_WISH]

    @property
    def desired(self) -> Int:
        """VMs wanted in service."""
        return self._details.values[_AFTER_GUARDS]

    @property
    def warm_target(self) -> Int:
        """Stopped VMs wanted."""
        return self._details.warm_target()

    @property
    def forecast(self) -> Float:
        """Median demand at the lead time; NaN without an Outlook."""
        return self._details.forecast(0.5)

    @property
    def forecast_hi(self) -> Float:
        """95 % quantile of demand at the lead time; NaN without an Outlook."""
        return self._details.forecast(0.95)

    @property
    def reason(self) -> Int:
        """The reason of each stage."""
        return self._details.reason()

    @property
    def value(self) -> Int:
        """The wish after each stage."""
        return self._details.rows()[1:]

    @property
    def economics(self) -> Economics | None:
        """The numbers behind the economic stage."""
        return self._details.economics

    @property
    def held_back(self) -> tuple[HeldBack, ...]:
        """Lanes that shared limits keep below their wish."""
        return self._details.held_back

    @property
    def tiers(self) -> Tiers | None:
        """How many of the waiting VMs should wait hibernated; None if no lane's VMs may hibernate."""
        return self._details.tiers()

    @property
    def bursts(self) -> BurstOdds | None:
        """How likely a burst is, per series; None without an Outlook."""
        return self._details.bursts()
