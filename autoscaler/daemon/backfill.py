"""Learns past demand after startup, in the background, so that no tick waits for it.

Fleets with an objective relive it, including models, prices and pool (`core.living`); for others the forecasts learn from it.

    journal ─┐                                  samples of the ticks meanwhile ┐
    source's ┴─► demand by tick ─► gone through in slices, as if lived ────────┴─► taken in between two ticks
    history

Why: a new forecaster knows neither the spread of its errors nor the shape of the week. Both are in what the journal recorded
before a restart, and in what a monitoring system keeps. So is what each model of an objective would have cost; without that,
the choice of the driving model on the first day is a guess.

Rules of this file: the journal takes precedence over the source's history, because forecasts were made from it. Unknown
demand stays unknown. A state comes into use only once it has been stepped through the fleets' last tick. A failure is
reported for its fleet, which then learns only from now on. Model costs are kept across restarts for longer than any
history reaches back, so they are relived only if they were not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.policy import Policy
from autoscaler.core.types import Freshness, Int, Samples
from autoscaler.daemon.bounded import within
from autoscaler.daemon.fleets import Fleet, Fleets
from autoscaler.daemon.learned.measured import measure
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.past_fleets import PastFleets
from autoscaler.errors import AutoscalerError
from autoscaler.ports.sources import HistorySource, RecordedDemand
from autoscaler.ports.time import Clock

AT_ONCE = 64
MOST_VALUES = 5_000_000
"""Most fleets that learn together, and most demand values that are held meanwhile (float32: 20 MB)."""
MOST_TICKS = 100_000
"""Most ticks that one fleet learns from at 10 s, and most values asked of a source. With shorter ticks, each value holds
for several.
"""
SLICE_S, REST_S = 0.01, 0.01
"""Length of one stretch of work, and of the shortest pause after it, so that ticks and answers are not held up."""
MOST_TOGETHER = 64
"""Most ticks stepped in one call; larger stretches are no faster."""
FETCH_WITHIN_S = 900.0
TRIES = 3

Demand: TypeAlias = NDArray[np.float32]


@dataclass(slots=True)
class Past:
    """The demand of some fleets, tick by tick.

    Attributes:
        first: Tick of the first row.
        demand: float32 (ticks, fleets), NaN where unknown.
        recorded: int64 (fleets,), how many ticks of each fleet come from the journal.
        messages: Per fleet, what went wrong or should be known, for people; empty if nothing.
    """

    first: int
    demand: Demand
    recorded: Int
    messages: list[str]


class Backfill:
    """Lets fleets learn from demand before the daemon's start: at startup, and again when fleets are added or changed.

    Args:
        daemon: The daemon whose fleets learn.
        recorded: Demand of earlier ticks; None if there is no journal.
    """

    def __init__(self, daemon: Daemon, recorded: RecordedDemand | None = None) -> None:
        self._daemon = daemon
        self._recorded = recorded
        self._done: dict[str, tuple[object, ...]] = {}
        self._lived: dict[str, tuple[object, ...]] = {}
        """By fleet, what it measured (`measure`) when its models and warm pool learned from the past; `_done` is the same
        for forecasts.
        """
        self._in_vain = 0

    async def run(self) -> None:
        """Learn, then keep looking for fleets that are new or measure something else, for ever."""
        clock = self._daemon.clock
        # What is restored first need not be learned again.
        await self._daemon.keeping.loaded.wait()
        while True:
            await self.learn()
            await clock.sleep_until(clock.monotonic() + self._daemon.settings.tick_s)

    async def learn(self) -> None:
        """Let all fleets learn that have not yet; repeat for fleets that changed meanwhile."""
        while True:
            fleets = self._daemon.fleets
            while fleets.added:
                # A fleet that was removed and is back has nothing of what its name learned before.
                name = fleets.added.pop()
                self._done.pop(name, None)
                self._lived.pop(name, None)
            while fleets.remembered:
                fleet = fleets.by_name[fleets.remembered.pop()]
                self._done[fleet.name] = measure(fleet.policy)
            while fleets.experienced:
                fleet = fleets.by_name[fleets.experienced.pop()]
                self._lived[fleet.name] = measure(fleet.policy)
            lanes = [lane for lane, fleet in enumerate(fleets.all) if self._is_new(fleet)]
            if not lanes:
                return
            # Fleets whose decisions depend on it go first.
            lives = [lane for lane in lanes if fleets.all[lane].policy.objective is not None]
            lanes = lives or lanes
            ticks = max(self._ticks(fleets.all[lane].policy) for lane in lanes)
            lanes = lanes[: max(1, min(AT_ONCE, MOST_VALUES // ticks))]
            try:
                await self._learn(fleets, np.array(lanes, np.int64))
            finally:
                fleets.overheard = None

    def _is_new(self, fleet: Fleet) -> bool:
        policy = fleet.policy
        if policy.signal.backfill is None or not policy.uses_signal:
            return False
        return self._done.get(fleet.name) != measure(policy) or self._is_inexperienced(fleet)

    def _is_inexperienced(self, fleet: Fleet) -> bool:
        """Return whether the fleet's models and warm pool have not yet learned from the past."""
        return fleet.policy.objective is not None and self._lived.get(fleet.name) != measure(fleet.policy)

    async def _learn(self, fleets: Fleets, lanes: Int) -> None:
        daemon, tick_s = self._daemon, self._daemon.settings.tick_s
        mine = [fleets.all[lane] for lane in lanes]
        fleets.overheard = []
        past = await self._past(mine, daemon.clock.now())
        known = ~np.isnan(past.demand).all(axis=0)
        inexperienced = np.array([self._is_inexperienced(fleet) for fleet in mine])
        relived = PastFleets(fleets, lanes, past.first * tick_s)
        await self._step(relived, past, fleets)
        if not await self._catch_up(relived, fleets, lanes, lanes[known & inexperienced]):
            self._in_vain += daemon.fleets is fleets
            if self._in_vain < TRIES:
                return
            past.demand[:] = np.nan
            past.messages[:] = ["the clock was set while it was being learned from"] * len(mine)
        for column, fleet in enumerate(mine):
            self._done[fleet.name] = measure(fleet.policy)
            if fleet.policy.objective is not None:
                self._lived[fleet.name] = measure(fleet.policy)
            await self._tell(fleet, past, column, tick_s)

    def _ticks(self, policy: Policy) -> int:
        """Return how many ticks back a fleet learns, limited to what can be held and stepped."""
        backfill, tick_s = policy.signal.backfill, self._daemon.settings.tick_s
        over_s = 0.0 if backfill is None else backfill.over_s
        return max(1, min(int(over_s // tick_s), int(MOST_TICKS * max(1.0, 10.0 / tick_s))))

    # ── the past ───────────────────────────────────────────────────────────────────────────────────────

    async def _past(self, fleets: Sequence[Fleet], now_s: float) -> Past:
        tick_s = self._daemon.settings.tick_s
        wanted = [self._ticks(fleet.policy) for fleet in fleets]
        ticks = max(wanted)
        end = int(now_s // tick_s)
        past = Past(
            end - ticks,
            np.full((ticks, len(fleets)), np.nan, np.float32),
            np.zeros(len(fleets), np.int64),
            [""] * len(fleets),
        )
        await self._from_journal(past, fleets, tick_s)
        for column, fleet in enumerate(fleets):
            await self._from_source(past, column, fleet, tick_s)
        for column, own in enumerate(wanted):
            past.demand[: ticks - own, column] = np.nan
        return past

    async def _from_journal(self, past: Past, fleets: Sequence[Fleet], tick_s: float) -> None:
        if self._recorded is None:
            return
        names = [fleet.name for fleet in fleets]
        start_s = past.first * tick_s
        end_s = start_s + len(past.demand) * tick_s
        recorded = self._recorded
        try:
            times, demand = await within(lambda: recorded.demand(names, start_s, end_s), FETCH_WITHIN_S)
        except (AutoscalerError, TimeoutError) as error:
            past.messages[:] = [f"the journal could not be read ({_words(error)})"] * len(fleets)
            return
        rows = np.floor(times / tick_s + 1e-6).astype(np.int64) - past.first
        inside = (rows >= 0) & (rows < len(past.demand))
        past.demand[rows[inside]] = demand[inside]
        began = past.first + np.arange(len(past.demand))
        for column, fleet in enumerate(fleets):
            other = (began * tick_s < fleet.measured_since_s) & ~np.isnan(past.demand[:, column])
            if other.any():
                past.demand[other, column] = np.nan
                of_it = _span(np.count_nonzero(other) * tick_s)
                _also(past, column, f"{of_it} in the journal are of another signal and were left out")
        past.recorded[:] = np.count_nonzero(~np.isnan(past.demand), axis=0)

    async def _from_source(self, past: Past, column: int, fleet: Fleet, tick_s: float) -> None:
        backfill, source = fleet.policy.signal.backfill, fleet.source
        # A history of backlogs or of work in flight is not a history of demand.
        other = fleet.policy.signal.kind in ("queue", "concurrency")
        if backfill is None or not backfill.from_source or not isinstance(source, HistorySource) or other:
            return
        unknown = np.isnan(past.demand[:, column])
        if fleet.policy.signal.kind == "queue" or not unknown.any():
            return  # the past of a backlog is not that of the demand behind it
        ticks = len(past.demand)
        step_s = tick_s * -(-ticks // MOST_TICKS)
        start_s, end_s = past.first * tick_s, (past.first + ticks) * tick_s
        try:
            found = await within(lambda: source.history(start_s, end_s, step_s), FETCH_WITHIN_S)
        except (AutoscalerError, TimeoutError) as error:
            _also(past, column, f"the source's history could not be read ({_words(error)})")
            return
        except Exception as error:  # noqa: BLE001  an adapter's bug must not keep other fleets from learning
            _also(
                past,
                column,
                f"unexpected {type(error).__name__} in the source's history: {error}; please report",
            )
            return
        for text in found.warnings[:3]:
            _also(past, column, f"the source warns: {text}")
        held = held_by_tick(found.times_s, found.demand, past.first, ticks, tick_s, step_s)
        past.demand[unknown, column] = held[unknown]

    # ── stepping ───────────────────────────────────────────────────────────────────────────────────────

    async def _step(self, relived: PastFleets, past: Past, fleets: Fleets) -> None:
        """Step through the past, which ends before the first tick in `overheard`."""
        known = np.flatnonzero(~np.isnan(past.demand).all(axis=1))
        tick_s, row = self._daemon.settings.tick_s, int(known[0]) if len(known) else len(past.demand)

        def some(most: int) -> list[Samples]:
            rows = range(row, min(row + most, len(past.demand)))
            return [
                _samples(begin_of(past.first + each, tick_s), past.demand[each].astype(np.float64))
                for each in rows
            ]

        pace = Pace(self._daemon.clock)
        while row < len(past.demand) and self._daemon.fleets is fleets:
            samples = some(pace.ticks)
            relived.live(samples)
            row += len(samples)
            await pace.rest()

    async def _catch_up(self, relived: PastFleets, fleets: Fleets, lanes: Int, models: Int) -> bool:
        """Step through the ticks that have passed meanwhile and put the state into use; return whether that succeeded."""
        heard = [] if fleets.overheard is None else fleets.overheard  # empty or not, it grows meanwhile
        at, pace = 0, Pace(self._daemon.clock)
        while self._daemon.fleets is fleets:
            if samples := [_of(each, lanes) for each in heard[at : at + pace.ticks]]:
                relived.live(samples)
                at += len(samples)
            if heard and at == len(heard):
                # Nothing has been awaited since the last sample, so no tick can have come in between.
                try:
                    fleets.take_in(lanes, relived.forecasts, relived.decisions, models)
                except ValueError:
                    return False  # the clock was set meanwhile, so learning starts over
                return True
            await pace.rest()
        return False

    async def _tell(self, fleet: Fleet, past: Past, column: int, tick_s: float) -> None:
        daemon = self._daemon
        learned = int(np.count_nonzero(~np.isnan(past.demand[:, column])))
        recorded = int(past.recorded[column])
        trouble = past.messages[column]
        if learned:
            parts = [
                f"{_span(count * tick_s)} from {where}"
                for count, where in ((recorded, "the journal"), (learned - recorded, "the source's history"))
                if count
            ]
            who = "forecasts" if fleet.policy.objective is None else "forecasts and models"
            text = f"{who} have learned from {' and '.join(parts)}" + (f"; {trouble}" if trouble else "")
            daemon.telemetry.log.info("history_learned", fleet=fleet.name, text=text)
            await daemon.recorder.event("history_learned", text, daemon.clock.now(), fleet.name)
        elif trouble:
            who = "forecasts" if fleet.policy.objective is None else "forecasts and models"
            text = f"{trouble}; {who} learn from now on only"
            daemon.telemetry.log.warning("history_failed", fleet=fleet.name, text=text)
            await daemon.recorder.event("history_failed", text, daemon.clock.now(), fleet.name)


class Pace:
    """Limits how many ticks are stepped at a time, so that learning takes at most half of one core.

    Args:
        clock: What pauses sleep on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._time = clock, asyncio.get_running_loop().time
        self.ticks = 1
        """How many ticks fit in one stretch of work, estimated from the last one."""
        self._since_s = self._time()

    async def rest(self) -> None:
        """Pause for as long as the work before took."""
        took_s = self._time() - self._since_s
        fit = int(self.ticks * SLICE_S / took_s) if took_s > 0.0 else MOST_TOGETHER
        self.ticks = max(1, min(fit, 2 * self.ticks, MOST_TOGETHER))
        await self._clock.sleep_until(self._clock.monotonic() + max(REST_S, took_s))
        self._since_s = self._time()


def held_by_tick(
    times_s: NDArray[np.float64],
    demand: NDArray[np.float64],
    first: int,
    ticks: int,
    tick_s: float,
    step_s: float,
) -> Demand:
    """Return what was known at each tick: the last value, unless it is older than a step.

    Args:
        times_s: float64 (n,), ascending.
        demand: float64 (n,), demand at these times.
        first: Number of the first tick.
        ticks: Number of ticks.
        tick_s: Length of a tick, in seconds.
        step_s: Distance between two values, in seconds.

    Returns:
        float32 (ticks,), NaN where nothing was known.
    """
    if not len(times_s):
        return np.full(ticks, np.nan, np.float32)
    at_s = (first + np.arange(ticks)) * tick_s
    index = np.searchsorted(times_s, at_s + 1e-6 * tick_s, side="right") - 1
    last = np.maximum(index, 0)
    held = (index >= 0) & (at_s - times_s[last] < step_s * (1.0 - 1e-6))
    return np.where(held, demand[last], np.nan).astype(np.float32)


def begin_of(tick: int, tick_s: float) -> float:
    """Return the first moment of a tick in epoch seconds; rounding never puts it into the tick before."""
    at_s = tick * tick_s
    return at_s if int(at_s // tick_s) == tick else at_s + 1e-3 * tick_s


def _words(error: Exception) -> str:
    return str(error) or "no answer in time"


def _samples(now_s: float, demand: NDArray[np.float64]) -> Samples:
    unknown = np.isnan(demand)
    return Samples(
        now_s=now_s,
        demand=demand,
        observed_at_s=np.where(unknown, np.nan, now_s),
        freshness=np.where(unknown, int(Freshness.ABSENT), int(Freshness.FRESH)),
        coverage=np.where(unknown, 0.0, 1.0),
        censored=np.zeros(len(demand), np.bool_),
    )


def _of(samples: Samples, lanes: Int) -> Samples:
    arrays: dict[str, Any] = {
        f.name: value[lanes]
        for f in fields(samples)
        if f.name != "beyond" and isinstance(value := getattr(samples, f.name), np.ndarray)
    }
    return replace(samples, **arrays, beyond=None)


def _also(past: Past, column: int, text: str) -> None:
    past.messages[column] = f"{past.messages[column]}; {text}" if past.messages[column] else text


def _span(seconds: float) -> str:
    """Return a length of time for people, in days, hours, minutes or seconds."""
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
