"""Charges each model's shadow fleet for its cost (`competition`), tick by tick or several ticks at once.

With few columns, charging for a tick is all numpy call overhead. So the inputs of charges are kept, in the narrow type of counts,
and charged for several ticks together: when models are compared, or as soon as the sums are read (`Trial.settle`). Sums are
bit-identical to charging tick by tick, since each number is added to in the order of ticks.

Rules of this file: a tick in which demand is missing or censored in some column is never put off. No reduction over lanes.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.column_groups import one_of
from autoscaler.core.objective.bands import Bands
from autoscaler.core.objective.competition_state import ShadowType, Trial
from autoscaler.core.types import Bool, Float, Int, SmallFloat, SmallInt

MORE = 2.0
"""Demand may yet be this many times as high as it was. A model that would have left work unserved then is charged for a part
of that work."""
CHARGES = "charges"
"""Name of the charges in `Trial.owed`."""
_MOST_NUMBERS, _MOST_TICKS, _FEWEST_TICKS = 65_536, 5, 3
"""At most `_MOST_NUMBERS` numbers of shadows and `_MOST_TICKS` ticks are kept, because one tick has to apply them all. If fewer
than `_FEWEST_TICKS` ticks fit, charging tick by tick is as fast."""


class ShadowCharges:
    """Charges the shadow fleets of n columns.

    Args:
        least: int64 (n,), the policies' minima of VMs.
        start_cost: float32 (n,), price of one start, in VM-ticks.
        growth: Factor by which the weight of a tick grows from one tick to the next.
        bands: The bands, which are charged as well.
        vms, short: float32 (M, n) each, scratch arrays.
    """

    def __init__(
        self,
        least: Int,
        start_cost: SmallFloat,
        growth: float,
        bands: Bands,
        vms: SmallFloat,
        short: SmallFloat,
    ) -> None:
        self._least, self._start_cost, self._growth, self._bands = least, start_cost, growth, bands
        self._has_start_cost = bool(start_cost.any())
        self._vms, self._short, self._short_if_more = vms, short, np.empty_like(short)
        ticks = min(_MOST_NUMBERS // max(1, vms.size), _MOST_TICKS)
        self._ticks = ticks if ticks >= _FEWEST_TICKS else 0
        self._buffered, self._last_tick = 0, -1
        self._due, self._started = [False] * self._ticks, [False] * self._ticks
        columns = self._ticks, len(least)
        self._work, self._price = np.empty(columns), np.empty(columns)
        self._sums = np.empty((4, self._ticks + 1, len(least)))
        self._vms_by_tick = np.empty((self._ticks, *vms.shape), np.float32)
        self._lacks = np.empty((2, self._ticks + 1, *vms.shape), np.float32)
        self.count_in(np.dtype(np.int32))

    def count_in(self, counts: ShadowType) -> None:
        """Allocate arrays for counts of this type; no charges may be owed."""
        self._serving, self._ordered, self._held = (
            np.empty((self._ticks, *self._vms.shape), counts) for _ in range(3)
        )

    def charge(self, state: Trial, tick: int, work: Float, counts: Bool | None, price: Float) -> None:
        """Charge every shadow for a tick that is over.

        Args:
            state: Updated in place, now or when it is settled.
            tick: The current tick, which must follow the last one.
            work: float64 (n,), VM-ticks of work; 0 where the tick does not count.
            counts: bool (n,), whether the tick counts; None if it does everywhere.
            price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
        """
        if counts is not None and np.count_nonzero(counts) == len(counts):
            counts = None
        if not self._ticks or counts is not None:
            state.settle(CHARGES)
            self._charge(state, tick, work, counts, price)
            return
        if self._buffered == self._ticks or state.owed.get(CHARGES) is not self:
            state.settle(CHARGES)
            # Charges kept for another trial were dropped with it.
            self._buffered = 0
            state.owed[CHARGES] = self
        at = self._buffered
        self._serving[at], self._work[at], self._price[at] = state.serving, work, price
        self._due[at], self._started[at] = self._bands.due(tick), False
        self._buffered, self._last_tick = at + 1, tick

    def charge_starts(self, state: Trial, tick: int, ordered: SmallInt) -> None:
        """Charge for the VMs that were just ordered, int (M, n), which the state already counts as coming."""
        if not self._has_start_cost or not np.count_nonzero(ordered):
            return
        if self._buffered and self._last_tick == tick:
            at = self._buffered - 1
            self._ordered[at], self._started[at] = ordered, True
            if self._due[at]:
                np.add(state.serving, state.coming, out=self._held[at])
            return
        state.settle(CHARGES)
        self._pay_starts(state, ordered)
        if self._bands.due(tick):
            self._bands.charge_starts(state.below, ordered, state.serving + state.coming)

    def _pay_starts(self, state: Trial, ordered: SmallInt) -> None:
        """Add the price of these starts to what models have paid."""
        paid = self._vms
        paid[...] = ordered
        paid *= self._start_cost
        state.lately[0] += paid

    def _charge(self, state: Trial, tick: int, work: Float, counts: Bool | None, price: Float) -> None:
        """Charge for one tick at once."""
        if counts is not None:
            state.weight = np.where(counts, state.weight * self._growth, state.weight)
            weight = state.weight * counts
        else:
            weight = state.weight = state.weight * self._growth
        paid, *unserved = state.lately
        due = self._bands.due(tick)
        vms, lacks = self._vms, (self._short, self._short_if_more if due else self._short)
        vms[...] = state.serving
        needs = needs_of(work)
        for missed, need, lack in zip(unserved, needs, lacks, strict=True):
            unmet = np.maximum(need, vms, out=lack)
            unmet -= vms
            np.add(missed, unmet, out=missed)
        if counts is not None:
            vms *= counts
        paid += vms
        state.wanted = state.wanted + work * weight
        state.needed = state.needed + self._least_cost(work, price) * weight
        state.ticks = state.ticks + weight
        if due:
            self._bands.charge(state.below, vms, needs, lacks)

    def _least_cost(self, work: Float, price: Float) -> Float:
        """Return the least cost of a tick in hindsight, starts excluded, in VM-ticks: (..., n), like the arguments."""
        # A VM for every VM-tick of work that fills one. The rest is cheaper either with one more VM or unserved.
        filled = np.floor(work)
        filled += np.minimum((work - filled) * price, 1.0)
        return np.maximum(filled, self._least, out=filled)

    def add_up(self, state: Trial, work: Float, price: Float, sums: Float) -> None:
        """Compute a trial's `weight`, `wanted`, `needed` and `ticks` before T ticks and after each of them.

        Args:
            state: Not changed.
            work: float64 (T, n), VM-ticks of work.
            price: float64 (n,) or (T, n), price of a VM-tick of unserved work, in VM-ticks.
            sums: float64 (4, T + 1, n), filled in.
        """
        weights, sums = sums[0], sums[1:]
        weights[0], weights[1:] = state.weight, self._growth
        # Accumulated, not reduced, because numpy sums a single column pairwise, in another order.
        np.multiply.accumulate(weights, axis=0, out=weights)
        of_ticks = weights[1:]
        sums[0, 0], sums[1, 0], sums[2, 0] = state.wanted, state.needed, state.ticks
        np.multiply(work, of_ticks, out=sums[0, 1:])
        np.multiply(self._least_cost(work, price), of_ticks, out=sums[1, 1:])
        sums[2, 1:] = of_ticks
        np.add.accumulate(sums, axis=1, out=sums)

    def settle(self, state: Trial) -> None:
        """Charge for all ticks that were kept."""
        buffered, self._buffered = self._buffered, 0
        if not buffered:
            return
        work, sums = self._work[:buffered], self._sums[:, : buffered + 1]
        self.add_up(state, work, self._price[:buffered], sums)
        state.weight, state.wanted, state.needed, state.ticks = sums[:, buffered].copy()
        vms, lacks = self._vms_by_tick[:buffered], self._lacks[:, : buffered + 1]
        vms[...] = self._serving[:buffered]
        needs = needs_of(work)
        for missed, need, lack in zip(state.lately[1:], needs, lacks, strict=True):
            lack[0] = missed
            np.maximum(need[:, np.newaxis], vms, out=lack[1:])
            lack[1:] -= vms
            np.add.reduce(lack, axis=0, out=missed)
        paid = state.lately[0]
        for at in range(buffered):
            paid += vms[at]
            if self._due[at]:
                lack_now, lack_if_more = lacks[:, at + 1]
                self._bands.charge(
                    state.below, vms[at], (needs[0][at], needs[1][at]), (lack_now, lack_if_more)
                )
            if self._started[at]:
                self._pay_starts(state, self._ordered[at])
                if self._due[at]:
                    self._bands.charge_starts(state.below, self._ordered[at], self._held[at])


def needs_of(work: Float) -> tuple[SmallFloat, SmallFloat]:
    """Return the work and `MORE` times the work, float32 (..., n); (..., 1) if all columns have the same."""
    same = one_of(work)
    return same.astype(np.float32), (MORE * same).astype(np.float32)
