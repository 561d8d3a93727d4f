"""Sudden, unusually deep falls in demand: capacity is kept for as long as its price is worth the chance of a return.

If something in front of a fleet breaks, sizing by demand stops the whole fleet, and there is nothing left when the fault is
repaired. Forecasts do not help: what demand does after such a fall was never seen. So a fall is doubted if it is more than
twice as deep (in logarithms) as all but two of those in memory, and demand had been present for half an hour without a break:
that excludes the end of a crowd. Time within a doubted fall does not count as a break, so the second of two outages is doubted,
too. The fourth fall of its kind is believed, since by then the models know what follows.

Lost capacity is kept for as long as prices justify it. If only the age k of an outage is known, in ticks, one in k + 1 such
outages ends in the next tick (Gott, 1993). If r earlier ones came back, after d ticks altogether, the odds are r + 1 in
k + 1 + d (the mean of a gamma distribution of the rate). A kept VM costs one tick; a stopped one is missed for the length of a
start. So VMs stay while that length, times the price of shortage, times these odds is at least 1, and for no more than a day, in
which somebody will have looked. At the end of batches, that is seldom more than once.

Rules of this file: element-wise over the n columns of a `Trial`, of which this is a part. Nothing is learned from missing and
censored demand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np

from autoscaler.core.state_base import Remembered, take_columns
from autoscaler.core.types import Bool, Float, Int

LASTING_S, LASTING_TICKS = 1800.0, 2.0
"""Demand counts as present without a break after this much time, and at least this many ticks."""
KNOWN_S = 86_400.0
"""A fleet that has been observed for less than this doubts no falls."""
DEEPER = 2.0
"""A fall is doubted if it is this many times as deep, in logarithms, as those in memory."""
DEEPEST = 3
"""Number of deepest falls kept in memory; new falls are compared with the shallowest of them."""
LEAST = math.log(2.0)
"""No shallower fall is doubted. Depths are logarithms of (1 + VMs), so small fleets seldom have deep falls."""
HALF_LIFE_S = 28.0 * 86_400.0
"""Time in which the depth of a remembered fall fades to half."""
MOST_HELD_S = 86_400.0
"""Longest time for which VMs are held."""
_NOTABLE = math.exp(LEAST / DEEPER)
_NOWHERE: Int = np.zeros(0, np.int64)
_WIDE, _MORE = np.array(_NOTABLE), np.array(_NOTABLE - 1.0)
_BY_COLUMN = ("lowest", "deepest", "deepest_s", "known", "before", "back", "since", "returns", "away")


@dataclass(slots=True)
class Falls(Remembered):
    """What is remembered of falls in n columns.

    Time is divided into stretches of `LASTING_S`, or `LASTING_TICKS` ticks if those are longer.

    Attributes:
        lowest: float64 (2, n), lowest demand in VMs of the previous stretch, NaN if it was not known, and of the current
            stretch, infinite until it is known. Demand that is away in a doubted fall is left out.
        deepest: float64 (`DEEPEST`, n), logarithms of the deepest falls in memory, descending; 0 for none.
        deepest_s: float64 (n,), the time up to which `deepest` has faded.
        known: int64 (n,), number of stretches in which demand was known.
        before: float64 (n,), demand in VMs before the last doubted fall, until demand has come back or a day is over; then 0.
        back: float64 (n,), demand in VMs from which on it counts as come back.
        since: int64 (n,), the tick of that fall.
        returns: float64 (n,), how many earlier doubted falls came back; fades like `deepest`.
        away: float64 (n,), ticks for which demand was away in them, at most a day each; fades like `deepest`.
        stretch: Number of the current stretch; -1 before the first.
        last_tick: The last tick seen; -1 before the first.
    """

    version: ClassVar[int] = 1
    lowest: Float
    deepest: Float
    deepest_s: Float
    known: Int
    before: Float
    back: Float
    since: Int
    returns: Float
    away: Float
    stretch: int = -1
    last_tick: int = -1

    @classmethod
    def empty(cls, columns: int) -> Self:
        """A state that has seen nothing."""
        lowest = np.full((2, columns), np.inf)
        lowest[0] = np.nan
        return cls(
            lowest=lowest,
            deepest=np.zeros((DEEPEST, columns)),
            deepest_s=np.zeros(columns),
            known=np.zeros(columns, np.int64),
            before=np.zeros(columns),
            back=np.zeros(columns),
            since=np.zeros(columns, np.int64),
            returns=np.zeros(columns),
            away=np.zeros(columns),
        )

    def of_columns(self, was: Int) -> Falls:
        """Return the state for other columns, each one of these or, if `was` is -1, new; this state is not changed."""
        new = Falls.empty(len(was))
        known = was >= 0
        for name in _BY_COLUMN:
            getattr(new, name)[..., known] = getattr(self, name)[..., was[known]]
        new.stretch, new.last_tick = self.stretch, self.last_tick
        return new

    def take_in(self, mine: Int, other: Falls, theirs: Int) -> None:
        """Copy some columns, int64 (k,), from the columns `theirs` of another state at the same tick."""
        take_columns(self, mine, other, theirs, _BY_COLUMN, when=("stretch", "last_tick"))


def doubted(
    state: Falls, tick: int, tick_s: float, work: Float, lead_ticks: Float, price: Float
) -> Int | None:
    """Take in a tick, and return how many VMs to hold for demand that may come back.

    Args:
        state: Updated in place. Only the first call of a tick notes falls; a later one may end a doubted fall.
        tick: Now.
        tick_s: Length of a tick.
        work: float64 (n,), demand in VMs; NaN if not known.
        lead_ticks: float64 (n,), ticks from the order of a start until it serves.
        price: float64 (n,), price of shortage, in VM-ticks per VM-tick.

    Returns:
        int64 (n,), VMs that stay if they exist; None if none are held.
    """
    if tick > state.last_tick:
        fell(state, tick, tick_s, work)
    if not np.count_nonzero(state.before):
        return None
    came_back(state, tick, tick_s, work)
    aged = tick - state.since
    stays = aged + 1.0 + state.away <= lead_ticks * price * (state.returns + 1.0)
    held: Int = np.ceil(state.before * stays).astype(np.int64)
    return held if np.count_nonzero(held) else None


def fell(state: Falls, tick: int, tick_s: float, work: Float) -> Int:
    """Take in a tick, as `doubted` does; return the columns with a fall that is doubted from now on: int64 (k,)."""
    _begin_stretch(state, tick, tick_s)
    state.last_tick = tick
    past, present = state.lowest
    lasted = np.minimum(past, present)
    fallen = work * _WIDE
    fallen += _MORE
    notable = fallen < lasted
    new = _NOWHERE
    if np.count_nonzero(notable):
        # A further fall during a doubted one belongs to it.
        where = np.flatnonzero(notable & (state.before == 0.0))
        noted = _Noted.of(state, tick * tick_s, _length(tick_s), work[where], lasted[where], where)
        new = noted.note(state, tick, tick * tick_s)
    if np.count_nonzero(state.before):
        work = np.where((state.before > 0.0) & (work < state.back), np.nan, work)
    np.fmin(present, work, out=present)
    return new


def came_back(state: Falls, tick: int, tick_s: float, work: Float) -> Int:
    """End doubted falls whose demand is back or has been away for a day; return the columns where it is back: int64 (k,)."""
    aged = tick - state.since
    is_back = work >= state.back
    ended = np.flatnonzero((state.before > 0.0) & (is_back | (aged >= MOST_HELD_S / tick_s)))
    state.before[ended] = 0.0
    state.away[ended] += aged[ended]
    state.returns[ended] += is_back[ended]
    return ended[is_back[ended]]


def calm(state: Falls, tick: int, tick_s: float, work: Float) -> int:
    """For how many of the coming ticks no fall is doubted and nothing changes in the state but the lowest demand.

    Args:
        state: As of the tick before; not changed.
        tick: The first of these ticks.
        tick_s: Length of a tick.
        work: float64 (T, n), demand in VMs at each tick, all known.
    """
    ticks = len(work)
    while ticks and _stretch(tick + ticks - 1, tick_s) != state.stretch:
        ticks -= 1
    if not ticks or tick != state.last_tick + 1 or np.count_nonzero(state.before):
        return 0
    past, present = state.lowest
    lasted = np.empty((ticks, len(present)))
    lasted[0] = np.minimum(past, present)
    lasted[1:] = work[: ticks - 1]
    np.minimum.accumulate(lasted, axis=0, out=lasted)
    fallen = work[:ticks] * _WIDE
    fallen += _MORE
    notable = np.logical_or.reduce(fallen < lasted, axis=1)
    return int(notable.argmax()) if np.count_nonzero(notable) else ticks


def pass_calm(state: Falls, tick: int, work: Float) -> None:
    """Take in calm ticks (see `calm`), with demand in VMs, float64 (T, n), beginning with `tick`."""
    if len(work):
        present = state.lowest[1]
        np.minimum(present, np.minimum.reduce(work, axis=0), out=present)
        state.last_tick = tick + len(work) - 1


def uneventful(state: Falls, tick: int, tick_s: float, work: Float) -> int:
    """Take in ticks for as long as no fall comes to be doubted and no doubted fall ends.

    Computes on plain numbers, bit for bit what `fell` and `came_back` do.

    Args:
        state: As of the tick before; updated in place.
        tick: The first of these ticks.
        tick_s: Length of a tick.
        work: float64 (T, n), demand in VMs at each tick; NaN if not known.

    Returns:
        How many ticks were taken in.
    """
    length_s = _length(tick_s)
    stretches = np.arange(tick, tick + len(work)) * tick_s // length_s
    past, present = state.lowest.tolist()
    before, back, since = state.before.tolist(), state.back.tolist(), state.since.tolist()
    wide, more, most = _NOTABLE, _NOTABLE - 1.0, MOST_HELD_S / tick_s
    now, columns, doubts = tick, range(len(present)), any(before)
    for stretch, row in zip(stretches.astype(np.int64).tolist(), work.tolist(), strict=True):
        if stretch != state.stretch:
            state.lowest[1] = present
            _begin_stretch(state, now, tick_s)
            past, present = state.lowest.tolist()
        where = []
        for at in columns:
            value = row[at]
            if not before[at]:
                fallen = value * wide + more
                if fallen < present[at] and fallen < past[at]:
                    where.append(at)
            elif value >= back[at] or now - since[at] >= most:
                break
        else:
            if not where or _is_believed(state, now, tick_s, where, row, past, present):
                there = [math.nan if before[at] else row[at] for at in columns] if doubts else row
                present = list(map(min, present, there))
                now += 1
                continue
        break
    state.lowest[1], state.last_tick = present, now - 1
    return now - tick


def _is_believed(
    state: Falls,
    tick: int,
    tick_s: float,
    where: Sequence[int],
    work: Sequence[float],
    past: Sequence[float],
    present: Sequence[float],
) -> bool:
    """Whether none of the columns that fell is doubted; if so, their falls are noted."""
    now_s = tick * tick_s
    demand = np.array([work[at] for at in where])
    lasted = np.array([min(past[at], present[at]) for at in where])
    noted = _Noted.of(state, now_s, _length(tick_s), demand, lasted, np.array(where))
    if np.count_nonzero(noted.new):
        return False
    noted.note(state, tick, now_s)
    return True


def _length(tick_s: float) -> float:
    """Length of a stretch, in seconds."""
    return max(LASTING_S, LASTING_TICKS * tick_s)


def _stretch(tick: int, tick_s: float) -> int:
    return int(tick * tick_s // _length(tick_s))


def _begin_stretch(state: Falls, tick: int, tick_s: float) -> None:
    """Begin another stretch if the current one is over."""
    stretch = _stretch(tick, tick_s)
    if stretch == state.stretch:
        return
    past, present = state.lowest
    known = np.isfinite(present)
    state.known += known
    unknown = np.where(state.before > 0.0, past, np.nan)
    past[:] = np.where(known, present, unknown) if stretch == state.stretch + 1 else np.nan
    present.fill(np.inf)
    state.stretch = stretch


class _Noted(NamedTuple):
    """Notable falls in some columns.

    Attributes:
        where: int64 (k,), the columns.
        lasted, work: float64 (k,), demand in VMs before and after the fall.
        fade: float64 (k,), factor by which remembered values have faded.
        falls: float64 (1 + `DEEPEST`, k), depths of the remembered falls and of this one, ascending.
        new: bool (k,), whether the fall is doubted.
    """

    where: Int
    lasted: Float
    work: Float
    fade: Float
    falls: Float
    new: Bool

    @classmethod
    def of(
        cls, state: Falls, now_s: float, length_s: float, work: Float, lasted: Float, where: Int
    ) -> _Noted:
        """Compare falls from `lasted` to `work` with those in memory; the state is not changed."""
        fade = 0.5 ** ((now_s - state.deepest_s[where]) / HALF_LIFE_S)
        faded = state.deepest[:, where] * fade
        depth = np.log((lasted + 1.0) / (work + 1.0))
        new = depth > np.maximum(DEEPER * faded[-1], LEAST)
        new &= state.known[where] * length_s >= KNOWN_S
        falls = np.concatenate([faded, depth[np.newaxis]])
        falls.sort(axis=0)
        return cls(where, lasted, work, fade, falls, new)

    def note(self, state: Falls, tick: int, now_s: float) -> Int:
        """Store the falls in the state; return the columns that are doubted from now on: int64 (n,)."""
        where = self.where
        state.returns[where] *= self.fade
        state.away[where] *= self.fade
        state.deepest[:, where], state.deepest_s[where] = self.falls[:0:-1], now_s
        at, lasted, work = where[self.new], self.lasted[self.new], self.work[self.new]
        state.before[at] = lasted
        state.back[at] = np.sqrt((work + 1.0) * (lasted + 1.0)) - 1.0
        state.since[at] = tick
        return at
