"""Replays past demand for learning: what a fleet would have learned, had it run then with VMs that never fail.

A forecast learns from demand alone. Model costs, the price of shortage, and how often a waiting VM is wanted follow from demand and
from the wished numbers, tick by tick. So everything a fleet knows after a week can be derived from that week's demand, by the same
functions that decide, over imaginary VMs. These serve after the start time, are never late and never fail; there are always enough
to start, and no operator interferes.

Rules of this file: nothing here decides anything real. When known demand begins, the VMs that it needs are in service: a fleet that
was not observed has missed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from autoscaler.core.decide import decide
from autoscaler.core.forecast import SeriesState, steps
from autoscaler.core.law_grid import LawPage, PagedLaws
from autoscaler.core.params import LaneParams, SeriesParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import (
    MOST_VMS,
    NO_CEILING,
    Bool,
    Float,
    Freshness,
    Int,
    Laws,
    Outlook,
    Samples,
    Snapshot,
)

Fixed = TypeVar("Fixed", Int, Bool)
_FRESH = int(Freshness.FRESH)


class PastReplay:
    """Replays L fleets through past demand; lane i reads series i.

    Args:
        series: The forecast settings at the beginning.
        lanes: The policies at the beginning.
        on_ticks: int64 (L,), ticks for which VMs serve before they may stop.

    Attributes:
        forecasts: The forecast state that was learned.
        decisions: The state that deciding has left.
    """

    def __init__(self, series: SeriesParams, lanes: LaneParams, on_ticks: Int) -> None:
        self.forecasts, self.decisions = SeriesState.empty(series), LaneState.empty(lanes)
        self._on_ticks = on_ticks
        self._columns = np.arange(len(on_ticks))
        self._farthest = int(lanes.lead_ticks.max(initial=1))
        rows = self._farthest + int(on_ticks.max(initial=0)) + 1
        self._arrives = np.zeros((rows, len(on_ticks)), np.int64)
        self._serving, self._coming, self._young = (np.zeros(len(on_ticks), np.int64) for _ in range(3))
        self._watched = np.zeros(len(on_ticks), np.bool_)
        self._last_tick = -1
        self._no_vms = _fixed(np.zeros(len(on_ticks), np.int64))
        self._all_true, self._ceiling = _fixed(self._no_vms == 0), _fixed(self._no_vms + NO_CEILING)

    def live(self, series: SeriesParams, lanes: LaneParams, samples: Sequence[Samples]) -> None:
        """Replay some ticks in order; ticks may be missing.

        Args:
            series: The forecast settings; must not be changed afterwards.
            lanes: The policies, with the lead times given at the beginning; must not be changed afterwards.
            samples: One per tick.
        """
        at = 0
        for outlook in steps(series, self.forecasts, samples):
            some = samples[at : at + len(outlook.evidence) // len(self._columns)]
            demand = np.stack([each.demand for each in some])
            first_tick = int(some[0].now_s // lanes.tick_s)
            for each in by_tick(outlook, len(self._columns), first_tick, demand):
                self._decide(lanes, samples[at], each)
                at += 1

    def _decide(self, lanes: LaneParams, samples: Samples, outlook: Outlook) -> None:
        tick = int(samples.now_s // lanes.tick_s)
        self._arrive(tick)
        fresh = samples.freshness == _FRESH
        self._begin(lanes, samples.demand, fresh)
        most = np.maximum(np.minimum(lanes.maximum, MOST_VMS), self._serving + self._coming)
        serving, coming = self._serving.copy(), self._coming.copy()
        decision = decide(
            lanes,
            self.decisions,
            Snapshot(
                now_s=samples.now_s,
                tick=tick,
                demand=samples.demand,
                observed_at_s=samples.observed_at_s,
                freshness=samples.freshness,
                coverage=samples.coverage,
                censored=samples.censored,
                in_service=serving,
                starting=coming,
                draining=self._no_vms,
                stopping=self._no_vms,
                stopped=most - serving - coming,
                provisioned=most,
                stoppable=serving - self._young if self._on_ticks.any() else serving,
                listed=self._all_true,
                may_start=self._all_true,
                may_provision=self._all_true,
                may_stop=self._all_true,
                floor=self._no_vms,
                ceiling=self._ceiling,
            ),
            outlook,
        )
        ordered = decision.start + decision.provision
        self._coming += ordered
        self._serving -= decision.stop
        rows = (tick + lanes.lead_ticks) % len(self._arrives)
        self._arrives[rows, self._columns] += ordered
        self._last_tick = tick

    def _arrive(self, tick: int) -> None:
        """Put ordered VMs into service when they are due; after a gap, all of them."""
        passed, rows = tick - self._last_tick, len(self._arrives)
        if passed == 0:
            return
        if passed != 1:
            self._serving += self._coming
            for part in (self._coming, self._young, self._arrives):
                part.fill(0)
            self._watched.fill(False)
            return
        came = self._arrives[tick % rows]
        self._serving += came
        self._coming -= came
        self._young += came
        self._young -= self._arrives[(tick - self._on_ticks) % rows, self._columns]
        # The oldest row is no longer read; it is reused for the farthest tick for which VMs may be ordered now.
        self._arrives[(tick + self._farthest) % rows] = 0

    def _begin(self, lanes: LaneParams, demand: Float, fresh: Bool) -> None:
        """In lanes whose demand becomes known, put the VMs it needs into service."""
        begins = fresh & ~self._watched
        if begins.any():
            need = np.ceil(np.where(begins, demand, 0.0) / lanes.vm_capacity - 1e-9)
            most = np.minimum(lanes.maximum, MOST_VMS)
            need = np.minimum(np.maximum(need, lanes.minimum), most).astype(np.int64)
            self._serving = np.where(begins, np.maximum(need - self._coming, self._serving), self._serving)
        self._watched = fresh


def by_tick(outlook: Outlook, series: int, first_tick: int, demand: Float) -> Iterator[Outlook]:
    """Split an Outlook over several ticks, as `forecast.steps` returns it, into one Outlook per tick.

    Args:
        outlook: Over T * S series.
        series: S.
        first_tick: Number of the first tick.
        demand: float64 (T, S), the demand it was computed from; NaN where unknown.
    """
    ticks = len(outlook.evidence) // series
    if ticks == 1:
        yield outlook
        return
    page = None if outlook.laws is None else LawPage(outlook.laws, ticks, first_tick, demand)
    for tick in range(ticks):
        mine = slice(tick * series, (tick + 1) * series)
        laws: Laws | None = None
        if page is not None:
            of = page.laws
            laws = PagedLaws(of.level[mine], of.spread[mine], of.scale[mine], of.excess[mine], page, tick)
        yield Outlook(outlook.at_lead[:, mine], outlook.peak[:, mine], outlook.evidence[mine], laws)


def _fixed(array: Fixed) -> Fixed:
    array.flags.writeable = False
    return array
