"""The forecaster's state per series, and how it survives when series are added, removed or changed.

Rules of this file: arrays are allocated once, series along their first axis. At most 80 kB per series.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from autoscaler.core.demand_falls import Falls
from autoscaler.core.forecast.level import FEATURES, PRODUCTS, fitted
from autoscaler.core.forecast.settings import (
    DAY_S,
    RING,
    Settings,
    days_back,
    horizon_count,
    horizon_ticks,
    slot_count,
)
from autoscaler.core.forecast.tables import PARENTS, REGIMES, ROWS
from autoscaler.core.params import SeriesParams
from autoscaler.core.state_base import Dumped, Remembered, length_of
from autoscaler.core.types import LAW_BINS, QUANTILE_LEVELS, Array, Code, Float, Horizon, Int, SmallFloat

if TYPE_CHECKING:
    from autoscaler.core.forecast.judging import Updates

Kind = TypeVar("Kind", Float, SmallFloat, Code)
LAST, USUAL, MEANS, SEASONS, TOP = 0, 1, slice(2, 7), slice(7, 10), 10
"""Columns of `SeriesState.track`."""
ONSETS, POINTS, GAPS = 128, 288, 16
"""Most onsets of bursts that are remembered; most lattice points in a day; numbers of points since the last burst that are
distinguished."""
FIRST_SIZE = 0.08
"""Mean size of the log error before any outcome. With the prior, 95 % of outcomes then lie below 1.2 times the last value."""


@dataclass(slots=True)
class SeriesState(Remembered):
    """Everything the forecaster remembers. Allocated once, and updated in place by `step`.

    Attributes:
        tick_s: Length of a tick.
        horizons: int64 (S, H), how far each horizon looks, in ticks.
        last_tick: Tick of the last step; -1 before the first.
        unborn: Number of series without a sample so far.
        track: float64 (S, 11), last demand, usual demand, five means, demand expected from earlier days, from earlier weeks
            and from their next steps (NaN if unknown), and the decaying maximum; NaN before the first sample.
        offset: float64 (S,), added to both sides of a ratio of demands: the scale, or the grain of the noise if that is
            coarser.
        miss: float64 (S,), mean distance of the outcome from the level at the lead time, work per second.
        ticks: int64 (S,), number of samples seen.
        swift: float64 (S,), demand averaged over some seconds, in which bursts are detected.
        weight: float64 (S,), weight of an outcome now; it grows each tick, so that older outcomes fade.
        base: float64 (S,), mean demand without bursts.
        median: float64 (S,), median of the latest slots.
        age_s, quiet_s: float64 (S,), age of the present burst, 0 if there is none; time since demand was last high.
        onsets: float64 (S, ONSETS), when bursts began, in a ring whose newest entry is at (`onset_count` - 1) modulo ONSETS;
            NaN if empty.
        onset_count: int64 (S,), number of onsets so far.
        period_s, phase_s: float64 (S,), the lattice on which bursts begin (`lattice`); a period of 0 if there is none.
        behind_s: float64 (S,), median delay of onsets after their lattice point.
        stray: float64 (S,), bursts per second that begin off the lattice.
        odds_of_day: float32 (S, POINTS), log odds of a burst at each lattice point of the day.
        odds_of_gap: float32 (S, GAPS), added to these, by the number of points since the last burst.
        last_point: float64 (S,), number of the lattice point at which a burst last began.
        lattices: Number of series that have a lattice.
        codes: uint16 (S, slots), codes of the mean demand of each slot (`history`); 0 if unknown.
        slot: The slot that is open; -1 before the first.
        slot_sum, slot_count: float64 (S,), sum and number of the samples in it.
        paces: float64 (S, 1 + D), means of the logarithm of demand: recently, and around the same time on each of D earlier
            days.
        tables: float32 (S, ROWS, H, LAW_BINS), histograms of weighted outcomes.
        totals: float64 (S, ROWS, H), sums of the histograms.
        sizes: float64 (S, PARENTS, H), mean size of the log error in each parent cell.
        shifts: float64 (S, PARENTS, H), mean log ratio of a peak to its level in each parent cell: how far peaks are above
            it.
        short: float64 (S, H), mean size of recent log errors over all cells.
        sums: float64 (S, REGIMES, PRODUCTS), sums that the level is fitted to.
        phase: int64 (S,), when a series is fitted, in ticks modulo the period of fits; -1 before its first sample.
        fits: float64 (S, REGIMES, FEATURES), the fitted weights.
        issued: float64 (S, RING, H, 3), forecasts that wait for their outcome: logarithm of level plus offset, spread, cell;
            NaN if empty.
        features: float64 (S, RING, FEATURES), features of those forecasts' levels at the lead time.
        ahead: float64 (S, RING), log ratios of those levels to the last value.
        fitted: float64 (S, RING), the same ratios by the fit alone, before it was doubted (`level.believed`).
        doubt: float64 (S, 2), means of recent squared log errors: of the fit alone, and of the last value.
        blocks: float64 (S, RING, H), highest demand of each block; NaN if unknown, infinite if censored.
        open: float64 (S, H), highest demand so far in the present block.
        high: float64 (S,), highest demand of the last window of the farthest horizon.
        read_at: float64 (S, Q), the probability at which each quantile at the lead time is read from its law (`coverage`).
        asked_at: int64 (S,), tick of the forecast whose outcome will move `read_at`; -1 if none waits.
        asked: float64 (S, Q + 3), that forecast: positions of its quantiles in bins, logarithm of level plus offset, spread,
            offset.
        falls: Sudden deep falls in demand, which may come back; one column per series.
        aside_track, aside_paces, aside_base, aside_median, aside_short, aside_doubt: The fields without the prefix, as they
            were before the last such fall (`demand_outages`).
        aside_slot: int64 (S,), slot of the history at that fall; -1 if nothing is to be restored.
        grown: Whether all series have seen `Settings.grown_ticks` samples.
        young_for: Samples until that may be so; 0 if it has to be computed.
        turns: The series that are fitted at each phase; None if it has to be computed.
        lessons: Outcomes that `sums` and `miss` do not contain yet (`apply_pending_updates`).
        unfitted: float64 (1, REGIMES, PRODUCTS), sums of the only series at its last fit, if the fits for bursts were put off
            then; None if nothing was put off.
        settings: The settings as `step` last compiled them; not dumped.

    In memory, arrays with an axis of slots, blocks or rows after the series have that axis first (`slots_first`): a tick reads
    and writes a few of these, mostly the same ones, for all series.
    """

    version: ClassVar[int] = 10
    reads: ClassVar[int] = 2
    tick_s: float
    horizons: Int
    last_tick: int
    unborn: int
    track: Float
    offset: Float
    miss: Float
    ticks: Int
    swift: Float
    weight: Float
    base: Float
    median: Float
    age_s: Float
    quiet_s: Float
    onsets: Float
    onset_count: Int
    period_s: Float
    phase_s: Float
    behind_s: Float
    stray: Float
    odds_of_day: SmallFloat
    odds_of_gap: SmallFloat
    last_point: Float
    lattices: int
    codes: Code
    slot: int
    slot_sum: Float
    slot_count: Float
    paces: Float
    tables: SmallFloat
    totals: Float
    sizes: Float
    shifts: Float
    short: Float
    sums: Float
    phase: Int
    fits: Float
    issued: Float
    features: Float
    ahead: Float
    fitted: Float
    doubt: Float
    blocks: Float
    open: Float
    high: Float
    read_at: Float
    asked_at: Int
    asked: Float
    falls: Falls
    aside_track: Float
    aside_paces: Float
    aside_base: Float
    aside_median: Float
    aside_short: Float
    aside_doubt: Float
    aside_slot: Int
    grown: bool = field(init=False, default=False, compare=False, repr=False)
    young_for: int = field(init=False, default=0, compare=False, repr=False)
    turns: dict[int, Int] | None = field(init=False, default=None, compare=False, repr=False)
    lessons: Updates | None = field(init=False, default=None, compare=False, repr=False)
    unfitted: Float | None = field(init=False, default=None, compare=False, repr=False)
    settings: Settings | None = field(init=False, default=None, compare=False, repr=False)

    @classmethod
    def empty(cls, params: SeriesParams) -> SeriesState:
        """Return a state without history for these series."""
        series, horizons = len(params.scale), horizon_count(params)
        unknown = slots_first(np.full((RING, series, horizons), np.nan))
        return cls(
            tick_s=params.tick_s,
            horizons=horizon_ticks(params),
            last_tick=-1,
            unborn=series,
            track=np.full((series, TOP + 1), np.nan),
            offset=params.scale.copy(),
            miss=np.zeros(series),
            ticks=np.zeros(series, np.int64),
            swift=np.full(series, np.nan),
            weight=np.ones(series),
            base=np.full(series, np.nan),
            median=np.full(series, np.nan),
            age_s=np.zeros(series),
            quiet_s=np.zeros(series),
            onsets=np.full((series, ONSETS), np.nan),
            onset_count=np.zeros(series, np.int64),
            period_s=np.zeros(series),
            phase_s=np.zeros(series),
            behind_s=np.zeros(series),
            stray=np.full(series, 0.5 / DAY_S),
            odds_of_day=np.zeros((series, POINTS), np.float32),
            odds_of_gap=np.zeros((series, GAPS), np.float32),
            last_point=np.full(series, -float(GAPS)),
            lattices=0,
            codes=slots_first(np.zeros((slot_count(params), series), np.uint16)),
            slot=-1,
            slot_sum=np.zeros(series),
            slot_count=np.zeros(series),
            paces=np.full((series, 1 + len(days_back(params))), np.nan),
            tables=slots_first(np.zeros((ROWS, series, horizons, LAW_BINS), np.float32)),
            totals=slots_first(np.zeros((ROWS, series, horizons))),
            sizes=slots_first(np.full((PARENTS, series, horizons), FIRST_SIZE)),
            shifts=slots_first(np.zeros((PARENTS, series, horizons))),
            short=np.full((series, horizons), FIRST_SIZE),
            sums=slots_first(np.zeros((REGIMES, series, PRODUCTS))),
            phase=np.full(series, -1),
            fits=slots_first(np.repeat(Settings.of(params).prior[np.newaxis], REGIMES, axis=0)),
            issued=slots_first(np.full((RING, series, horizons, 3), np.nan)),
            features=slots_first(np.zeros((RING, series, FEATURES))),
            ahead=slots_first(np.zeros((RING, series))),
            fitted=slots_first(np.zeros((RING, series))),
            doubt=np.zeros((series, 2)),
            blocks=unknown,
            open=np.full((series, horizons), np.nan),
            high=np.full(series, np.nan),
            read_at=_as_laws_have_them(series),
            asked_at=np.full(series, -1),
            asked=np.zeros((series, len(QUANTILE_LEVELS) + 3)),
            falls=Falls.empty(series),
            aside_slot=np.full(series, -1),
            **_nothing_aside(params),
        )

    def __post_init__(self) -> None:
        """Lay out arrays that are read by rows with their rows first."""
        for name in _BY_ROWS:
            array = getattr(self, name)
            setattr(self, name, np.ascontiguousarray(slots_first(array)).swapaxes(0, 1))

    def settle(self) -> None:
        """Apply everything that was put off, so that `sums`, `miss` and `fits` are up to date."""
        self.apply_pending_updates()
        self.fit_bursts()

    def apply_pending_updates(self) -> None:
        """Apply the outcomes that were put off to `sums` and `miss`."""
        if self.lessons is not None and self.settings is not None:
            self.lessons.settle(self.settings, self)

    def fit_bursts(self) -> None:
        """Compute the fits for bursts that were put off because there was no burst."""
        if self.unfitted is not None and self.settings is not None:
            self.fits[:] = fitted(self.unfitted, self.settings.prior)
            self.unfitted = None

    def dump(self) -> Dumped:
        """Return all fields and a version, for `restore`; shares nothing with the state."""
        self.settle()
        return Remembered.dump(self)

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """Return the fields that are states themselves, with their types."""
        return {"falls": Falls}

    @classmethod
    def added(cls, before: Dumped) -> Dumped:
        """Supply what version 8 lacks: quantiles are read at their own levels, and no forecast waits. Version 9 lacks nothing."""
        series = length_of(before["base"])
        nothing: Dumped = {
            "asked_at": np.full(series, -1),
            "asked": np.zeros((series, len(QUANTILE_LEVELS) + 3)),
            "read_at": _as_laws_have_them(series),
        }
        return {name: value for name, value in nothing.items() if name not in before}

    @property
    def evidence(self) -> Float:
        """float64 (S,), effective number of outcomes at the lead time behind the spread."""
        found: Float = self.totals[:, -1, 0] / self.weight
        return found

    def carried_over(self, params: SeriesParams, columns: Int) -> SeriesState:
        """Return the state for other series, each of which may continue one of these; this state is not changed.

        What was learned is kept. Forecasts that wait for their outcome are dropped if their horizon changes. The history, the
        open slot and what depends on them are dropped if the length of a slot changes.

        Args:
            params: The parameters of the other series, N of them.
            columns: int64 (N,), the earlier series that each one continues; -1 for a new one, which starts without history.
        """
        self.settle()
        new = SeriesState.empty(params)
        known = np.flatnonzero(columns >= 0)
        was = columns[known]
        same_tick, same_slots = self.tick_s == new.tick_s, self.codes.shape[1] == new.codes.shape[1]
        if same_tick:
            new.last_tick = self.last_tick
            new.falls = self.falls.of_columns(columns)
        if same_slots:
            new.slot = self.slot
        count = min(self.open.shape[1], new.open.shape[1])
        for name, mine in _arrays(self).items():
            theirs = getattr(new, name)
            if name == "horizons" or (name in _OF_SLOTS and not same_slots):
                continue
            if (axis := _HORIZON_AXIS.get(name)) is not None:
                mine, theirs = (np.moveaxis(each, axis, -1)[..., :count] for each in (mine, theirs))  # noqa: PLW2901
            theirs[known] = mine[was]
        changed = np.ones((len(columns), count), np.bool_)
        if same_tick:
            changed[known] = new.horizons[known, :count] != self.horizons[was, :count]
        new.asked_at[changed[:, Horizon.LEAD]] = -1
        for series, horizon in np.argwhere(changed):
            new.issued[series, :, horizon] = new.blocks[series, :, horizon] = np.nan
            new.open[series, horizon] = np.nan
        new.phase = np.where(new.phase >= 0, new.phase % Settings.of(params).refit_ticks, -1)
        new.count_unknown()
        return new

    def take_in(self, series: Int, other: SeriesState) -> None:
        """Copy some series from another state with the same parameters and at the same tick.

        Args:
            series: int64 (N,), the series to copy, which have the same places in both states.
            other: Not changed.

        Raises:
            ValueError: If the other state has other parameters or is at another tick.
        """
        self.settle()
        other.settle()
        mine, theirs = _arrays(self), _arrays(other)
        if (other.last_tick, other.slot) != (self.last_tick, self.slot) or any(
            array.shape != theirs[name].shape for name, array in mine.items()
        ):
            raise ValueError(f"a state at tick {other.last_tick} does not fit one at tick {self.last_tick}")
        for name, array in mine.items():
            array[series] = theirs[name][series]
        self.falls.take_in(series, other.falls, series)
        self.count_unknown()

    def count_unknown(self) -> None:
        """Recount what depends on several series, after some were replaced."""
        self.young_for, self.turns = 0, None
        self.unborn = int(np.count_nonzero(np.isnan(self.track[:, LAST])))
        self.lattices = int(np.count_nonzero(self.period_s))


def _as_laws_have_them(series: int) -> Float:
    """Return `read_at` without any correction: each quantile is read at its own level."""
    return np.tile(np.array(QUANTILE_LEVELS), (series, 1))


def _nothing_aside(params: SeriesParams) -> dict[str, Float]:
    """Return the `aside_` arrays of series whose demand never fell deeply."""
    series = len(params.scale)
    shapes = {
        "track": (series, TOP + 1),
        "paces": (series, 1 + len(days_back(params))),
        "base": (series,),
        "median": (series,),
        "short": (series, horizon_count(params)),
        "doubt": (series, 2),
    }
    return {f"aside_{name}": np.full(shape, np.nan) for name, shape in shapes.items()}


def slots_first(array: Kind) -> Kind:
    """Swap the first two axes of an array: series first and rows next, as in the state, or rows first, as in memory."""
    return array.swapaxes(0, 1)


_BY_ROWS = (
    *("codes", "issued", "features", "ahead", "fitted", "blocks"),
    *("tables", "totals", "sizes", "shifts", "sums", "fits"),
)
"""Arrays that are kept in memory with their rows first."""
_OF_SLOTS = {"codes", "slot_sum", "slot_count", "paces", "aside_paces", "aside_slot"}
"""Fields that depend on the length of a slot."""
_HORIZON_AXIS = {
    "tables": 2,
    "totals": 2,
    "sizes": 2,
    "shifts": 2,
    "short": 1,
    "aside_short": 1,
    "issued": 2,
    "blocks": 2,
    "open": 1,
}
"""The axis of horizons in each array that has one."""


def _arrays(state: SeriesState) -> dict[str, Array]:
    """Return the fields that are arrays, by name."""
    return {f.name: value for f in fields(state) if isinstance(value := getattr(state, f.name), np.ndarray)}
