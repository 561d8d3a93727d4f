"""Where the lanes' forecasts come from: `forecast.step`, the very function of the daemon, fed tick by tick.

Three feeds of one shape. Lanes that differ in sizing only share a series, and where nothing that the plant does
changes what is measured, a series is stepped once over the trace and kept (`Table`). Where it does (VMs that
saturate hide demand; a fleet without VMs in service is measured by nobody), each lane has a series of its own, stepped
beside the plant (`Lockstep`). Where nobody asks for a forecast there is none (`Blind`).

Rules of this file: no forecasting here, and no look-ahead: row k of a table is issued at tick k from what was
known then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.params import SeriesParams
from autoscaler.core.types import QUANTILE_LEVELS, Float, Int, Outlook, Samples
from autoscaler.simulator.lanes.measuring import Seen, Ticks

Name = TypeVar("Name", bound=Hashable)

_SERIES_FIELDS = ("lead_ticks", "keep_ticks", "half_life_ticks", "scale")


class Feed(Protocol):
    """Gives the Outlook of each tick; `series` says which column of it a lane reads."""

    series: Int

    def at(self, tick: int, samples: Samples) -> Outlook:
        """The Outlook issued at this tick of the run, valid until the next call.

        Args:
            tick: From the start of the run, one after the other.
            samples: What the lanes measured, for feeds that learn from it.
        """
        ...


class Blind:
    """No forecast."""

    def __init__(self, lanes: int) -> None:
        self.series: Int = np.zeros(lanes, np.int64)
        unknown = np.full((len(QUANTILE_LEVELS), 1), np.nan)
        self._outlook = Outlook(unknown, unknown, np.zeros(1))

    def at(self, tick: int, samples: Samples) -> Outlook:
        """Unknown throughout."""
        del tick, samples
        return self._outlook


class Lockstep:
    """One series per lane, fed with what that lane measured."""

    def __init__(self, params: SeriesParams) -> None:
        self._params = params
        self._state = SeriesState.empty(params)
        self.series: Int = np.arange(len(params.lead_ticks))

    def at(self, tick: int, samples: Samples) -> Outlook:
        """One step."""
        del tick
        return step(self._params, self._state, samples)


class Streamed:
    """Distinct series stepped as the run goes on, for so many of them that their Outlooks are not worth keeping.

    Args:
        seen: What each series' pipeline shows, one per distinct series.
        params: The distinct series.
        series: int64 (L,), the series of each lane.
        ticks: The run.
    """

    def __init__(self, seen: Sequence[Seen], params: SeriesParams, series: Int, ticks: Ticks) -> None:
        self.series = series
        self._ticks = ticks
        self._lockstep = Lockstep(params)
        self._seen = seen
        self._coverage, self._censored = np.ones(len(seen)), np.zeros(len(seen), np.bool_)

    def at(self, tick: int, samples: Samples) -> Outlook:
        """One step."""
        del samples
        demand, observed_at_s = (
            np.array([getattr(each, name)[tick] for each in self._seen])
            for name in ("demand", "observed_at_s")
        )
        freshness = np.array([each.freshness[tick] for each in self._seen])
        now_s = (self._ticks.first + tick) * self._ticks.tick_s
        mine = Samples(now_s, demand, observed_at_s, freshness, self._coverage, self._censored)
        return self._lockstep.at(tick, mine)


@dataclass(frozen=True, slots=True)
class Outlooks:
    """Every Outlook of S series over T ticks, as they were issued.

    Attributes:
        at_lead, peak: float64 (T, Q, S).
        evidence: float64 (T, S).
    """

    at_lead: Float
    peak: Float
    evidence: Float


class Table:
    """Outlooks that were computed before, looked up.

    Args:
        outlooks: Of all ticks and series.
        series: int64 (L,), the series of each lane.
        shifts: int64 (L,), ticks that each lane is ahead of the first tick; None for none.
    """

    def __init__(self, outlooks: Outlooks, series: Int, shifts: Int | None = None) -> None:
        self._outlooks = outlooks
        self._columns = series
        self._shifts = shifts
        self.series: Int = series if shifts is None else np.arange(len(series))

    def at(self, tick: int, samples: Samples) -> Outlook:
        """A row."""
        del samples
        kept = self._outlooks
        if self._shifts is None:
            return Outlook(kept.at_lead[tick], kept.peak[tick], kept.evidence[tick])
        # A lane that runs on beyond the end of the table is one whose ticks do not count there.
        rows = np.minimum(tick + self._shifts, len(kept.evidence) - 1)
        return Outlook(
            kept.at_lead[rows, :, self._columns].T,
            kept.peak[rows, :, self._columns].T,
            kept.evidence[rows, self._columns],
        )


MOST_KEPT_BYTES = 200 << 20
"""Outlooks of more than this are not kept: two years of one-minute ticks of two series, say."""


def distinct_series(
    keys: Sequence[Name], params: SeriesParams
) -> dict[tuple[Name, tuple[float, ...]], list[int]]:
    """The lanes of each distinct series, by what makes it one.

    Args:
        keys: One per lane: what names the trace and the pipeline.
        params: One series per lane.
    """
    found: dict[tuple[Name, tuple[float, ...]], list[int]] = {}
    settings = zip(*(getattr(params, name).tolist() for name in _SERIES_FIELDS), strict=True)
    for lane, (key, setting) in enumerate(zip(keys, settings, strict=True)):
        found.setdefault((key, setting), []).append(lane)
    return found


def kept_bytes(series: int, ticks: int) -> int:
    """What the Outlooks of so many series over so many ticks take."""
    return series * ticks * (2 * len(QUANTILE_LEVELS) + 1) * 8


class OutlookCache:
    """Outlooks by trace, pipeline and forecast setting, each computed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Outlooks] = {}

    def table(
        self, keys: Sequence[Name], seen: Callable[[Name, Ticks], Seen], params: SeriesParams, ticks: Ticks
    ) -> tuple[Outlooks, Int]:
        """The Outlooks of every lane's series.

        Args:
            keys: One per lane: what names the trace and the pipeline.
            seen: What the pipeline of a key shows over some ticks.
            params: One series per lane.
            ticks: The run; part of what is cached by.

        Returns:
            The Outlooks of the distinct series, and int64 (L,) which of them a lane has.
        """
        groups = {(ticks, *name): lanes for name, lanes in distinct_series(keys, params).items()}
        missing = {name: lanes[0] for name, lanes in groups.items() if name not in self._known}
        if missing:
            first = list(missing.values())
            made = _stepped([seen(keys[lane], ticks) for lane in first], taken(params, first), ticks)
            for at, name in enumerate(missing):
                self._known[name] = Outlooks(
                    made.at_lead[:, :, at], made.peak[:, :, at], made.evidence[:, at]
                )
        parts = [self._known[name] for name in groups]
        both = Outlooks(
            np.stack([part.at_lead for part in parts], axis=2),
            np.stack([part.peak for part in parts], axis=2),
            np.stack([part.evidence for part in parts], axis=1),
        )
        series = np.empty(len(keys), np.int64)
        for at, lanes in enumerate(groups.values()):
            series[lanes] = at
        return both, series


def taken(params: SeriesParams, lanes: Sequence[int]) -> SeriesParams:
    """Some of the series."""
    at = np.array(lanes)
    return SeriesParams(params.tick_s, *(getattr(params, name)[at] for name in _SERIES_FIELDS))


def _stepped(seen: Sequence[Seen], params: SeriesParams, ticks: Ticks) -> Outlooks:
    """Step all series over the run, side by side."""
    series = len(seen)
    made = Outlooks(
        np.empty((ticks.count, len(QUANTILE_LEVELS), series)),
        np.empty((ticks.count, len(QUANTILE_LEVELS), series)),
        np.empty((ticks.count, series)),
    )
    state = SeriesState.empty(params)
    demand, observed_at_s, freshness = (
        np.stack([getattr(each, name)[: ticks.count] for each in seen], axis=1)
        for name in ("demand", "observed_at_s", "freshness")
    )
    coverage, censored = np.ones(series), np.zeros(series, np.bool_)
    for tick, now_s in enumerate(ticks.times_s.tolist()):
        samples = Samples(now_s, demand[tick], observed_at_s[tick], freshness[tick], coverage, censored)
        outlook = step(params, state, samples)
        made.at_lead[tick], made.peak[tick], made.evidence[tick] = (
            outlook.at_lead,
            outlook.peak,
            outlook.evidence,
        )
    return made
