"""VMs in transition, as counts: how many VMs ordered in one tick arrive in a later one, for L lanes.

There are two forms. `Delay` is for transitions that take the same time for every VM: a ring buffer of orders, read that many
ticks later. `Lottery` is for transitions with a random time per VM. The VMs ordered in a tick are numbered from 0, and VM i
gets draw i of that tick in every lane. So two lanes that order different numbers of VMs share the draws of the first ones.

Rules of this file: counts only; ticks are relative to the start of the run; element-wise over lanes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.section import whole_ticks
from autoscaler.core.types import Bool, Float, Int
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.plant_settings import PlantSettings

Vms: TypeAlias = NDArray[np.signedinteger[Any]]
"""Counts of VMs, int32 or, if no fleet is large, int16: narrower arrays of thousands of lanes are read faster."""
Kind: TypeAlias = np.dtype[np.signedinteger[Any]]
"""Integer type of counts."""
INT16: Kind = np.dtype(np.int16)
INT32: Kind = np.dtype(np.int32)


class Delay:
    """A ring buffer of counts that come out a fixed number of ticks after they went in.

    Args:
        ticks: int64 (L,), the delay of each lane, at least 1.
        kind: Integer type of the counts.

    Attributes:
        none_out: Whether it is certain, without reading the counts, that the last `out` returned zeros only.
    """

    __slots__ = ("_cells", "_each", "_empty", "_filled", "_flat", "_rows", "none_out", "ring", "ticks")

    def __init__(self, ticks: Int, kind: Kind = INT32) -> None:
        self.ticks = ticks
        self._rows = int(ticks.max()) + 1
        self.ring: Vms = np.zeros((self._rows, len(ticks)), kind)
        uniform = (ticks == ticks[0]).all()
        self._flat = None if uniform else self.ring.reshape(-1)
        self._cells = np.arange(len(ticks))
        self._empty = [True] * self._rows
        self._filled = 0
        self.none_out = True
        self._each = int(ticks[0])

    @property
    def empty(self) -> bool:
        """Whether it is certain, without reading the counts, that nothing is on the way."""
        return not self._filled

    def out(self, tick: int) -> Vms:
        """Return int (L,), what comes out at this tick; valid until the next `put`."""
        if self._flat is None:
            come = (tick - self._each) % self._rows
            self.none_out = self._empty[come]
            row: Vms = self.ring[come]
            return row
        self.none_out = not self._filled
        at = (tick - self.ticks) % self._rows
        at *= len(self.ticks)
        at += self._cells
        return self._flat.take(at)

    def put(self, tick: int, counts: Vms) -> None:
        """Put in what is ordered at this tick. Call this or `put_none` once a tick."""
        at = tick % self._rows
        self.ring[at] = counts
        if self._empty[at]:
            self._empty[at] = False
            self._filled += 1

    def put_none(self, tick: int) -> None:
        """Do the same as `put` with zeros."""
        at = tick % self._rows
        if not self._empty[at]:
            self.ring[at].fill(0)
            self._empty[at] = True
            self._filled -= 1

    def ahead(self, tick: int) -> Vms:
        """Return int (W, L), what is on the way just before `tick`; row r comes out at tick + r."""
        rows = np.arange(self._rows)[:, np.newaxis]
        due = self.ring[(tick + rows - self.ticks) % self._rows, self._cells]
        return np.where(rows < self.ticks, due, 0)

    def go_on_from(self, other: Delay, lanes: Int, tick: int) -> None:
        """Take over what is on the way in some lanes of another delay, just before `tick`."""
        self._empty, self._filled = [False] * self._rows, self._rows
        for back in range(1, min(self._rows, other._rows) + 1):
            self.ring[(tick - back) % self._rows] = other.ring[(tick - back) % other._rows][lanes]


@dataclass(slots=True)
class Arrivals:
    """What changes at a tick for VMs in transition, per lane.

    Attributes:
        ready: int32 (L,), VMs that come into service.
        late: int32 (L,), VMs that had been given up and are counted again, because they now run or are ready.
        given_up: int32 (L,), VMs that are no longer counted on from now on.
        failed: int32 (L,), VMs that fall back to stopped.
        billed_s: float64 (L,), VM-seconds that the ready VMs were billed for before they came into service.
    """

    ready: Vms
    late: Vms
    given_up: Vms
    failed: Vms
    billed_s: Float


@dataclass(frozen=True, slots=True)
class Odds:
    """The random outcomes of an order, and which draws decide them.

    Attributes:
        purpose: Purpose of the draws that decide how long it takes.
        stuck_purpose: Purpose of the draws that decide whether it hangs.
        failure: Probability that it fails.
        patience_s: Time after which a start is given up. It applies to each part: until the VM runs, and from then on.
        shift: Ticks that the lanes are ahead of the run.
    """

    purpose: Purpose
    stuck_purpose: Purpose
    failure: float
    patience_s: float
    shift: int = 0


class Lottery:
    """Transitions in which each VM's time and outcome are drawn at random.

    Args:
        lanes: Number of lanes.
        tick_s: Length of a tick.
    """

    def __init__(self, lanes: int, tick_s: float) -> None:
        self._lanes = lanes
        self._tick_s = tick_s
        self._groups: list[tuple[Int, PlantSettings, Odds, Luck]] = []
        self._rows = 1

    def enter(self, lanes: Sequence[int], plant: PlantSettings, odds: Odds, luck: Luck) -> None:
        """Add lanes with the same settings and draws; all lanes must be added before the first order."""
        self._groups.append((np.array(lanes), plant, odds, luck))
        duration = plant.start if odds.purpose is Purpose.START else plant.provision
        longest_s = max(
            duration.longest_s + (plant.stuck_s if plant.stuck and math.isfinite(plant.stuck_s) else 0.0),
            plant.failure_s if odds.failure else 0.0,
        )
        # One row for what is due now, and one for the tick after patience has run out.
        patience = math.floor(odds.patience_s / self._tick_s) + 1
        self._rows = max(self._rows, whole_ticks(longest_s, self._tick_s) + 1, patience + 1)
        shape = (self._rows, self._lanes)
        self._ready, self._late, self._given_up, self._failed = (np.zeros(shape, np.int32) for _ in range(4))
        self._billed: Float = np.zeros(shape)

    @property
    def rings(self) -> tuple[Vms, Vms, Vms, Vms, Float]:
        """The ring buffers: ready, late, given up, failed, billed."""
        return self._ready, self._late, self._given_up, self._failed, self._billed

    def out(self, tick: int) -> Arrivals:
        """Return what is due at this tick; must be called once a tick, before `order`."""
        row = tick % self._rows
        due = [ring[row].copy() for ring in self.rings]
        for ring in self.rings:
            ring[row] = 0
        ready, late, given_up, failed, billed_s = due
        return Arrivals(ready, late, given_up, failed, billed_s)

    def ahead(self, tick: int) -> list[Vms | Float]:
        """Return the contents of each ring in the order in which they fall due, from `tick` on."""
        order = (tick + np.arange(self._rows)) % self._rows
        return [ring[order] for ring in self.rings]

    def go_on_from(self, other: Lottery, lanes: Int, tick: int) -> None:
        """Take over what is on the way in some lanes of another lottery, just before `tick`."""
        for mine, theirs in zip(self.rings, other.rings, strict=True):
            for on in range(min(self._rows, other._rows)):
                mine[(tick + on) % self._rows] = theirs[(tick + on) % other._rows][lanes]

    def order(self, tick: int, counts: Vms, number: int) -> None:
        """Order VMs.

        Args:
            tick: The current tick of the run.
            counts: int32 (L,), VMs ordered.
            number: Number of the tick on the absolute grid, which addresses the draws.
        """
        if not counts.any():
            return
        for lanes, plant, odds, luck in self._groups:
            here = counts[lanes]
            most = int(here.max())
            if most:
                self._order(
                    tick,
                    lanes,
                    here,
                    _Fates.drawn(plant, odds, luck, number + odds.shift, most, self._tick_s),
                )

    def _order(self, tick: int, lanes: Int, counts: Vms, fates: _Fates) -> None:
        """Enter the drawn outcomes of some lanes' orders at the ticks at which they fall due."""
        for due in np.unique(fates.due[fates.due > 0]):
            at = (tick + int(due)) % self._rows
            arrives = (fates.due == due) & ~fates.fails
            self._ready[at, lanes] += _first(arrives, counts)
            self._billed[at, lanes] += _first_sum(np.where(arrives, fates.billed_s, 0.0), counts)
            self._failed[at, lanes] += _first((fates.due == due) & fates.fails, counts)
        for lapses, since, until in fates.lapses():
            for on in np.unique(since[lapses]):
                at = (tick + int(on)) % self._rows
                self._given_up[at, lanes] += _first(lapses & (since == on), counts)
            for on in np.unique(until[lapses & (until > 0)]):
                at = (tick + int(on)) % self._rows
                self._late[at, lanes] += _first(lapses & (until == on), counts)


@dataclass(frozen=True, slots=True)
class _Fates:
    """The drawn outcomes of the VMs ordered at one tick, by number.

    Attributes:
        due: int64 (n,), ticks until they arrive or fail; 0 for never.
        runs: int64 (n,), ticks until they are seen to run; 0 for never.
        fails: bool (n,), whether they fail.
        billed_s: float64 (n,), seconds billed before they are in service.
        patience: Ticks after which a start is given up. They apply to each part: until the VM runs, and from then on.
    """

    due: Int
    runs: Int
    fails: Bool
    billed_s: Float
    patience: int

    @classmethod
    def drawn(
        cls, plant: PlantSettings, odds: Odds, luck: Luck, number: int, count: int, tick_s: float
    ) -> _Fates:
        """Draw the outcomes of the first `count` VMs ordered at tick `number`."""
        duration = plant.start if odds.purpose is Purpose.START else plant.provision
        takes_s = duration.draw(luck, odds.purpose, number, count)
        boot_s = np.minimum(plant.boot_s, takes_s)
        if plant.stuck:
            stuck = luck.uniforms(odds.stuck_purpose, number, count) < plant.stuck
            takes_s = np.where(stuck, plant.stuck_s + takes_s, takes_s)
        fails = np.zeros(count, np.bool_)
        if odds.failure:
            fails = luck.uniforms(Purpose.START_FAILS, number, count) < odds.failure
            takes_s = np.where(fails, plant.failure_s, takes_s)
        never = ~np.isfinite(takes_s)
        finite_s = np.where(never, 0.0, takes_s)
        due = _ticks_of(finite_s, never, tick_s)
        return cls(
            due=due,
            runs=_ticks_of(np.maximum(finite_s - boot_s, 0.0), never, tick_s),
            fails=fails,
            billed_s=np.asarray(due * tick_s - finite_s + boot_s, np.float64),
            patience=math.floor(odds.patience_s / tick_s) + 1,
        )

    def lapses(self) -> Iterator[tuple[Bool, Int, Int]]:
        """Yield, for each part of a start, which VMs are given up, from which tick, and until which (0 for ever)."""
        if self.patience < int(self.due.max()) or not self.due.all():
            hangs = ~self.fails & ((self.runs == 0) | (self.runs > self.patience))
            yield hangs, np.full_like(self.runs, self.patience), self.runs
            yield ~self.fails & (self.due > self.runs + self.patience), self.runs + self.patience, self.due


def _ticks_of(span_s: Float, never: Bool, tick_s: float) -> Int:
    """Return whole ticks, at least 1, that cover a span; 0 for never."""
    return np.where(never, 0, np.maximum(1, np.ceil(span_s / tick_s - 1e-9))).astype(np.int64)


def _first(mask: Bool, counts: Vms) -> Vms:
    """Return, for each lane, how many of its first `counts` VMs are in the mask."""
    return np.concatenate(([0], np.cumsum(mask))).astype(np.int32)[counts]


def _first_sum(values: Float, counts: Vms) -> Float:
    return np.asarray(np.concatenate(([0.0], np.cumsum(values)))[counts], np.float64)
