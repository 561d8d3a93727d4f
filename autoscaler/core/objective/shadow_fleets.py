"""Advances shadow fleets over many future ticks at once, in replays (`ahead`) in which all columns see the same.

Columns that see the same, with equal start times, differ only in prices and bounds. Plain models ignore prices, so the shadows of one
such model are the same in all columns with the same bounds: they are kept once, as a cell. Of all VMs in service or on their way,
only those past their minimum billing time may go, so the state of a shadow after a tick follows from its state before, its wish, and
its recent orders: three comparisons. Costs are added up when models are compared, in the order of ticks. So nothing depends on any of
this but the time taken.

Rules of this file: a trial is refused unless its columns are bit-identical where they must be. No reduction over lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoscaler.core.column_groups import ColumnGroups, Number
from autoscaler.core.objective.bands import Bands
from autoscaler.core.objective.charging import CHARGES, ShadowCharges, needs_of
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.habits import CROWD
from autoscaler.core.objective.models import MODELS
from autoscaler.core.objective.plain_models import PLAIN
from autoscaler.core.types import Float, Int, SmallFloat, SmallInt

_FEWEST = np.float32(1e-9)
"""VMs that replace 0 in divisors."""
_BLOCK = 12_000
"""Most numbers that are charged for at once, so that they stay in the cache."""
_OF_SHADOWS = (
    "serving",
    "coming",
    "young",
    "ordered",
    "lately",
    "paid",
    "unserved",
    "nearly",
    "crowd",
    "below",
)
"""Fields of a trial with a number for each shadow."""
_OF_COLUMNS = ("weight", "ticks", "asked", "wanted", "below_weight", "below_ticks")
_OF_HABITS = ("highest", "beyond", "allowed")
"""Fields of a trial (`_OF_COLUMNS`) and of its habits (`_OF_HABITS`) that must be equal in all columns."""


class Cells:
    """Maps the shadows of M models in n columns to C cells: shadows in the same cell are always equal.

    The shadows of a plain model share a cell in all columns of a group, of which there are G. All other shadows have cells of
    their own. Cells are ordered by model, then by column.

    Args:
        least, most: int64 (n,), the policies' bounds of VMs.
        start_cost: float32 (n,), price of one start.

    Attributes:
        alike: Groups of columns with the same bounds and price of a start.
        first: int64 (C,), the first place of each cell in the flat (M, n).
        cell: int64 (M * n,), the cell at each place.
        column: int64 (C,), the column of each cell's first place.
        all_apart: Whether every shadow has a cell of its own.
    """

    def __init__(self, least: Int, most: Int, start_cost: SmallFloat) -> None:
        columns, self.alike = len(least), ColumnGroups(least, most, start_cost.astype(np.float64))
        place = np.arange(len(MODELS) * columns).reshape(len(MODELS), columns)
        first, plain = place.copy(), place[PLAIN]
        first[PLAIN] = self.alike.spread(self.alike.of_first(plain))
        self.first, cell = np.unique(first, return_inverse=True)
        self.cell: Int = cell.reshape(-1)
        self.all_apart = len(self.first) == len(self.cell)
        self.column = self.first % columns
        self._shape = len(MODELS), columns
        self._least, self._most = least.take(self.column), most.take(self.column)

    def few(self, value: Number) -> Number:
        """Return the values of cells, (..., C), from those of shadows, (..., M, n)."""
        found: Number = value.reshape(*value.shape[:-2], -1).take(self.first, axis=-1)
        return found

    def spread(self, few: Number) -> Number:
        """Return the values of shadows, (..., M, n), from those of cells, (..., C)."""
        found: Number = few.take(self.cell, axis=-1)
        return found.reshape(*few.shape[:-1], *self._shape)

    def spread_into(self, few: Float, out: Float) -> Float:
        """Write the values of shadows into a contiguous array, (M, n), from those of cells, (C,); return the array."""
        # Only with this mode does numpy write straight into the array.
        few.take(self.cell, out=out.reshape(-1), mode="clip")
        return out

    def parts(self, value: SmallInt) -> tuple[SmallInt, SmallInt, SmallInt]:
        """Return views of the values of cells, (..., C), by kind of model.

        Returns:
            Models before the plain ones, (..., m, n), plain models, (..., m, G), and models after them, (..., m, n).
        """
        models, columns = self._shape
        groups, before = len(self.alike.first), PLAIN.start * columns
        after = before + (PLAIN.stop - PLAIN.start) * groups
        of = value.shape[:-1]
        return (
            value[..., :before].reshape(*of, PLAIN.start, columns),
            value[..., before:after].reshape(*of, PLAIN.stop - PLAIN.start, groups),
            value[..., after:].reshape(*of, models - PLAIN.stop, columns),
        )

    def bound(self, want: SmallInt) -> None:
        """Clip the wishes of cells, int (T, 2, C), to the policies' bounds, in place."""
        np.maximum(want, self._least.astype(want.dtype), out=want)
        np.minimum(want, self._most.astype(want.dtype), out=want)
        np.maximum(want[:, 1], want[:, 0], out=want[:, 1])


@dataclass(slots=True)
class _Stretch:
    """T ticks that C cells in n columns have gone through at once; R is the lead time plus the billed time plus 1, in ticks.

    Attributes:
        first_tick: The first of the ticks.
        needs: float32 (2, T, 1), VM-ticks of work, and the same at `charging.MORE` times the demand.
        outs: int (R + T, C), VMs ordered in each of the R ticks before, and in each of the T ticks.
        held: int (T + 1, C), VMs in service or on their way, before the first tick and after each.
        serving: int (T + 1, C), VMs in service, likewise.
        sums: float64 (4, T + 1, n), the trial's `weight`, `wanted`, `needed` and `ticks`, likewise.
        due: int64 (k,), the ticks at which bands are charged, as offsets.
        passed, charged: Number of ticks that are over, and of those that are charged for.
        weighed: Number of entries of `due` for which bands are charged.
    """

    first_tick: int
    needs: SmallFloat
    outs: SmallInt
    held: SmallInt
    serving: SmallInt
    sums: Float
    due: Int
    passed: int = 0
    charged: int = 0
    weighed: int = 0


class Shadows:
    """The shadows of a trial whose columns all see the same, kept once per cell.

    Args:
        cells: Maps shadows to cells.
        lead: Ticks from an order until it serves, at least 1.
        billed: Ticks in service that are billed in any case.
        start_cost: float32 (n,), price of one start.
        charging: The charging of the trial's columns.
        bands: Bands of the cells, as columns of one model.
    """

    def __init__(
        self,
        cells: Cells,
        lead: int,
        billed: int,
        start_cost: SmallFloat,
        charging: ShadowCharges,
        bands: Bands,
    ) -> None:
        self.cells, self._charging, self._bands = cells, charging, bands
        self._lead, self._billed, self._rows = lead, billed, lead + billed + 1
        count = len(cells.first)
        self._start_cost, self._has_start_cost = start_cost.take(cells.column), bool(start_cost.any())
        self._unit_start_cost = bool((start_cost == 1.0).all())
        each = self._ticks_at_once = max(1, _BLOCK // count)
        self._vms, self._lacks = (
            np.empty((each, count), np.float32),
            np.empty((2, each + 1, count), np.float32),
        )
        self._paid = np.empty((2 * each + 1, count), np.float32)
        self._left, self._serving, self._ones = (np.ones(count, np.float32) for _ in range(3))
        self._weighed, self._scratch = np.empty((3, count)), np.empty((2, count))
        self._lately, self._below = np.empty((3, count), np.float32), np.empty((3, 0, count), np.float32)
        self._sums, self._crowd = np.empty((3, count)), np.empty(count)
        self._outs, self._held = np.empty((self._rows, count), np.int32), np.empty(count, np.int32)
        self._stretch: _Stretch | None = None

    def take_up(self, state: Trial) -> bool:
        """Take the shadows over from a trial, which from now on owes its charges to this object.

        Returns:
            False if the trial's columns differ; nothing is taken over then.
        """
        if state.owed.get(CHARGES) is self:
            return True
        state.settle(CHARGES)
        columns = [getattr(state, name) for name in _OF_COLUMNS]
        columns += [getattr(state.habits, name) for name in _OF_HABITS]
        if (
            state.last_tick < 0
            or len(state.ordered) != self._rows
            or any((each != each[0]).any() for each in columns)
        ):
            return False
        few = {}
        for name in _OF_SHADOWS:
            value = getattr(state, name)
            few[name] = self.cells.few(value)
            if not self.cells.all_apart and (self.cells.spread(few[name]) != value).any():
                return False
        # From the oldest order to the latest.
        self._outs = few["ordered"][(state.last_tick - self._billed + np.arange(self._rows)) % self._rows]
        young, coming = self._on_their_way(self._outs)
        if (young != few["young"]).any() or (coming != few["coming"]).any():
            return False
        self._held = few["serving"] + few["coming"]
        self._lately, self._crowd = few["lately"], few["crowd"]
        self._sums = np.stack([few["paid"], few["unserved"], few["nearly"]])
        self._below = few["below"]
        self._stretch = None
        state.owed[CHARGES] = self
        return True

    def _on_their_way(self, outs: SmallInt) -> tuple[SmallInt, SmallInt]:
        """Return the VMs in service that are billed in any case, and those not in service yet: int (C,) each.

        Args:
            outs: int (R, C), VMs ordered in each of the last R ticks, the oldest first.
        """
        young, coming = outs[1 : 1 + self._billed], outs[1 + self._billed :]
        return np.add.reduce(young, axis=0, dtype=outs.dtype), np.add.reduce(coming, axis=0, dtype=outs.dtype)

    def go_through(self, state: Trial, want: SmallInt, work: Float, price: Float) -> None:
        """Move all shadows through the T ticks that follow the last one. Earlier such ticks that did not come are dropped.

        Args:
            state: Owes its charges to this object; only sums of ticks that are over are updated.
            want: int (T, 2, C), lower and upper numbers of VMs, within bounds.
            work: float64 (T, n), VM-ticks of work, the same in all columns.
            price: float64 (n,), price of shortage.
        """
        self.charge(state)
        self._end_stretch()
        ticks, rows, window = len(want), self._rows, self._rows - 2
        outs = np.empty((rows + ticks, want.shape[-1]), want.dtype)
        held = np.empty((ticks + 1, want.shape[-1]), want.dtype)
        outs[:rows], held[0] = self._outs, self._held
        lately = np.add.reduce(outs[rows - window : rows], axis=0, dtype=want.dtype)
        each = zip(held, held[1:], outs[rows - window :], outs[rows:], want, strict=False)
        for before, now, expired, ordered, (low, high) in each:
            np.maximum(before, low, out=now)
            np.subtract(now, before, out=ordered)
            np.minimum(now, high, out=now)
            # VMs that are on their way, or still billed in any case, do not stop.
            if window:
                np.maximum(now, lately, out=now)
            if window == 1:
                lately = ordered
            elif window:
                lately += ordered
                lately -= expired
        serving = held - outs[rows - 1 :]
        for back in range(2, self._lead + 1):
            serving -= outs[rows - back : rows - back + ticks + 1]
        sums = np.empty((4, ticks + 1, work.shape[1]))
        self._charging.add_up(state, work, price, sums)
        self._stretch = _Stretch(
            first_tick=state.last_tick + 1,
            needs=np.stack(needs_of(work)),
            outs=outs,
            held=held,
            serving=serving,
            sums=sums,
            due=self._bands.due_of(state.last_tick + 1, ticks),
        )

    def _end_stretch(self) -> None:
        """Charge for the ticks of the stretch that are over, and continue from there without it."""
        stretch = self._stretch
        if stretch is not None:
            self._charge_to(stretch)
            self._charge_bands(stretch)
            at = stretch.passed
            self._outs, self._held = stretch.outs[at : at + self._rows], stretch.held[at]
            self._stretch = None

    def move(self, state: Trial, tick: int) -> None:
        """Count the next tick of the stretch as over."""
        assert self._stretch is not None
        self._stretch.passed += 1
        state.last_tick = tick

    def charge(self, state: Trial) -> None:
        """Charge for all ticks that are over, and update the trial's `weight`, `wanted`, `needed` and `ticks`."""
        stretch = self._stretch
        if stretch is not None:
            self._charge_to(stretch)
            state.weight, state.wanted, state.needed, state.ticks = stretch.sums[:, stretch.passed].copy()

    def _charge_to(self, stretch: _Stretch) -> None:
        """Charge for the ticks of a stretch that are over, some at a time."""
        while stretch.charged < stretch.passed:
            end = min(stretch.passed, stretch.charged + self._ticks_at_once)
            self._charge(stretch, stretch.charged, end)
            stretch.charged = end

    def _charge(self, stretch: _Stretch, first: int, end: int) -> None:
        """Charge for the ticks from `first` to before `end`."""
        ticks = end - first
        vms, lacks = self._vms[:ticks], self._lacks[:, : ticks + 1]
        vms[...] = stretch.serving[first:end]
        paid, unserved, lack = self._lately[0], self._lately[1:], lacks[:, 1:]
        lacks[:, 0] = unserved
        # Full-size arrays, because numpy compares two arrays much faster than an array and a number.
        lack[...] = stretch.needs[:, first:end]
        np.maximum(lack, vms, out=lack)
        lack -= vms
        np.add.reduce(lacks, axis=1, out=unserved)
        outs = stretch.outs[self._rows + first : self._rows + end]
        if self._has_start_cost and np.count_nonzero(outs):
            terms = self._paid[: 2 * ticks + 1]
            terms[0], terms[1::2] = paid, vms
            terms[2::2] = outs if self._unit_start_cost else outs * self._start_cost
        else:
            terms = self._paid[: ticks + 1]
            terms[0], terms[1:] = paid, vms
        np.add.reduce(terms, axis=0, out=paid)

    def _charge_bands(self, stretch: _Stretch) -> None:
        """Charge the bands for those ticks among the ones that are over in which they are due."""
        end, each = int(np.searchsorted(stretch.due, stretch.passed)), 3 * self._ticks_at_once
        while stretch.weighed < end:
            at = stretch.due[stretch.weighed : min(end, stretch.weighed + each)]
            self._bands.charge_page(
                self._below,
                stretch.serving[at],
                stretch.needs[:, at],
                stretch.outs[self._rows + at],
                stretch.held[at + 1],
            )
            stretch.weighed += len(at)

    def compare(
        self, state: Trial, price: Float, doubt: Float, fear: Float, cost: Float, actual: Float | None
    ) -> None:
        """Add the recent costs to the sums, and compute the models' costs as `ModelCompetition._compare` does.

        Args:
            state: A trial that owes its charges to this object.
            price: float64 (n,), price of shortage.
            doubt: float64 (n,), weight of the work left unserved at `charging.MORE` times the demand, equal in all columns.
            fear: float64 (n,), share of the time that an unseen crowd is assumed to take, equal in all columns.
            cost: float64 (M, n), filled in with the costs including unseen demand.
            actual: float64 (M, n), filled in with the costs so far; None if they are not needed.
        """
        assert self._stretch is not None
        weighed = self._weighed
        weighed[...] = self._lately
        weighed *= state.weight[:1]
        self._sums += weighed
        self._lately.fill(0.0)
        paid, unserved, nearly = self._sums
        total, term = self._scratch
        self._serving[...] = self._stretch.serving[self._stretch.passed]
        total[...] = crowd_left(
            state.habits.highest[:1].astype(np.float32), self._serving, self._left, self._ones
        )
        total *= (state.ticks - state.asked)[:1]
        self._crowd += total
        np.multiply(nearly, doubt[:1], out=total)
        total += unserved
        total += np.multiply(self._crowd, fear[:1], out=term)
        spread = self.cells.spread_into
        spread(total, cost)
        cost *= price
        if actual is None:
            cost += self.cells.spread(paid)
        else:
            paid_spread = self.cells.spread(paid)
            cost += paid_spread
            spread(unserved, actual)
            actual *= price
            actual += paid_spread
        state.asked = state.ticks

    def write_sums(self, state: Trial) -> None:
        """Write what models have paid and left unserved to a trial."""
        state.paid[...], state.unserved[...] = (self.cells.spread(each) for each in self._sums[:2])

    def write_bands(self, state: Trial) -> SmallFloat:
        """Write the costs of bands to a trial, and return the work per tick that an unseen crowd would leave: float32 (M, n)."""
        if self._stretch is not None:
            self._charge_bands(self._stretch)
        state.below[...] = self.cells.spread(self._below)
        found: SmallFloat = self.cells.spread(self._left)
        return found

    def read_bands(self, state: Trial) -> None:
        """Read the costs of bands back from a trial."""
        self._below = self.cells.few(state.below)

    def settle(self, state: Trial) -> None:
        """Write everything to a trial, which then owes nothing to this object."""
        self.charge(state)
        self._end_stretch()
        spread = self.cells.spread
        young, coming = self._on_their_way(self._outs)
        state.serving[...], state.coming[...] = spread(self._held - coming), spread(coming)
        state.young[...], state.lately[...] = spread(young), spread(self._lately)
        state.nearly[...], state.crowd[...] = spread(self._sums[2]), spread(self._crowd)
        state.below[...] = spread(self._below)
        self.write_sums(state)
        at = (state.last_tick - self._billed + np.arange(self._rows)) % self._rows
        state.ordered[at] = spread(self._outs)


def crowd_left(highest: SmallFloat, vms: SmallFloat, left: SmallFloat, ones: SmallFloat) -> SmallFloat:
    """Compute the expected work of an unseen crowd that these VMs would leave unserved, in VM-ticks per tick.

    This is E[(X - x)+] at x VMs for X = H Y with P(Y > y) = 1 / y for y from 1 to CROWD, where H is the highest demand ever.
    It is H log(CROWD H / x) for x from H to CROWD H, 0 beyond, and H log(CROWD) + H - x below H.

    Args:
        highest: float32 (n,), H in VMs; (1,) if all columns have the same.
        vms: float32 (..., n), x; overwritten.
        left: float32 (..., n), filled in.
        ones: float32, ones of the same shape.

    Returns:
        `left`.
    """
    np.maximum(vms, highest, out=left)
    np.subtract(left, vms, out=vms)
    if np.minimum.reduce(highest, initial=1.0) < _FEWEST:
        np.maximum(left, _FEWEST, out=left)
    np.divide(np.float32(CROWD) * highest, left, out=left)
    np.maximum(left, ones, out=left)
    np.log(left, out=left)
    left *= highest
    left += vms
    return left
