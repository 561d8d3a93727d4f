"""The forecasts of the lanes: `forecast.step`, the same function as in the daemon, fed tick by tick.

A run needs one of several feeds, all with the same interface. If nothing that the plant does changes what is measured, lanes
that differ only in sizing share a series. The series is then stepped once over the trace, and its Outlooks are kept
(`Table`). If they would take too much memory, a few series are stepped some way ahead of the run (`Ahead`), and many series
step by step along with it (`Streamed`). If the plant does change what is measured (saturated VMs hide demand; in a fleet without
VMs in service nothing measures it), each lane has its own series, stepped together with the plant (`Lockstep`). If no lane needs a
forecast, none is made (`Blind`).

Rules of this file: no forecasting here, and no look-ahead: row k of a table is issued at tick k from what was known then.
The laws of a table name their page, so that equal questions about a whole page are worked out together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import numpy as np

from autoscaler.core.forecast import SampleRows, SeriesState, step, steps
from autoscaler.core.forecast.settings import horizon_count
from autoscaler.core.law_grid import LawPage, PagedLaws
from autoscaler.core.params import SeriesParams
from autoscaler.core.types import (
    LAW_BINS,
    QUANTILE_LEVELS,
    Float,
    Freshness,
    Horizon,
    Int,
    Laws,
    Outlook,
    Samples,
    SmallFloat,
)
from autoscaler.simulator.lanes.measuring import Metrics, Ticks

Name = TypeVar("Name", bound=Hashable)

_PAGE_LAWS, MOST_PAGED = 240, 8
"""Most laws of each horizon on a page, and most series of a paged table: with more series, few lanes ask the same."""
_LOOK_TICKS = 256
"""Ticks of measurements that are laid out at once, and ticks between two calls of `look`."""

_SERIES_FIELDS = tuple(f.name for f in fields(SeriesParams) if f.name != "tick_s")
_ASKED = ("laws", "refill_laws")


class Feed(Protocol):
    """Gives the Outlook of each tick; `series` says which of its columns each lane reads."""

    series: Int

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Return the Outlook issued at this tick, valid until the next call.

        Args:
            tick: Counted from the start of the run; ticks come one after the other.
            samples: What the lanes measured, for feeds that learn from it.
        """
        ...


class Blind:
    """Gives no forecast."""

    def __init__(self, lanes: int) -> None:
        self.series: Int = np.zeros(lanes, np.int64)
        unknown = np.full((len(QUANTILE_LEVELS), 1), np.nan)
        self._outlook = Outlook(unknown, unknown, np.zeros(1))

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Return an Outlook in which everything is unknown."""
        del tick, samples
        return self._outlook


class Lockstep:
    """Steps one series per lane, fed with what that lane measured."""

    def __init__(self, params: SeriesParams) -> None:
        self._params = params
        self._state = SeriesState.empty(params)
        self.series: Int = np.arange(len(params.lead_ticks))

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Step all series by one tick."""
        del tick
        return step(self._params, self._state, samples)


class Streamed:
    """Steps distinct series as the run goes on, for so many series that keeping their Outlooks is not worthwhile.

    Args:
        seen: What the metric pipeline of each distinct series shows.
        params: The distinct series.
        series: int64 (L,), the series of each lane.
        ticks: The ticks of the run.
    """

    def __init__(self, seen: Sequence[Metrics], params: SeriesParams, series: Int, ticks: Ticks) -> None:
        self.series = series
        self._ticks = ticks
        self._lockstep = Lockstep(params)
        self._seen = seen
        self._page, self._rows = range(0), _laid_out(seen, slice(0, 0))
        self._coverage, self._censored = np.ones(len(seen)), np.zeros(len(seen), np.bool_)

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Step all series by one tick."""
        del samples
        if tick not in self._page:
            self._page = range(tick, tick + _LOOK_TICKS)
            self._rows = _laid_out(self._seen, slice(tick, tick + _LOOK_TICKS))
        demand, observed_at_s, freshness = (rows[tick - self._page.start] for rows in self._rows)
        now_s = (self._ticks.first + tick) * self._ticks.tick_s
        mine = Samples(now_s, demand, observed_at_s, freshness, self._coverage, self._censored)
        return self._lockstep.at(tick, mine)


class Ahead:
    """Steps a few distinct series some hundred ticks ahead of the run, which takes a tenth of the time of `Streamed`.

    Args:
        seen: What the metric pipeline of each distinct series shows.
        params: The distinct series; there must be few.
        series: int64 (L,), the series of each lane.
        ticks: The ticks of the run.
    """

    def __init__(self, seen: Sequence[Metrics], params: SeriesParams, series: Int, ticks: Ticks) -> None:
        self.series = series
        self._params, self._first_tick = params, ticks.first
        self._samples = _recorded(seen, ticks)
        self._coming = steps(params, SeriesState.empty(params), self._samples)
        self._known = range(0)
        self._table: Table | None = None

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Return the Outlook of this tick, stepping ahead if it is not known yet."""
        while self._table is None or tick >= self._known.stop:
            outlook, first = next(self._coming), self._known.stop
            self._known = range(first, first + len(outlook.evidence) // len(self._params.scale))
            made = Outlooks.empty(len(self._known), self._params)
            made.keep(0, outlook)
            if made.demand is not None:
                made.demand[...] = self._samples.demand[first : self._known.stop]
            self._table = Table(made, self.series, None, self._first_tick + first)
        return self._table.at(tick - self._known.start, samples)


def issued(params: SeriesParams, demand: Float, ticks: Ticks) -> Iterator[Outlook]:
    """Yield all Outlooks of one series over a run, several ticks at a time.

    Args:
        params: Parameters of the one series.
        demand: float64 (T,), work per second as known at each tick; NaN if unknown.
        ticks: The ticks of the run.
    """
    freshness = np.where(np.isnan(demand), int(Freshness.ABSENT), int(Freshness.FRESH))[:, np.newaxis]
    uncensored = [np.zeros(1, np.bool_)] * ticks.count
    shown = SampleRows(ticks.times_s.tolist(), demand[:, np.newaxis], freshness, uncensored)
    return steps(params, SeriesState.empty(params), shown)


def _recorded(seen: Sequence[Metrics], ticks: Ticks) -> SampleRows:
    """Return the measurements of all series over the run, in the form that `steps` takes."""
    demand, _, freshness = _laid_out(seen, slice(0, ticks.count))
    uncensored = np.zeros(len(seen), np.bool_)
    return SampleRows(ticks.times_s.tolist(), demand, freshness, [uncensored] * len(demand))


def _laid_out(seen: Sequence[Metrics], ticks: slice) -> tuple[Float, Float, Int]:
    """Return demand, its observation time and its freshness for all series at some ticks: (n, S) each."""
    demand = np.stack([each.demand[ticks] for each in seen], axis=1)
    observed_at_s = np.stack([each.observed_at_s[ticks] for each in seen], axis=1)
    return demand, observed_at_s, np.stack([each.freshness[ticks] for each in seen], axis=1)


@dataclass(frozen=True, slots=True)
class Outlooks:
    """All Outlooks of S series over T ticks, as they were issued. The optional arrays are None if no lane asks for laws.

    Attributes:
        at_lead, peak: float64 (T, Q, S).
        evidence: float64 (T, S).
        scale: float64 (T, S), of the laws.
        level, spread: float64 (T, S, H), of the laws.
        excess: float32 (T, S, H, LAW_BINS + 1), of the laws.
        demand: float64 (T, S), the demand that lanes see at these ticks and that the forecasts follow from; NaN if unknown.
    """

    at_lead: Float
    peak: Float
    evidence: Float
    scale: Float | None = None
    level: Float | None = None
    spread: Float | None = None
    excess: SmallFloat | None = None
    demand: Float | None = None

    @classmethod
    def empty(cls, ticks: int, params: SeriesParams) -> Outlooks:
        """Return uninitialised arrays for this many ticks."""
        series, laws = len(params.scale), bool(params.laws.any())
        shape = (ticks, series, len(Horizon))
        return cls(
            at_lead=np.empty((ticks, len(QUANTILE_LEVELS), series)),
            peak=np.empty((ticks, len(QUANTILE_LEVELS), series)),
            evidence=np.empty((ticks, series)),
            scale=np.empty((ticks, series)) if laws else None,
            level=np.empty(shape) if laws else None,
            spread=np.empty(shape) if laws else None,
            excess=np.empty((*shape, LAW_BINS + 1), np.float32) if laws else None,
            demand=np.empty((ticks, series)) if laws else None,
        )

    def keep(self, first: int, outlook: Outlook) -> int:
        """Store an Outlook that `steps` has yielded for tick `first` and later ones; return the number of ticks."""
        series = self.evidence.shape[1]
        ticks: int = len(outlook.evidence) // series
        some = slice(first, first + ticks)
        for mine, theirs in ((self.at_lead, outlook.at_lead), (self.peak, outlook.peak)):
            mine[some] = theirs.reshape(-1, ticks, series).swapaxes(0, 1)
        self.evidence[some] = outlook.evidence.reshape(ticks, series)
        if outlook.laws is not None and self.level is not None:
            assert self.spread is not None
            assert self.excess is not None
            assert self.scale is not None
            for array, theirs in (
                (self.scale, outlook.laws.scale),
                (self.level, outlook.laws.level),
                (self.spread, outlook.laws.spread),
            ):
                array[some] = theirs.reshape(array[some].shape)
            self.excess[some] = outlook.laws.excess.reshape(self.excess[some].shape)
        return ticks

    def at(self, tick: int, page: LawPage | None = None, row: int = 0) -> Outlook:
        """Return the Outlook of a tick; with a page, its laws are those at `row` of that page."""
        laws = self._laws(tick, None)
        if laws is not None and page is not None:
            laws = PagedLaws(laws.level, laws.spread, laws.scale, laws.excess, page, row)
        return Outlook(self.at_lead[tick], self.peak[tick], self.evidence[tick], laws)

    def page(self, number: int, ticks: int, first_tick: int) -> LawPage | None:
        """Return the laws of page `number`, with `ticks` ticks per page (the last may be shorter); None if there are none.

        `first_tick` is the number of the table's first tick on the absolute grid.
        """
        some = slice(number * ticks, (number + 1) * ticks)
        laws = self._laws(some, None)
        if laws is None or not len(laws.scale):
            return None
        horizons = laws.level.shape[-1]
        joined = Laws(
            level=laws.level.reshape(-1, horizons),
            spread=laws.spread.reshape(-1, horizons),
            scale=laws.scale.reshape(-1),
            excess=laws.excess.reshape(-1, horizons, LAW_BINS + 1),
        )
        demand = None if self.demand is None else self.demand[some]
        return LawPage(joined, len(laws.scale), first_tick + number * ticks, demand)

    def at_each(self, ticks: Int, series: Int) -> Outlook:
        """Return an Outlook for lanes that are at different ticks; both arguments are int64 (L,)."""
        return Outlook(
            self.at_lead[ticks, :, series].T,
            self.peak[ticks, :, series].T,
            self.evidence[ticks, series],
            self._laws(ticks, series),
        )

    def _laws(self, tick: int | slice[int, int, None] | Int, series: Int | None) -> Laws | None:
        if self.level is None or self.spread is None or self.excess is None or self.scale is None:
            return None
        at = tick if series is None else (tick, series)
        return Laws(self.level[at], self.spread[at], self.scale[at], self.excess[at])

    @classmethod
    def beside(cls, parts: Sequence[Outlooks]) -> Outlooks:
        """Join the Outlooks of several series into one."""

        def joined(name: str, axis: int) -> Float | None:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays, axis=axis)

        at_lead, peak, evidence = joined("at_lead", 2), joined("peak", 2), joined("evidence", 1)
        assert at_lead is not None
        assert peak is not None
        assert evidence is not None
        excess = None if parts[0].excess is None else np.concatenate([part.excess for part in parts], axis=1)
        return cls(
            at_lead=at_lead,
            peak=peak,
            evidence=evidence,
            scale=joined("scale", 1),
            level=joined("level", 1),
            spread=joined("spread", 1),
            excess=excess,
            demand=joined("demand", 1),
        )

    def head(self, ticks: int) -> Outlooks:
        """Return the Outlooks of the first `ticks` ticks."""
        return Outlooks(
            at_lead=self.at_lead[:ticks],
            peak=self.peak[:ticks],
            evidence=self.evidence[:ticks],
            scale=None if self.scale is None else self.scale[:ticks],
            level=None if self.level is None else self.level[:ticks],
            spread=None if self.spread is None else self.spread[:ticks],
            excess=None if self.excess is None else self.excess[:ticks],
            demand=None if self.demand is None else self.demand[:ticks],
        )

    def one(self, series: int) -> Outlooks:
        """Return the Outlooks of one series."""
        only = slice(series, series + 1)
        return Outlooks(
            at_lead=self.at_lead[:, :, only],
            peak=self.peak[:, :, only],
            evidence=self.evidence[:, only],
            scale=None if self.scale is None else self.scale[:, only],
            level=None if self.level is None else self.level[:, only],
            spread=None if self.spread is None else self.spread[:, only],
            excess=None if self.excess is None else self.excess[:, only],
            demand=None if self.demand is None else self.demand[:, only],
        )


class Table:
    """Looks up Outlooks that were computed before.

    Args:
        outlooks: Of all ticks and series.
        series: int64 (L,), the series of each lane.
        shifts: int64 (L,), ticks that each lane is ahead of the first tick; None for no shifts.
        first_tick: Number of the run's first tick on the absolute grid.
    """

    def __init__(
        self, outlooks: Outlooks, series: Int, shifts: Int | None = None, first_tick: int = 0
    ) -> None:
        self._outlooks, self._first_tick = outlooks, first_tick
        self._columns = series
        self._shifts = shifts
        self.series: Int = series if shifts is None else np.arange(len(series))
        kept = outlooks.evidence.shape[1]
        self._per_page = _PAGE_LAWS // max(1, kept) if kept <= MOST_PAGED else 0
        self._page_number = 0
        self._page = outlooks.page(0, self._per_page, first_tick) if self._per_page else None

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Return the row of this tick."""
        del samples
        kept = self._outlooks
        if self._shifts is None:
            if not self._per_page:
                return kept.at(tick)
            number, row = divmod(tick, self._per_page)
            if number != self._page_number:
                self._page_number = number
                self._page = kept.page(number, self._per_page, self._first_tick)
            return kept.at(tick, self._page, row)
        # A lane that runs beyond the end of the table is past the ticks that count, so any row will do.
        rows = np.minimum(tick + self._shifts, len(kept.evidence) - 1)
        return kept.at_each(rows, self._columns)


MOST_KEPT_BYTES = 200 << 20
"""Most memory that kept Outlooks may take; enough for two years of one-minute ticks of two series, for example."""


def distinct_series(keys: Sequence[Name], params: SeriesParams) -> dict[tuple[Name, bytes], list[int]]:
    """Group lanes by the distinct series that they need.

    Args:
        keys: For each lane, a key that names the trace and the metric pipeline.
        params: Parameters of one series per lane.

    Returns:
        The lanes of each distinct series, by its key and the bytes of its parameters.
    """
    # Two series that differ only in whether laws are wanted are the same series.
    fields_of = [getattr(params, name) for name in _SERIES_FIELDS if name not in _ASKED]
    # One row of bytes per lane, because joining those of a thousand lanes field by field takes far longer.
    columns = [np.ascontiguousarray(each.T).view(np.uint8).reshape(len(keys), -1) for each in fields_of]
    settings = np.concatenate(columns, axis=1)
    found: dict[tuple[Name, bytes], list[int]] = {}
    for lane, (key, setting) in enumerate(zip(keys, settings, strict=True)):
        found.setdefault((key, setting.tobytes()), []).append(lane)
    return found


def kept_bytes(series: int, ticks: int, *, laws: bool = False) -> int:
    """Return the bytes that the Outlooks of this many series and ticks take."""
    one = (2 * len(QUANTILE_LEVELS) + 1) * 8
    if laws:
        one += len(Horizon) * (2 * 8 + (LAW_BINS + 1) * 4) + 8
    return series * ticks * one


class OutlookCache:
    """Keeps Outlooks by trace, metric pipeline and forecast setting, each computed once.

    Attributes:
        look: Called now and then while forecasts are made, which takes longer than anything else in a run. An exception that
            it raises ends the forecasting, and nothing is kept. None to call nothing.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Outlooks] = {}
        self.look: Callable[[], None] | None = None

    def table(
        self, keys: Sequence[Name], seen: Callable[[Name, Ticks], Metrics], params: SeriesParams, ticks: Ticks
    ) -> tuple[Outlooks, Int]:
        """Return the Outlooks of every lane's series, computing those that are not known yet.

        Args:
            keys: For each lane, a key that names the trace and the metric pipeline.
            seen: Returns what the pipeline of a key shows over some ticks.
            params: Parameters of one series per lane.
            ticks: The ticks of the run; part of the cache's key.

        Returns:
            The Outlooks of the distinct series, and int64 (L,), the series of each lane.
        """
        begin = (ticks.first, ticks.tick_s, horizon_count(params))
        groups = {(*begin, *name): lanes for name, lanes in distinct_series(keys, params).items()}
        # A longer run from the same beginning has the same Outlooks in its first ticks.
        missing = {
            name: lanes[0]
            for name, lanes in groups.items()
            if name not in self._known or len(self._known[name].evidence) < ticks.count
        }
        if missing:
            first = list(missing.values())
            made = _stepped(
                [seen(keys[lane], ticks) for lane in first], taken(params, first), ticks, self.look
            )
            for at, name in enumerate(missing):
                self._known[name] = made.one(at)
        parts = [self._known[name].head(ticks.count) for name in groups]
        both = parts[0] if len(parts) == 1 else Outlooks.beside(parts)
        series = np.empty(len(keys), np.int64)
        for at, lanes in enumerate(groups.values()):
            series[lanes] = at
        return both, series


def taken(params: SeriesParams, lanes: Sequence[int]) -> SeriesParams:
    """Return some of the series. All get laws if any lane wants them, since that lane may share one of these series."""
    at = np.array(lanes)
    some = SeriesParams(params.tick_s, *(getattr(params, name)[..., at] for name in _SERIES_FIELDS))
    laws, refill_laws = (np.full(len(at), bool(getattr(params, name).any())) for name in _ASKED)
    return replace(some, laws=laws, refill_laws=refill_laws)


def _stepped(
    seen: Sequence[Metrics], params: SeriesParams, ticks: Ticks, look: Callable[[], None] | None
) -> Outlooks:
    """Step all series over the run: side by side, or one after the other if there are few, which takes less time."""
    series = len(seen)
    made = Outlooks.empty(ticks.count, params)
    parts = [[at] for at in range(series)] if series <= _ONE_BY_ONE else [list(range(series))]
    for part in parts:
        mine = made if len(part) == series else made.one(part[0])
        _step_into(mine, [seen[at] for at in part], taken(params, part), ticks, look)
    return made


_ONE_BY_ONE = 3
"""Most series that are stepped one after the other."""


def _step_into(
    made: Outlooks,
    seen: Sequence[Metrics],
    params: SeriesParams,
    ticks: Ticks,
    look: Callable[[], None] | None,
) -> None:
    """Step series side by side over the run and store their Outlooks."""
    samples = _recorded(seen, ticks)
    if made.demand is not None:
        made.demand[...] = samples.demand
    done, looked = 0, 0
    for outlook in steps(params, SeriesState.empty(params), samples):
        done += made.keep(done, outlook)
        if look is not None and done >= looked:
            look()
            looked = done + _LOOK_TICKS
