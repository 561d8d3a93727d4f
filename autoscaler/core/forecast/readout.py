"""Reads out forecasts: quantiles and whole predictive distributions, for one tick or for many at once.

The forecast of a tick depends only on its expected values and on the rows of the tables at that time. So a replay may copy these
rows (`Readouts`) and read the forecasts of many ticks later, as if the series of each tick were separate series; that takes as many
calls as a single tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from autoscaler.core.forecast import coverage, events, lattice, tables
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import SeriesState, slots_first
from autoscaler.core.forecast.tracks import Stretch
from autoscaler.core.law_grid import EDGES, MOST_LOG
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
"""Probabilities of more demand than each quantile."""
_EDGES = EDGES.astype(np.float32)
AT_ONCE, _FEW, _BINS_AT_ONCE = 500, 256, 8
"""Quantiles of `AT_ONCE` series are computed together, because more do not fit the cache of one core. Up to `_FEW` laws, all
bins are processed at once; beyond, `_BINS_AT_ONCE` of them."""


@dataclass(slots=True)
class ReadoutBasis:
    """Inputs from which quantiles and laws of N series are read: those of one tick, or of many ticks side by side.

    Attributes:
        log_level: float64 (N, H), logarithm of level plus offset.
        spread: float64 (N, H), unit of the log ratio.
        room: float64 (N, H), how far above the level demand is expected at most, as a log ratio.
        tables: float32 (R, H, LAW_BINS), histograms.
        whole: float32 (N, H, LAW_BINS), the histograms of all outcomes of each series.
        totals: float64 (R, H), sums of the histograms.
        rows: int64 (N, 3), the rows of `tables` for each series: its cell, its parent, all outcomes.
        weight: float64 (N,), weight of a present outcome.
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
    def present(cls, settings: Settings, state: SeriesState, issued: Float, top: Float) -> ReadoutBasis:
        """Return the inputs of the present tick, as views of the state that are valid until the next sample.

        Args:
            settings: The settings of the series.
            state: Its tables must contain all outcomes so far.
            issued: float64 (S, H, 3), from `issuing.expect`.
            top: float64 (S,), logarithm of the highest demand that is expected, plus offset.
        """
        horizons, log_level = settings.horizons, issued[..., 0]
        rows = settings.rows_of.take(issued[:, 0, 2].astype(np.int64), axis=0)
        rows += settings.first_row
        return cls(
            log_level=log_level,
            spread=issued[..., 1],
            room=top[:, np.newaxis] - log_level,
            tables=slots_first(state.tables).reshape(-1, horizons, LAW_BINS),
            whole=state.tables[:, -1],
            totals=slots_first(state.totals).reshape(-1, horizons),
            rows=rows,
            weight=state.weight,
            offset=state.offset,
            evidence=state.evidence,
        )


class Readouts:
    """Forecasts and samples of several ticks, from which Outlooks are read together.

    Args:
        settings: The settings of the series.
        most: Most ticks.

    Attributes:
        ticks: Number of ticks so far.
    """

    def __init__(self, settings: Settings, most: int) -> None:
        series, horizons = len(settings.series), settings.horizons
        self._settings, self._most_ticks = settings, most
        self._issued = np.empty((most, series, horizons, 3))
        self._tables = np.empty((most, series, 3, horizons, LAW_BINS), np.float32)
        self._totals = np.empty((most, series, 3, horizons))
        self._weight, self._offset, self._top, self._demand = np.empty((4, most, series))
        self._tick, self._usable = np.empty(most, np.int64), np.ones((most, series), np.bool_)
        self._new, self.ticks = slice(0, 0), 0

    def has_room(self, ticks: int) -> bool:
        """Return whether this many more ticks fit."""
        return self.ticks + ticks <= self._most_ticks

    def begin(self, facts: Stretch) -> None:
        """Begin a stretch of ticks with these samples."""
        ticks = len(facts.demand)
        new = self._new = slice(self.ticks, self.ticks + ticks)
        self.ticks += ticks
        self._tick[new] = np.arange(facts.tick, facts.tick + ticks)
        self._demand[new] = facts.demand
        if facts.usable is not None:
            self._usable[new] = facts.usable

    def keep(self, state: SeriesState, tick: int, issued: Float) -> None:
        """Keep the forecast of a tick of the stretch, from `issuing.expect`, before the state changes."""
        rows = self._settings.rows_of.take(issued[:, 0, 2].astype(np.int64), axis=0)
        rows += self._settings.first_row
        at = self._new.start + tick
        self._issued[at], self._offset[at], self._weight[at] = issued, state.offset, state.weight
        totals = slots_first(state.totals).reshape(-1, self._settings.horizons)
        totals.take(rows, axis=0, out=self._totals[at], mode="clip")

    def keep_all(self, issued: Float, totals: Float, offset: Float, weight: Float) -> None:
        """Keep the forecasts of the whole stretch.

        Args:
            issued: float64 (T, S, H, 3), the forecasts.
            totals: float64 (T, S, 3, H), sums of the rows that they use.
            offset: float64 (T, S), offsets at each tick.
            weight: float64 (T, S), weight of an outcome at each tick.
        """
        new = self._new
        self._issued[new], self._totals[new], self._weight[new], self._offset[new] = (
            issued,
            totals,
            weight,
            offset,
        )

    def end(self, top: Float) -> None:
        """End the stretch, with the logarithm of the highest demand that is expected plus offset, float64 (T, S)."""
        self._top[self._new] = top

    def fill(self, state: SeriesState, added: Sequence[tuple[int, Int, SmallFloat]]) -> None:
        """Bring the tables up to the last tick of the stretch, and copy the rows that each tick uses.

        Args:
            state: Its tables must be those before the stretch's first tick.
            added: What to add at each tick, from `judging.count_in`.
        """
        rows = self._settings.rows_of.take(self._issued[self._new, :, 0, 2].astype(np.int64), axis=0)
        rows += self._settings.first_row
        by_row = slots_first(state.tables).reshape(-1, *state.tables.shape[2:])
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

    def outlook(self, state: SeriesState) -> Outlook:
        """Return the Outlooks of all ticks; outcomes that arrived meanwhile correct the quantiles (`coverage.process_ticks`)."""
        settings, some = self._settings, slice(self.ticks)
        arrived = coverage.ArrivedDemand(self._tick[some], self._demand[some], self._usable[some])

        def read_at(law: coverage.AtLead) -> Float:
            return coverage.process_ticks(settings, state, arrived, law)

        return read_outlook(settings, self.basis(), read_at)

    def basis(self) -> ReadoutBasis:
        """Return the inputs of all ticks, tick by tick."""
        horizons, some = self._settings.horizons, slice(self.ticks)
        issued, totals, weight = self._issued[some], self._totals[some], self._weight[some]
        log_level = issued[..., 0].reshape(-1, horizons)
        tables = self._tables[some]
        return ReadoutBasis(
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


def issue_outlook(
    settings: Settings,
    state: SeriesState,
    basis: ReadoutBasis,
    marks: lattice.Marks | None,
    now_s: float,
    tick: int,
) -> Outlook:
    """Return the Outlook of a single tick."""
    bursts = lattice.burst_odds(settings, state, marks)

    def read_at(law: coverage.AtLead) -> Float:
        return coverage.ask(settings, state, tick, law)

    if not len(settings.params.event_odds):
        return read_outlook(settings, basis, read_at, bursts)

    def read_without_events(law: coverage.AtLead) -> Float:
        # The law is not judged by outcomes during known events.
        has_event = events.has_event_at_lead(settings, now_s)
        return read_at(law._replace(log_level=np.where(has_event, np.nan, law.log_level)))

    def mixed(beyond: SmallFloat) -> ReadoutBasis:
        usual = events.Measure(basis.log_level, basis.spread, basis.room)
        found = events.mix(settings, state, now_s, np.moveaxis(beyond, 0, -1), usual)
        return replace(basis, log_level=found.log_level, spread=found.spread, room=found.room)

    return read_outlook(settings, basis, read_without_events, bursts, mixed)


def read_outlook(
    settings: Settings,
    basis: ReadoutBasis,
    read_at: Callable[[coverage.AtLead], Float],
    bursts: BurstOdds | None = None,
    mixed: Callable[[SmallFloat], ReadoutBasis] | None = None,
) -> Outlook:
    """Read an Outlook from its inputs.

    Args:
        settings: The settings of the series.
        basis: The inputs.
        read_at: Returns the probabilities at which quantiles at the lead time are read from their laws, float64 (N, Q).
        bursts: How likely bursts are, for people to read.
        mixed: Makes the probabilities above each edge take known events into account, in place, and returns the inputs that
            then apply.
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
    return Issued(quantiles, coverage.StatedQuantiles(law, shares), basis.evidence, laws, bursts)


_Part: TypeAlias = "tuple[SmallFloat, Float, Float, Float, Float, Float]"
"""Arguments of `_quantiles` for some of the series."""


class Issued(Outlook):
    """An Outlook that computes its quantiles when they are first read: policies that order by whole laws seldom read them.

    Args:
        parts: Arguments of `_quantiles` for consecutive parts of the series.
        at_lead_said: The laws at the lead time, and where their quantiles are read.
        evidence, laws, bursts: As in `Outlook`.

    Attributes:
        said: The laws at the lead time, and where their quantiles are read.
    """

    __slots__ = ("_cached", "_parts", "stated")
    _parts: Sequence[_Part]
    stated: coverage.StatedQuantiles
    _cached: tuple[Float, Float] | None

    def __init__(
        self,
        parts: Sequence[_Part],
        stated: coverage.StatedQuantiles,
        evidence: Float,
        laws: Laws | None,
        bursts: BurstOdds | None,
    ) -> None:
        set_field = object.__setattr__
        set_field(self, "_parts", parts)
        set_field(self, "_cached", None)
        set_field(self, "stated", stated)
        set_field(self, "evidence", evidence)
        set_field(self, "laws", laws)
        set_field(self, "bursts", bursts)

    def __reduce__(self) -> tuple[type[Outlook], tuple[object, ...]]:
        """Pickle as a plain Outlook, without the inputs of the quantiles."""
        return Outlook, (self.at_lead, self.peak, self.evidence, self.laws, self.bursts)

    def _quantiles(self) -> tuple[Float, Float]:
        """Return quantiles at the lead time and of the keep window's peak, float64 (Q, S) each."""
        cached = self._cached
        if cached is None:
            found = [_quantiles(*part) for part in self._parts]
            quantiles = found[0] if len(found) == 1 else np.concatenate(found)
            at_lead = quantiles[:, 0].T.copy()
            cached = at_lead, np.maximum(quantiles[:, 1].T, at_lead)
            set_field = object.__setattr__
            set_field(self, "_cached", cached)
            set_field(self, "_parts", ())
        return cached

    @property
    def at_lead(self) -> Float:
        """Quantiles of demand at the lead time, as in `Outlook`."""
        return self._quantiles()[0]

    @property
    def peak(self) -> Float:
        """Quantiles of the highest demand of the keep window, as in `Outlook`."""
        return self._quantiles()[1]


def _quantiles(
    beyond: SmallFloat, read_at: Float, log_level: Float, spread: Float, room: Float, offset: Float
) -> Float:
    """Return quantiles of demand at the lead time and over the keep window: float64 (S, 2, Q).

    They are read from the probabilities `beyond` (`tables.survival`), for the lead time at the probabilities `read_at`.
    Within a bin they are linear in the position (`core.laws`). The other arguments are those of `ReadoutBasis`.
    """
    log_level, spread, room = log_level[:, :2], spread[:, :2], room[:, :2]
    count = 2 * beyond.shape[1]
    first = np.zeros((LAW_BINS + 1, count), np.float32)
    if beyond.shape[2] % 2:
        first[:-1].reshape(LAW_BINS, -1, 2)[:] = beyond[:, :, :2]
    else:
        # Two horizons are copied as one number of twice the width: numpy copies pairs far slower.
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
    # If no edge is exceeded with that probability, the quantile is no demand.
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
    """Allocate laws, with unknown ones for the horizons that are not kept."""
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
    """Compute the laws of the horizons that are kept: integrate the probability of more demand from the last edge down."""
    series, horizons = spread.shape
    # Edges are along the first axis, series and horizons along the other.
    unit = spread.astype(np.float32).reshape(-1)
    most = np.minimum(room, MOST_LOG).astype(np.float32).reshape(-1)
    level_and_scale = np.exp(log_level)
    # Half of each demand, because the area between two edges is a mean of two probabilities. Halving is exact.
    half = (0.5 * level_and_scale).astype(np.float32).reshape(-1)
    least = (0.5 * scale).astype(np.float32).repeat(horizons)
    flat, far = beyond.reshape(LAW_BINS, -1), _far(unit, most)
    # For many laws, a few bins at a time, the last first, so that the data stays in the cache.
    length = LAW_BINS if len(unit) <= _FEW else _BINS_AT_ONCE
    excess, both = np.empty(flat.shape, np.float32), np.empty((length, len(unit)), np.float32)
    edges, none = np.empty((length + 1, len(unit)), np.float32), np.zeros_like(unit)
    for first in range(LAW_BINS - length, -1, -length):
        end = first + length
        if end < LAW_BINS:
            # The upper edge here is the lowest edge of the bins before.
            edges[-1] = edges[0]
            new = edges[:-1]
        else:
            new = edges
        np.multiply(_EDGES[first : first + len(new), np.newaxis], unit, out=new)
        if first + len(new) > far:
            # From here on, some law may exceed its room.
            wide = new[max(far - first, 0) :]
            np.minimum(wide, most, out=wide)
        np.exp(new, out=new)
        new *= half
        new -= least
        # With an array of zeros, because the maximum of an array and a number takes numpy far longer.
        np.maximum(new, none, out=new)
        # Between two edges, the probability of more demand falls linearly.
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
    """Return the first edge that may be farther than `most`, (N,), from the level, for the widest spread of `unit`, (N,)."""
    least, widest = float(np.fmin.reduce(most)), float(np.fmax.reduce(unit))
    if not least > 0.0:
        return 0
    return max(int(_EDGES.searchsorted(0.999 * least / widest)) - 1, 0)
