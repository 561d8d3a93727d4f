"""State of the competing models (`competition`): their shadow fleets, and what each would have cost.

How the models of a lane fare follows from demand, prices and times alone, so variants of a policy that agree in all of these need not
each keep it: they share a column while they see the same. A lane that sees something different in a tick gets its own column from then
on, as a copy of the shared one; so nothing depends on sharing but the time taken. Lanes that find their price from their own misses
share with no other.

Rules of this file: state, and how it is carried over to other lanes; nothing is charged here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.demand_falls import Falls
from autoscaler.core.objective.habits import Habits
from autoscaler.core.objective.models import (
    BAND_TOPS,
    CAREFUL,
    FALLS_S,
    MODELS,
    PAST_S,
    PRICE_FACTORS,
    Kind,
    rows_of,
)
from autoscaler.core.params import LaneParams
from autoscaler.core.state_base import Dumped, Remembered, columns_before, take_columns
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallFloat, SmallInt
from autoscaler.core.windows import RollingMax

ShadowType: TypeAlias = np.dtype[np.int32]
"""Type of counts of shadows' VMs: int32, or int16 or int8 where no policy allows more."""
AS_THE_WHOLE = -1
"""Marks a band without a driver of its own: the whole fleet's driver drives there."""
_COUNTS = ("serving", "coming", "young", "ordered")
"""Fields that count shadows' VMs."""
_BY_COLUMN = (
    "lead_ticks",
    "billed_ticks",
    "falling",
    "weight",
    "lately",
    "paid",
    "unserved",
    "nearly",
    "crowd",
    "ticks",
    "asked",
    "wanted",
    "needed",
    "spent",
    "driver",
    "below",
    "below_weight",
    "below_ticks",
    "drivers",
)
"""All other fields with a number for each column."""
_WEIGHED = (
    "paid",
    "unserved",
    "nearly",
    "crowd",
    "spent",
    "ticks",
    "wanted",
    "needed",
    "weight",
    "below_weight",
    "below_ticks",
)
"""Sums in which each tick counts by its weight."""


_BY_MODEL = (*_COUNTS, "lately", "paid", "unserved", "nearly", "crowd", "below")
"""Fields with a number for each model."""
_DAYS = slice(rows_of(Kind.AVERAGE_DAY).start, rows_of(Kind.ANY_DAY).stop)


class DeferredUpdate(Protocol):
    """Work that was put off: some ticks have been seen, and are not in the trial's sums yet."""

    def settle(self, state: Trial) -> None:
        """Bring the trial up to date, in place."""
        ...


def competition_groups(params: LaneParams, lanes: Int, before: Int | None = None) -> ColumnGroups:
    """Group lanes that agree in everything given on which their models depend.

    Args:
        params: The policies, L lanes.
        lanes: int64 (k,), lanes that have an objective.
        before: int64 (k,), equal for lanes that share a past; -1 for lanes without one. None if no lane has a past.
    """
    return ColumnGroups(
        params.series[lanes],
        params.vm_capacity[lanes],
        params.shortage_price[lanes],
        np.where(params.unserved_target[lanes] > 0.0, 1 + np.arange(len(lanes)), 0),
        params.start_cost[lanes],
        params.hold_ticks[lanes],
        params.lead_ticks[lanes],
        params.billed_ticks[lanes],
        np.minimum(params.minimum[lanes], MOST_VMS),
        np.minimum(params.maximum[lanes], MOST_VMS),
        np.zeros(len(lanes)) if before is None else before,
    )


@dataclass(slots=True)
class Trial(Remembered):
    """State of the lanes whose models compete, in n columns.

    Sums "by weight" count each tick with the `weight` of its time. The weight grows from tick to tick, so old ticks fade. R
    is the longest time of a start with its billed part, in ticks, plus 1.

    Attributes:
        lanes: int64 (k,), the lanes with an objective, ascending.
        column: int64 (k,), the column of each lane. Columns are in the order of the first lanes that have them.
        lead_ticks, billed_ticks: int64 (n,), as in `LaneParams`.
        peaks: Rolling maxima of demand in 1024ths of a VM, for (window, n) in one row.
        lows: Rolling maxima of `MOST_VMS` minus demand, in the same unit, for (n,): the minima of demand over the time of a
            start and one tick.
        habits: The demand that is usual.
        falls: How deep demand falls at once, and what is held for demand that may come back.
        falling: float64 (F, n), maximum of demand in VMs, decaying with each half-life of `FALLS_S`.
        serving: int32 (M, n), VMs in service in each model's shadow. Counts are int16 or int8 after `count_in` says so, and
            int32 in dumps.
        coming: int32 (M, n), VMs ordered and not yet in service.
        young: int32 (M, n), VMs in service whose minimum billing time is not over, so that stopping them saves nothing.
        ordered: int32 (R, M, n), VMs that enter service at each tick, by tick modulo R.
        weight: float64 (n,), weight of the last tick.
        lately: float32 (3, M, n), costs since models were last compared, which are not yet in the sums below: VM-ticks and
            starts paid for, VM-ticks of unserved work, and the same had demand been `charging.MORE` times as high.
        paid: float64 (M, n), VM-ticks and starts paid for, by weight.
        unserved: float64 (M, n), VM-ticks of work that found no VM, by weight.
        nearly: float64 (M, n), the unserved work had demand been `charging.MORE` times as high, by weight.
        crowd: float64 (M, n), the unserved work had a crowd come that was never seen, by weight.
        ticks: float64 (n,), ticks charged for, by weight.
        asked: float64 (n,), the part of `ticks` that is accounted for in `crowd`.
        wanted: float64 (n,), VM-ticks of work, by weight.
        needed: float64 (n,), the least cost possible in hindsight, without starts, in VM-ticks, by weight.
        spent: float64 (n,), cost of earlier drivers while they drove, minus the cost that the present driver would have had
            until it began to drive, at the prices when the drivers changed, by weight.
        driver: int64 (n,), the model that drives.
        below: float32 (3, B, M, n), `paid`, `unserved` and `nearly` of the VMs up to each of `BAND_TOPS`, from one tick in
            every three minutes. The last includes an unseen crowd. Divided by `below_weight`.
        below_weight, below_ticks: float64 (n,), `weight` and `ticks` when bands were last compared.
        drivers: int64 (B, n), the model that drives in each band; `AS_THE_WHOLE` if it is the fleet's driver.
        last_tick: The tick of the last step; -1 before the first.
        owed: Work that was put off, by its name. Code that reads the sums must call `settle` first. Not dumped.
    """

    version: ClassVar[int] = 9
    reads: ClassVar[int] = 1
    lanes: Int
    column: Int
    lead_ticks: Int
    billed_ticks: Int
    peaks: RollingMax
    lows: RollingMax
    habits: Habits
    falls: Falls
    falling: Float
    serving: SmallInt
    coming: SmallInt
    young: SmallInt
    ordered: SmallInt
    weight: Float
    lately: SmallFloat
    paid: Float
    unserved: Float
    nearly: Float
    crowd: Float
    ticks: Float
    asked: Float
    wanted: Float
    needed: Float
    spent: Float
    driver: Int
    below: SmallFloat
    below_weight: Float
    below_ticks: Float
    drivers: Int
    last_tick: int
    owed: dict[str, DeferredUpdate] = field(init=False, default_factory=dict, compare=False, repr=False)

    @classmethod
    def empty(cls, params: LaneParams) -> Trial:
        """Return a state without history for the lanes that have an objective."""
        lanes = np.flatnonzero(params.economic)
        return cls._empty(params, lanes, competition_groups(params, lanes))

    @classmethod
    def _empty(cls, params: LaneParams, everyone: Int, alike: ColumnGroups) -> Trial:
        lanes = everyone[alike.first]
        shape = (len(MODELS), len(lanes))
        lead, billed = params.lead_ticks[lanes], params.billed_ticks[lanes]
        rows = int((lead + billed).max(initial=0)) + 1
        driver = np.full(len(lanes), CAREFUL)
        bands = 3, len(BAND_TOPS), *shape
        return cls(
            lanes=everyone,
            column=alike.group,
            lead_ticks=lead,
            billed_ticks=billed,
            peaks=RollingMax.empty(_windows(params.tick_s, len(lanes))),
            lows=RollingMax.empty(lead + 1),
            habits=Habits.empty(len(lanes), len(PRICE_FACTORS), params.tick_s),
            falls=Falls.empty(len(lanes)),
            falling=np.zeros((len(FALLS_S), len(lanes))),
            serving=np.zeros(shape, np.int32),
            coming=np.zeros(shape, np.int32),
            young=np.zeros(shape, np.int32),
            ordered=np.zeros((rows, *shape), np.int32),
            weight=np.ones(len(lanes)),
            lately=np.zeros((3, *shape), np.float32),
            paid=np.zeros(shape),
            unserved=np.zeros(shape),
            nearly=np.zeros(shape),
            crowd=np.zeros(shape),
            ticks=np.zeros(len(lanes)),
            asked=np.zeros(len(lanes)),
            wanted=np.zeros(len(lanes)),
            needed=np.zeros(len(lanes)),
            spent=np.zeros(len(lanes)),
            driver=driver,
            below=np.zeros(bands, np.float32),
            below_weight=np.ones(len(lanes)),
            below_ticks=np.zeros(len(lanes)),
            drivers=np.full((len(BAND_TOPS), len(lanes)), AS_THE_WHOLE),
            last_tick=-1,
        )

    @classmethod
    def added(cls, before: Dumped) -> Dumped:
        """Supply what version 8 lacks: models by the days of a week, as if they had done what the careful model did."""
        found: Dumped = {}
        for name in _BY_MODEL:
            each = before[name]
            assert isinstance(each, np.ndarray)
            careful = each.take([CAREFUL] * (_DAYS.stop - _DAYS.start), axis=-2)
            found[name] = np.concatenate(
                [each[..., : _DAYS.start, :], careful, each[..., _DAYS.start :, :]], axis=-2
            )
        for name in ("driver", "drivers"):
            each = before[name]
            assert isinstance(each, np.ndarray)
            found[name] = np.where(each < _DAYS.start, each, each + (_DAYS.stop - _DAYS.start))
        return found

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """Return the fields that are states themselves, with their types."""
        return {"peaks": RollingMax, "lows": RollingMax, "habits": Habits, "falls": Falls}

    def settle(self, *what: str) -> None:
        """Do the work that was put off, or only the named kinds of it; the results do not depend on when this happens."""
        for name in what or tuple(self.owed):
            each = self.owed.pop(name, None)
            if each is not None:
                each.settle(self)

    def carried_over(self, after: LaneParams, lanes: Int) -> Trial:
        """Return the state for other lanes, each of which may continue one of these; this state is not changed.

        The models' costs are kept. Shadows' VMs on their way are kept only if the times of a start are the same.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the earlier lane that each one continues; -1 for a new lane.
        """
        self.settle()
        economic = np.flatnonzero(after.economic)
        lane = columns_before(self.lanes, economic, lanes)
        column = np.where(lane >= 0, self.column[lane] if len(self.lanes) else -1, -1)
        alike = competition_groups(after, economic, column)
        new = Trial._empty(after, economic, alike)
        was = column[alike.first]
        new.last_tick = self.last_tick
        columns = len(self.weight)
        new.peaks = self.peaks.carried_over(_windows(after.tick_s, len(was)), _tiled(was, columns))
        new.lows = self.lows.carried_over(new.lead_ticks + 1, was)
        new.habits = self.habits.carried_over(was, after.tick_s)
        new.falls = self.falls.of_columns(was)
        known = was >= 0
        old = was[known]
        for name in (
            "serving",
            "lately",
            "paid",
            "unserved",
            "nearly",
            "crowd",
            "falling",
            "below",
            "below_weight",
            "below_ticks",
            "drivers",
        ):
            getattr(new, name)[..., known] = getattr(self, name)[..., old]
        for name in ("weight", "ticks", "asked", "wanted", "needed", "spent", "driver"):
            getattr(new, name)[known] = getattr(self, name)[old]
        same = np.zeros(len(was), np.bool_)
        same[known] = (new.lead_ticks[known] == self.lead_ticks[old]) & (
            new.billed_ticks[known] == self.billed_ticks[old]
        )
        old = was[same]
        for name in ("coming", "young"):
            getattr(new, name)[:, same] = getattr(self, name)[:, old]
        span = new.lead_ticks + new.billed_ticks
        for to, at in zip(np.flatnonzero(same).tolist(), old.tolist(), strict=True):
            first = self.last_tick - int(new.billed_ticks[to])
            for tick in range(first, first + int(span[to]) + 1):
                new.ordered[tick % len(new.ordered), :, to] = self.ordered[tick % len(self.ordered), :, at]
        return new

    def take_in(self, lanes: Int, other: Trial) -> None:
        """Copy the models of some lanes from another state with the same parameters and at the same tick.

        Args:
            lanes: int64 (N,), lanes of both states.
            other: Its lanes get columns of their own; nothing else about it changes.

        Raises:
            ValueError: If the other state has other parameters or is at another tick.
        """
        found = []
        for state in (self, other):
            state.settle()
            some = np.isin(state.lanes, lanes)
            state.part(some)
            state.count_in(np.dtype(np.int32))
            found.append(state.column[some])
        mine, theirs = found
        if not len(mine):
            return
        if self.ordered.shape[:2] != other.ordered.shape[:2] or len(mine) != len(theirs):
            raise ValueError("models of other parameters do not fit")
        take_columns(self, mine, other, theirs, (*_COUNTS, *_BY_COLUMN), when=("last_tick",))
        self.habits.take_in(mine, other.habits, theirs)
        self.falls.take_in(mine, other.falls, theirs)
        self.lows.take_in(mine, other.lows, theirs)
        windows = np.arange(len(PAST_S) - 1)[:, np.newaxis]
        self.peaks.take_in(
            (windows * len(self.weight) + mine).reshape(-1),
            other.peaks,
            (windows * len(other.weight) + theirs).reshape(-1),
        )

    def part(self, lanes: Bool) -> None:
        """Give lanes columns of their own, including all lanes that share a column with one of them.

        Args:
            lanes: bool (k,), the lanes to separate.
        """
        self.settle()
        apart = np.zeros(len(self.weight), np.bool_)
        apart[self.column[lanes]] = True
        of_its_own = len(apart) + np.arange(len(self.column))
        alike = ColumnGroups(np.where(apart[self.column], of_its_own, self.column))
        was, before = self.column[alike.first], len(apart)
        self.column = alike.group
        windows = self.peaks.window_ticks.reshape(-1, before)[:, was].reshape(-1)
        self.peaks = self.peaks.carried_over(windows, _tiled(was, before))
        self.lows = self.lows.carried_over(self.lows.window_ticks[was], was)
        self.habits = self.habits.of_columns(was)
        self.falls = self.falls.of_columns(was)
        for name in (*_COUNTS, *_BY_COLUMN):
            setattr(self, name, getattr(self, name).take(was, axis=-1))

    def count_in(self, counts: ShadowType) -> None:
        """Convert the counts of shadows to another integer type, which must be wide enough."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name).astype(counts))

    def dump(self) -> Dumped:
        """Return all fields and a version, for `restore`, with counts as int32."""
        self.settle()
        dumped = Remembered.dump(self)
        for name in _COUNTS:
            dumped[name] = getattr(self, name).astype(np.int32)
        return dumped

    def lighten(self, lighter: Float) -> None:
        """Divide all weighted sums by a factor, float64 (n,), before they lose precision. Everything must be settled."""
        for name in _WEIGHED:
            each = getattr(self, name)
            np.divide(each, lighter, out=each)
        self.asked = self.ticks

    def all_arrived(self) -> None:
        """Let all ordered VMs arrive and pass their billed time, after a gap longer than any start takes."""
        self.serving += self.coming
        for part in (self.coming, self.young, self.ordered):
            part.fill(0)


def _windows(tick_s: float, lanes: int) -> Int:
    """Return the windows of `peaks` in ticks, for (window, lane) in one row."""
    ticks = [max(1, int(np.ceil(past_s / tick_s - 1e-9)) + 1) for past_s in list(PAST_S.values())[1:]]
    return np.repeat(np.array(ticks, np.int64), lanes)


def _tiled(was: Int, before: int) -> Int:
    """Return the place in `peaks` that each (window, column) continues, int64; -1 for new columns."""
    return np.concatenate(
        [np.where(was >= 0, was + window * before, -1) for window in range(len(PAST_S) - 1)]
    )
