"""Reads out forecasts: quantiles and whole predictive distributions, for one tick or for many at once.

The forecast of a tick depends only on its expected values and on the rows of the tables at that time. So a replay may copy these
rows (`Kept`) and read the forecasts of many ticks later, as if the series of each tick were separate series; that takes as many
calls as a single tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from autoscaler.core.forecast import coverage, events, lattice, tables
from autoscaler.core.forecast.seeing import Read
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import SeriesState, as_it_lies
from autoscaler.core.laws import EDGES, MOST_LOG
from autoscaler.core.types import (
    LAW_BINS,
    LAW_LOW,
    LAW_STEP,
    QUANTILE_LEVELS,
    BurstOdds,
    Float,
    Horizon,
    Int,
    Laws,
    Outlook,
    SmallFloat,
)

_BEYOND: SmallFloat = (1.0 - np.array(QUANTILE_LEVELS)).astype(np.float32)
_EDGES = EDGES.astype(np.float32)
AT_ONCE, _FEW, _BINS_AT_ONCE = 500, 256, 8
"""Series whose quantiles are worked out together, since more do not fit the cache of one core; laws that are few; bins of many
laws that are worked out together."""


@dataclass(slots=True)
class Basis:
    """What words are made of, for N series: those of one tick, or of many ticks side by side.

    Attributes:
        log_level: float64 (N, H), logarithm of level and offset.
        spread: float64 (N, H).
        room: float64 (N, H), how far above the level anything is expected, in logarithms.
        tables: float32 (R, H, LAW_BINS), histograms.
        whole: float32 (N, H, LAW_BINS), those of everything that each has seen.
        totals: float64 (R, H), their sums.
        rows: int64 (N, 3), which of them speak for each.
        weight: float64 (N,), of a present outcome.
        offset: float64 (N,), added to both sides of a ratio.
        evidence: float64 (N,), effective number of outcomes at the lead time.
    """

    log_level: Float
    spread: Float
    room: Float
    tables: SmallFloat
    whole: SmallFloat
    totals: Float
    rows: Int
    weight: Float
    offset: Float
    evidence: Float

    @classmethod
    def present(cls, settings: Settings, state: SeriesState, issued: Float, top: Float) -> Basis:
        """As the state has it; valid until the next sample.

        Args:
            settings: Of the series.
            state: All outcomes so far are in its tables.
            issued: float64 (S, H, 3), of `issuing.expect`.
            top: float64 (S,), logarithm of the highest that is expected.
        """
        horizons, log_level = settings.horizons, issued[..., 0]
        rows = settings.rows_of.take(issued[:, 0, 2].astype(np.int64), axis=0)
        rows += settings.first_row
        return cls(
            log_level=log_level,
            spread=issued[..., 1],
            room=top[:, np.newaxis] - log_level,
            tables=as_it_lies(state.tables).reshape(-1, horizons, LAW_BINS),
            whole=state.tables[:, -1],
            totals=as_it_lies(state.totals).reshape(-1, horizons),
            rows=rows,
            weight=state.weight,
            offset=state.offset,
            evidence=state.evidence,
        )


class Kept:
    """What some ticks expect, and what came at them, to be put into words together.

    Args:
        settings: Of the series.
        most: How many ticks at most.

    Attributes:
        ticks: How many it has.
    """

    def __init__(self, settings: Settings, most: int) -> None:
        series, horizons = len(settings.series), settings.horizons
        self._settings, self._most = settings, most
        self._issued = np.empty((most, series, horizons, 3))
        self._tables = np.empty((most, series, 3, horizons, LAW_BINS), np.float32)
        self._totals = np.empty((most, series, 3, horizons))
        self._weight, self._offset, self._top, self._demand = np.empty((4, most, series))
        self._tick, self._usable = np.empty(most, np.int64), np.ones((most, series), np.bool_)
        self._new, self.ticks = slice(0, 0), 0

    def has_room(self, ticks: int) -> bool:
        """Whether it may have so many more."""
        return self.ticks + ticks <= self._most

    def begin(self, facts: Read) -> None:
        """More are coming, one stretch of them, at which this came."""
        ticks = len(facts.demand)
        new = self._new = slice(self.ticks, self.ticks + ticks)
        self.ticks += ticks
        self._tick[new] = np.arange(facts.tick, facts.tick + ticks)
        self._demand[new] = facts.demand
        if facts.usable is not None:
            self._usable[new] = facts.usable

    def keep(self, state: SeriesState, tick: int, issued: Float) -> None:
        """What is expected at a tick of the stretch, right after it was worked out: of `issuing.expect`."""
        rows = self._settings.rows_of.take(issued[:, 0, 2].astype(np.int64), axis=0)
        rows += self._settings.first_row
        at = self._new.start + tick
        self._issued[at], self._offset[at], self._weight[at] = issued, state.offset, state.weight
        totals = as_it_lies(state.totals).reshape(-1, self._settings.horizons)
        totals.take(rows, axis=0, out=self._totals[at], mode="clip")

    def keep_all(self, issued: Float, totals: Float, offset: Float, weight: Float) -> None:
        """The same of all its ticks: what was issued, the sums of the rows that spoke, (T, S, 3, H), and of the state."""
        new = self._new
        self._issued[new], self._totals[new], self._weight[new], self._offset[new] = (
            issued,
            totals,
            weight,
            offset,
        )

    def end(self, top: Float) -> None:
        """The stretch is over; float64 (T, S), logarithm of the highest that is expected."""
        self._top[self._new] = top

    def fill(self, state: SeriesState, added: Sequence[tuple[int, Int, SmallFloat]]) -> None:
        """Bring the tables up to the last tick of the stretch, and copy of each tick what speaks there.

        Args:
            state: Its tables are those before its first tick.
            added: What came to them, of `judging.count_in`.
        """
        rows = self._settings.rows_of.take(self._issued[self._new, :, 0, 2].astype(np.int64), axis=0)
        rows += self._settings.first_row
        by_row = as_it_lies(state.tables).reshape(-1, *state.tables.shape[2:])
        flat = by_row.reshape(-1)
        done = 0
        for tick, (mine, kept) in enumerate(zip(rows, self._tables[self._new], strict=True)):
            while done < len(added) and added[done][0] == tick:
                _, places, weight = added[done]
                found = flat.take(places)
                found += weight
                flat.put(places, found)
                done += 1
            by_row.take(mine, axis=0, out=kept, mode="clip")

    def said(self, state: SeriesState) -> Outlook:
        """The Outlooks of all of them, tick by tick; whatever the state was asked before is answered first."""
        settings, some = self._settings, slice(self.ticks)
        heard = coverage.Heard(self._tick[some], self._demand[some], self._usable[some])

        def read_at(law: coverage.AtLead) -> Float:
            return coverage.through(settings, state, heard, law)

        return said(settings, self.basis(), read_at)

    def basis(self) -> Basis:
        """All of it, tick by tick."""
        horizons, some = self._settings.horizons, slice(self.ticks)
        issued, totals, weight = self._issued[some], self._totals[some], self._weight[some]
        log_level = issued[..., 0].reshape(-1, horizons)
        tables = self._tables[some]
        return Basis(
            log_level=log_level,
            spread=issued[..., 1].reshape(-1, horizons),
            room=self._top[some].reshape(-1)[:, np.newaxis] - log_level,
            tables=tables.reshape(-1, horizons, LAW_BINS),
            whole=tables.reshape(-1, 3, horizons, LAW_BINS)[:, -1],
            totals=totals.reshape(-1, horizons),
            rows=np.arange(3 * len(log_level)).reshape(-1, 3),
            weight=weight.reshape(-1),
            offset=self._offset[some].reshape(-1),
            evidence=(totals[:, :, -1, 0] / weight).reshape(-1),
        )


def say(
    settings: Settings,
    state: SeriesState,
    basis: Basis,
    marks: lattice.Marks | None,
    now_s: float,
    tick: int,
) -> Outlook:
    """The Outlook of this tick."""
    likely = lattice.by_then(settings, state, marks)

    def read_at(law: coverage.AtLead) -> Float:
        return coverage.ask(settings, state, tick, law)

    if not len(settings.params.event_odds):
        return said(settings, basis, read_at, likely)

    def read_beside_events(law: coverage.AtLead) -> Float:
        # What people have told of is no fault of the law.
        told = events.told_at_lead(settings, now_s)
        return read_at(law._replace(log_level=np.where(told, np.nan, law.log_level)))

    def mixed(beyond: SmallFloat) -> Basis:
        usual = events.Measure(basis.log_level, basis.spread, basis.room)
        found = events.mix(settings, state, now_s, np.moveaxis(beyond, 0, -1), usual)
        return replace(basis, log_level=found.log_level, spread=found.spread, room=found.room)

    return said(settings, basis, read_beside_events, likely, mixed)


def said(
    settings: Settings,
    basis: Basis,
    read_at: Callable[[coverage.AtLead], Float],
    likely: BurstOdds | None = None,
    mixed: Callable[[SmallFloat], Basis] | None = None,
) -> Outlook:
    """The Outlook on this basis.

    Args:
        settings: Of the series.
        basis: What words are made of.
        read_at: At which shares of the laws at the lead time quantiles are read: float64 (N, Q).
        likely: How likely bursts are, for people.
        mixed: Lets what is expected beyond each edge take events into account, and says on what basis.
    """
    beyond = tables.survival(basis.tables, basis.whole, basis.totals, basis.rows, basis.weight)
    if mixed is not None:
        basis = mixed(beyond)
    offset = basis.offset.copy()
    law = coverage.AtLead(beyond[..., 0], basis.log_level[:, 0], basis.spread[:, 0], offset)
    shares = read_at(law)
    parts = [slice(first, first + AT_ONCE) for first in range(0, len(offset), AT_ONCE)]
    quantiles: list[_Part] = [
        (
            beyond[:, some],
            shares[some],
            basis.log_level[some],
            basis.spread[some],
            basis.room[some],
            offset[some],
        )
        for some in parts
    ]
    laws = None
    if settings.horizons > Horizon.KEEP + 1:
        laws = _no_laws(*basis.spread.shape)
        _fill_in(laws, offset, beyond, basis.log_level, basis.spread, basis.room)
    return Issued(quantiles, coverage.Said(law, shares), basis.evidence, laws, likely)


_Part: TypeAlias = "tuple[SmallFloat, Float, Float, Float, Float, Float]"
"""What the quantiles of some of the series are worked out of, as `_quantiles` takes it."""


class Issued(Outlook):
    """An Outlook that works out its quantiles when they are first read: who orders by whole laws seldom does.

    Args:
        parts: What quantiles are worked out of, of some of the series each, one after the other.
        at_lead_said: What is said of demand at the lead time.
        evidence, laws, bursts: As in `Outlook`.

    Attributes:
        said: Of demand at the lead time: laws, and at which shares of them quantiles are read.
    """

    __slots__ = ("_both", "_parts", "said")
    _parts: Sequence[_Part]
    said: coverage.Said
    _both: tuple[Float, Float] | None

    def __init__(
        self,
        parts: Sequence[_Part],
        at_lead_said: coverage.Said,
        evidence: Float,
        laws: Laws | None,
        bursts: BurstOdds | None,
    ) -> None:
        note = object.__setattr__
        note(self, "_parts", parts)
        note(self, "_both", None)
        note(self, "said", at_lead_said)
        note(self, "evidence", evidence)
        note(self, "laws", laws)
        note(self, "bursts", bursts)

    def __reduce__(self) -> tuple[type[Outlook], tuple[object, ...]]:
        """A copy is a plain Outlook: what it would be worked out of stays here."""
        return Outlook, (self.at_lead, self.peak, self.evidence, self.laws, self.bursts)

    def _quantiles(self) -> tuple[Float, Float]:
        both = self._both
        if both is None:
            found = [_quantiles(*part) for part in self._parts]
            quantiles = found[0] if len(found) == 1 else np.concatenate(found)
            at_lead = quantiles[:, 0].T.copy()
            both = at_lead, np.maximum(quantiles[:, 1].T, at_lead)
            note = object.__setattr__
            note(self, "_both", both)
            note(self, "_parts", ())
        return both

    @property
    def at_lead(self) -> Float:
        """As in `Outlook`, like what follows."""
        return self._quantiles()[0]

    @property
    def peak(self) -> Float:
        """Of the highest demand of the keep window."""
        return self._quantiles()[1]


def _quantiles(
    beyond: SmallFloat, read_at: Float, log_level: Float, spread: Float, room: Float, offset: Float
) -> Float:
    """Demand, (S, 2, Q), at the lead time, read at shares of its own, and over the keep window: linear in place within a bin."""
    log_level, spread, room = log_level[:, :2], spread[:, :2], room[:, :2]
    count = 2 * beyond.shape[1]
    first = np.zeros((LAW_BINS + 1, count), np.float32)
    if beyond.shape[2] % 2:
        first[:-1].reshape(LAW_BINS, -1, 2)[:] = beyond[:, :, :2]
    else:
        # Two horizons as one number of twice the width: numpy copies pair by pair far slower.
        first.view(np.uint64)[:-1] = beyond.view(np.uint64)[:, :, 0]
    index = np.empty((count, len(_BEYOND)), np.int64)
    threshold = np.empty((count, len(_BEYOND)), np.float32)
    threshold[0::2], threshold[1::2] = coverage.thresholds(read_at), _BEYOND
    if count <= _FEW:
        by_law = first.T.copy()
        above = (by_law[:, np.newaxis] > threshold[:, :, np.newaxis]).view(np.uint8)
        index[:] = np.add.reduce(above, axis=-1, dtype=np.uint8)
    else:
        for at, level in enumerate(threshold.T.copy()):
            index[:, at] = np.add.reduce((first > level).view(np.uint8), axis=0, dtype=np.uint8)
    # Where no edge is exceeded by that much, none of that demand is there.
    none = None if np.count_nonzero(index) == index.size else index == 0
    index -= _ONE
    np.maximum(index, _FIRST, out=index)
    flat = index * np.array(count)
    flat += np.arange(count)[:, np.newaxis]
    values = first.reshape(-1)
    upper = values.take(flat)
    flat += np.array(count)
    step = upper - values.take(flat)
    np.maximum(step, _LEAST_STEP, out=step)
    upper -= threshold
    upper /= step
    place = upper.astype(np.float64)
    np.maximum(place, _NOTHING, out=place)
    place += index.astype(np.float64)
    place *= _LAW_STEP
    place += _LAW_LOW
    np.sinh(place, out=place)
    found: Float = place.reshape(-1, 2, len(_BEYOND))
    wide = np.empty(found.shape)
    wide[:] = spread[:, :, np.newaxis]
    found *= wide
    wide[:] = room[:, :, np.newaxis]
    np.minimum(found, wide, out=found)
    wide[:] = log_level[:, :, np.newaxis]
    found += wide
    np.exp(found, out=found)
    if none is not None:
        found *= ~none.reshape(found.shape)
    found -= offset[:, np.newaxis, np.newaxis]
    np.maximum(found, _NOTHING, out=found)
    return found


_FIRST, _ONE, _NOTHING = np.array(0), np.array(1), np.array(0.0)
_LEAST_STEP = np.array(1e-30, np.float32)
_LAW_STEP, _LAW_LOW = np.array(LAW_STEP), np.array(LAW_LOW)


def _no_laws(series: int, horizons: int) -> Laws:
    """Laws of so many series to be filled in for so many horizons; what nobody asks for stays unknown."""
    shape = series, len(Horizon)
    laws = Laws(
        level=np.empty(shape),
        spread=np.empty(shape),
        scale=np.empty(series),
        excess=np.zeros((*shape, LAW_BINS + 1), np.float32),
    )
    laws.level[:, horizons:] = np.nan
    laws.spread[:, horizons:] = 1.0
    return laws


def _fill_in(
    laws: Laws, scale: Float, beyond: SmallFloat, log_level: Float, spread: Float, room: Float
) -> None:
    """Fill in the laws of the horizons that are kept."""
    series, horizons = spread.shape
    # Edges along the first axis, series and horizons along the other.
    unit = spread.astype(np.float32).reshape(-1)
    most = np.minimum(room, MOST_LOG).astype(np.float32).reshape(-1)
    level_and_scale = np.exp(log_level)
    # Half of each demand, since the areas between two edges are means of two probabilities: halves are exact.
    half = (0.5 * level_and_scale).astype(np.float32).reshape(-1)
    least = (0.5 * scale).astype(np.float32).repeat(horizons)
    flat, far = beyond.reshape(LAW_BINS, -1), _far(unit, most)
    # Of many laws some bins after the other, the last first, so that what it takes stays near the processor.
    length = LAW_BINS if len(unit) <= _FEW else _BINS_AT_ONCE
    excess, both = np.empty(flat.shape, np.float32), np.empty((length, len(unit)), np.float32)
    edges, none = np.empty((length + 1, len(unit)), np.float32), np.zeros_like(unit)
    for first in range(LAW_BINS - length, -1, -length):
        end = first + length
        if end < LAW_BINS:
            # The last of these was the first before.
            edges[-1] = edges[0]
            new = edges[:-1]
        else:
            new = edges
        np.multiply(_EDGES[first : first + len(new), np.newaxis], unit, out=new)
        if first + len(new) > far:
            # Some law may be wider here than there is room.
            wide = new[max(far - first, 0) :]
            np.minimum(wide, most, out=wide)
        np.exp(new, out=new)
        new *= half
        new -= least
        # Row by row with as many zeros, since the higher of an array and one number takes numpy far longer.
        np.maximum(new, none, out=new)
        # Between two edges the probability of more falls evenly.
        area = excess[first:end]
        np.subtract(edges[1:], edges[:-1], out=area)
        if end < LAW_BINS:
            area *= np.add(flat[first:end], flat[first + 1 : end + 1], out=both)
            area[-1] += excess[end]
        else:
            area[:-1] *= np.add(flat[first:-1], flat[first + 1 :], out=both[:-1])
            area[-1] *= flat[-1]
        tables.sum_up(area)
    laws.excess[:, :horizons, :-1] = excess.T.reshape(series, horizons, LAW_BINS)
    np.subtract(level_and_scale, scale[:, np.newaxis], out=laws.level[:, :horizons])
    laws.spread[:, :horizons] = spread
    laws.scale[:] = scale


def _far(unit: SmallFloat, most: SmallFloat) -> int:
    """The first edge that may be further than `most`, (N,), from the level for any spread, (N,)."""
    least, widest = float(np.fmin.reduce(most)), float(np.fmax.reduce(unit))
    if not least > 0.0:
        return 0
    return max(int(_EDGES.searchsorted(0.999 * least / widest)) - 1, 0)
