"""The economic stage: as many VMs as earn more than they cost, given the forecast and the prices.

The stage has two thresholds. `low` is the number of VMs worth starting, by demand at the lead time and with the price of a
start spread over the time it will be useful. `high` is the number worth keeping, by the highest demand until a stopped VM
could serve again. Below `low` the stage orders up to it, above `high` it goes down to it, and in between it changes nothing.
This replaces target utilisation, cooldowns and stabilisation windows. It is not known in advance which forecast window
should keep a VM, or whether a plain rule would do better, so models compete (`competition`).

Rules of this file: a stage as described in `rules`. A lane without fresh data proposes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoscaler.core.objective.columns import Columns, Wishes
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.economics import Economics
from autoscaler.core.objective.models import MODELS, Kind
from autoscaler.core.objective.pricing import ShortagePriceController
from autoscaler.core.objective.worth import Worth
from autoscaler.core.params import LaneParams
from autoscaler.core.rules import Rule, RuleInputs, Why
from autoscaler.core.types import Bool, CountType, Float, Horizon, Int, Laws, Reason

_REASON_OF = {
    Kind.WORTH: Reason.WORTH_START,
    Kind.DEMAND: Reason.MODEL_DEMAND,
    Kind.AMPLE: Reason.MODEL_DEMAND,
    Kind.FALLING: Reason.MODEL_DEMAND,
    Kind.USUAL: Reason.MODEL_USUAL,
    Kind.HOUR: Reason.MODEL_USUAL,
    Kind.EVER: Reason.MODEL_USUAL,
    Kind.YESTERDAY: Reason.MODEL_YESTERDAY,
    Kind.EITHER: Reason.MODEL_YESTERDAY,
    Kind.BOTH: Reason.MODEL_YESTERDAY,
    Kind.AVERAGE_DAY: Reason.MODEL_YESTERDAY,
    Kind.ANY_DAY: Reason.MODEL_YESTERDAY,
}
_KEEPING = np.arange(len(Reason))
"""For each reason to start VMs, the reason to give if they are kept rather than started."""
_KEEPING[[Reason.WORTH_START, Reason.MODEL_DEMAND]] = [Reason.WORTH_KEEP, Reason.MODEL_PEAK]
_LEAST_PRICE = 1e-9
"""Prices of shortage below this count as this, so that dividing by them is safe."""
_ARRIVED_SHARE = 0.75
"""An event counts as arrived once demand reaches this share of the level at the lead time."""
_MOST_REGROUPINGS = 8
"""After this many ticks in which lanes diverged, no lanes share a column any more, because each divergence costs a copy."""
_REASONS = np.array([_REASON_OF[model.kind] for model in MODELS], np.int64)
"""int64 (M,), the reason to give for each model if VMs are started."""


def economic(params: LaneParams, counts: CountType) -> Rule | None:
    """Compile the economic stage: order as many VMs as earn more than they cost, with a dead zone.

    Returns:
        The stage's rule; None if no lane has an objective.
    """
    lanes = np.flatnonzero(params.economic)
    return Economy(params, counts, lanes).rule if len(lanes) else None


class Economy:
    """The stage, compiled for the lanes with an objective.

    Args:
        params: The policies, L lanes.
        counts: The type of the snapshots' counts.
        lanes: int64 (n,), the lanes with an objective.
    """

    def __init__(self, params: LaneParams, counts: CountType, lanes: Int) -> None:
        self._params, self._lanes, self._counts = params, lanes, counts
        self._all_lanes = len(lanes) == len(params.series)
        # Indexing by a slice is far faster than by an array.
        self._index = slice(None) if self._all_lanes else lanes
        self._price_controller = ShortagePriceController(params, lanes)
        self._series = params.series[lanes]
        self._at_lead = self._series * len(Horizon) + int(Horizon.LEAD)
        self._capacity = params.vm_capacity[lanes]
        self._start_success = params.start_success[lanes]
        self._event_times_s = [
            times_s[:, lanes] for times_s in (params.known_from_s, params.known_begins_s, params.known_end_s)
        ]
        self._start_cost = params.start_cost[lanes] / params.hold_ticks[lanes]
        self._least_worth = 1.0 + self._start_cost
        self._event_worth = Worth(self._series, params.vm_capacity[lanes], (Horizon.LEAD,))
        self._all_fresh = np.ones(len(lanes), np.bool_)
        self._starts_succeed = bool((self._start_success == 1.0).all())
        self._minimum, self._maximum = params.minimum[lanes], params.maximum[lanes]
        self._columns: Columns | None = None
        self._regroupings = 0

    def rule(self, seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        """Propose VMs for the lanes with an objective, and raise the wish to the proposal.

        Returns:
            The raised wish, int (L,), and a function that works out its reasons.

        Raises:
            ValueError: If the Outlook lacks whole laws.
        """
        laws = None if seen.outlook is None else seen.outlook.laws
        if laws is None:
            raise ValueError("A lane has an objective, so `decide` needs an Outlook with whole laws.")
        lanes, index = self._lanes, self._index
        fresh: Bool = self._all_fresh if seen.fresh is None else seen.fresh[index]
        up_to, down_to, reasons_for = self._wanted(seen, laws, fresh)
        now = seen.ordered[index].astype(np.int64)
        if self._starts_succeed:
            proposal = np.maximum(now, up_to)
            np.minimum(proposal, np.maximum(down_to, up_to), out=proposal)
        else:
            proposal = np.minimum(now, np.maximum(down_to, up_to))
            # Some of the starting VMs will not arrive, so more are ordered in their place.
            coming = seen.snapshot.starting[index] * self._start_success
            shortfall = (up_to - seen.snapshot.in_service[index] - coming) / self._start_success
            more = np.floor(np.maximum(shortfall, 0.0) + 0.5).astype(np.int64)
            proposal = np.where(more > 0, now + more, proposal)
        if seen.fresh is not None:
            proposal *= fresh
        proposed = proposal.astype(self._counts, copy=False)
        if not self._all_lanes:
            of_economic, proposed = proposed, np.zeros_like(wish)
            proposed[lanes] = of_economic
        value = np.maximum(wish, proposed)

        def why() -> Int:
            reasons = np.zeros(len(wish), np.int64)
            reasons[lanes] = reasons_for(now)
            return reasons * (value > wish)

        return value, why

    def _wanted(self, seen: RuleInputs, laws: Laws, fresh: Bool) -> tuple[Int, Int, Callable[[Int], Int]]:
        """Advance the models by a tick.

        Returns:
            `low` and `high`, int64 (n,) each, and a function that gives the reasons for a number of VMs, int64 (n,).
        """
        view, trial = seen.snapshot, seen.state.trial
        demand = view.demand[self._index]
        if seen.fresh is not None:
            demand = np.where(fresh, demand, np.nan)
        known = fresh if seen.censored is None else fresh & ~view.censored[self._index]
        columns = self._columns_of(trial)
        foreseen = None
        if seen.fresh is None and seen.censored is None:
            foreseen = columns.foreseen(laws, view.tick, demand)
        if foreseen is None:
            present = demand if seen.fresh is None else np.where(fresh, demand, 0.0)
            columns = self._separate_columns(columns, trial, present, known, fresh)
        price = self._price_controller.step(
            seen.state.budget,
            view.tick,
            demand,
            known,
            view.in_service[self._index],
            lambda share: columns.spread(columns.contest.price_for(trial, columns.first(share))),
        )
        wishes = None if foreseen is None else columns.step_ahead(trial, view, foreseen, demand, price)
        if wishes is None:
            first = columns.first
            wishes = columns.step(trial, view, laws, first(demand), first(known), first(fresh), first(price))
            wishes = Wishes(*map(columns.spread, wishes))
            up_to, down_to = wishes.within(self._minimum, self._maximum)
            held = columns.doubted(trial, view.tick, demand, known, price)
        else:
            up_to, down_to = wishes
            held = columns.doubted_ahead(trial)
        by_event = None
        if len(self._event_times_s[0]):
            by_event = self._for_events(view.now_s, laws, demand, price, up_to)
        if by_event is not None:
            up_to = np.maximum(up_to, by_event)
        worth_keeping = down_to
        if held is not None:
            down_to = np.maximum(down_to, np.minimum(held, self._maximum))
        economics = seen.economics = Economics(
            self._lanes, self._series, columns.column, columns.contest.bands.driving(trial), price, self._start_cost,
            self._capacity, seen.ordered[self._index], up_to, down_to, laws, by_event, held,
        )  # fmt: skip

        def reasons_for(now: Int) -> Int:
            wanted = np.minimum(np.maximum(now, up_to), np.maximum(down_to, up_to))
            reason: Int = _REASONS[economics.models(wanted)]
            reason = np.where(economics.unknown, int(Reason.WORTH_UNKNOWN), reason)
            reason = np.where(up_to < now, _KEEPING.take(reason), reason)
            if held is not None:
                only_held = np.minimum(now, down_to) > np.maximum(worth_keeping, up_to)
                reason = np.where(only_held, int(Reason.FALL_DOUBTED), reason)
            return reason

        return up_to, down_to, reasons_for

    def _for_events(self, now_s: float, laws: Laws, demand: Float, price: Float, up_to: Int) -> Int | None:
        """Return the VMs to order for a known event that is coming, because only the forecast knows about the event.

        Whichever model drives, at least as many VMs are ordered as the forecast makes worthwhile: until the event
        begins, and then until the likely demand has arrived. From then on, models that follow demand see the event
        themselves, while the law of a crowd that has just begun is still wide.

        Returns:
            int64 (n,), 0 where that is no more than `up_to`; None if no event is coming.
        """
        from_s, begins_s, end_s = self._event_times_s
        coming = (from_s < now_s) & (now_s < end_s)
        if not np.count_nonzero(coming):
            return None
        not_arrived = demand < _ARRIVED_SHARE * laws.level.reshape(-1).take(self._at_lead)
        applies = np.logical_or.reduce(coming & ((now_s < begins_s) | not_arrived), axis=0)
        share = self._least_worth / np.maximum(price, _LEAST_PRICE)
        by_forecast = np.minimum(self._event_worth.vms(laws, share[np.newaxis])[0], self._maximum)
        found: Int = by_forecast * (applies & (by_forecast > up_to))
        return found

    def _columns_of(self, trial: Trial) -> Columns:
        """Return the compiled columns of the state; lanes that have seen the same inputs share one."""
        columns = self._columns
        if columns is None or columns.column is not trial.column:
            columns = self._columns = Columns(self._params, self._lanes, trial.column)
        return columns

    def _separate_columns(
        self, columns: Columns, trial: Trial, present: Float, known: Bool, fresh: Bool
    ) -> Columns:
        """Give lanes that now see something different from the others in their column a column of their own.

        Returns:
            The columns compiled anew, or the same ones if no lane differs.
        """
        if columns.shared:
            apart = columns.alike.part(fresh, known, present)
            if np.count_nonzero(apart):
                self._regroupings += 1
                trial.part(apart if self._regroupings < _MOST_REGROUPINGS else np.ones_like(apart))
                columns = self._columns = Columns(
                    self._params, self._lanes, trial.column, columns.recorded_tick
                )
        return columns
