"""Records every tick of a few lanes, as timeline rows with reasons.

Sums do not tell why something was decided; single ticks do. What is recorded is what `daemon.sentences` reads, so a lane's
sentences are those that the daemon would have logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Decision, Int, Samples
from autoscaler.daemon.decision_sentences import sentence
from autoscaler.ports import Earnings, FleetTick
from autoscaler.simulator.judging.ledger import Block
from autoscaler.simulator.lanes.earned import Earned
from autoscaler.simulator.lanes.plant import Plant
from autoscaler.simulator.replay.timeline import TimelineRow

_SAMPLE = ("demand", "observed_at_s", "freshness", "coverage", "censored")
_DECISION = ("forecast", "forecast_hi", "wish", "desired", "start", "provision", "stop", "warm_target")
_PLANT = ("in_service", "starting", "draining", "stopping", "stopped", "provisioned", "stoppable")
_NAMES = (*_SAMPLE, *_DECISION, *_PLANT)
_sampled, _decided, _planted = attrgetter(*_SAMPLE), attrgetter(*_DECISION), attrgetter(*_PLANT)
_NOT_KEPT = ("tick_s", "first_tick", "totals", "extra_s", "most_vms")
_BLOCK = tuple(each.name for each in fields(Block) if each.name not in _NOT_KEPT)
_TOLD = (
    "demand", "desired", "in_service", "starting", "draining", "stopped", "warm_target", "capacity",
    "shortage", "starts", "stops", "provisions", "cost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeptTicks:
    """Recorded ticks of W lanes.

    Attributes:
        first_tick: Number of the first tick on the absolute grid, for a lane without a shift.
        run_tick: Number of that tick from the start of the run.
        shifts: int64 (W,), ticks that each lane is ahead.
        ticks: Arrays (n, W) by field name of a journal's tick.
        stages, reasons: int64 (n, K, W), wish and reason after each of K stages.
        block: Arrays (n, W) by field name of a block.
        earnings: n rows of W, what lanes with an objective were sized by; empty if no lane has one.
    """

    first_tick: int
    run_tick: int
    shifts: Int
    ticks: dict[str, NDArray[Any]]
    stages: Int
    reasons: Int
    block: dict[str, NDArray[Any]]
    earnings: tuple[tuple[Earnings | None, ...], ...] = ()

    def of(self, at: int) -> KeptTicks:
        """Return the page of one lane, stamped with its own ticks."""
        own = int(self.shifts[at])
        column = slice(at, at + 1)
        return KeptTicks(
            self.first_tick + own,
            self.run_tick + own,
            self.shifts[column] * 0,
            {name: rows[:, column] for name, rows in self.ticks.items()},
            self.stages[:, :, column],
            self.reasons[:, :, column],
            {name: rows[:, column] for name, rows in self.block.items()},
            tuple(row[column] for row in self.earnings),
        )


class Witness:
    """Records every tick of some lanes.

    Args:
        lanes: The lanes of the run to record.
    """

    def __init__(self, lanes: Sequence[int]) -> None:
        self.lanes = np.array(lanes)
        self.pages: list[KeptTicks] = []
        # Taking a number out of an array takes a fifth of the time of taking an array of one element.
        self._lane = int(lanes[0]) if len(lanes) == 1 else None
        self._kinds: list[np.dtype[Any]] = []
        self._rows: list[list[Any]] = []
        self._earned = Earned(self.lanes)

    def see(self, samples: Samples, decision: Decision, plant: Plant) -> None:
        """Record a tick after its decision and before the plant acts."""
        arrays = (*_sampled(samples), *_decided(decision), *_planted(plant))
        stages, lane = (decision.value, decision.reason), self._lane
        if not self._kinds:
            self._kinds = [array.dtype for array in (*arrays, *stages)]
        if lane is None:
            lanes = self.lanes
            row = [array[lanes] for array in arrays]
            row += [array[:, lanes] for array in stages]
        else:
            row = [array.item(lane) for array in arrays]
            row += [array[:, lane].tolist() for array in stages]
        self._rows.append(row)
        self._earned.see(decision)

    def close(self, block: Block, count: int, run_tick: int, shifts: Int) -> None:
        """Finish the page of ticks recorded since the last call, adding the block's figures.

        Args:
            block: The block that these ticks belong to.
            count: Number of its rows in use.
            run_tick: Its first tick, from the start of the run.
            shifts: int64 (L,), ticks that each lane is ahead.
        """
        kept: dict[str, NDArray[Any]] = {}
        for name in _BLOCK:
            rows = getattr(block, name)[:count]
            # The block may hold one column of demand for several neighbouring lanes.
            each = len(shifts) // rows.shape[1]
            kept[name] = rows[:, self.lanes // each]
        ticks, lanes = len(self._rows), len(self.lanes)
        columns = [
            np.array(column, kind)
            for column, kind in zip(zip(*self._rows, strict=True), self._kinds, strict=True)
        ]
        self._rows.clear()
        *told, stages, reasons = columns
        self.pages.append(
            KeptTicks(
                block.first_tick,
                run_tick,
                shifts[self.lanes],
                {name: column.reshape(ticks, lanes) for name, column in zip(_NAMES, told, strict=True)},
                stages.reshape(ticks, -1, lanes),
                reasons.reshape(ticks, -1, lanes),
                kept,
                self._earned.taken(),
            )
        )

    def of(self, lane: int, begun: int = 0, length: int | None = None) -> list[KeptTicks]:
        """Return the pages of one recorded lane, stamped with its own ticks.

        Args:
            lane: Number of the lane in the run.
            begun: Ticks at the beginning of the run to leave out.
            length: Number of ticks to take after those, a multiple of whole pages; None for all.
        """
        at = int(np.flatnonzero(self.lanes == lane)[0])
        pages = [page for page in self.pages if page.run_tick >= begun]
        if length is not None:
            pages = [page for page in pages if page.run_tick < begun + length]
        return [page.of(at) for page in pages]

    def fleet_ticks(self, lane: int, fleet: str) -> list[FleetTick]:
        """Return the ticks of a recorded lane as the daemon's journal would hold them."""
        return [tick for page in self.of(lane) for tick in _ticks(page, fleet)]


def timeline(pages: Sequence[KeptTicks], fleet: str, tick_s: float) -> tuple[TimelineRow, ...]:
    """Return the timeline rows of a lane's pages, in their order."""
    return tuple(row for page in pages for row in _rows(page, fleet, tick_s))


def _ticks(page: KeptTicks, fleet: str) -> Iterator[FleetTick]:
    facts = {name: rows[:, 0].tolist() for name, rows in page.ticks.items()}
    facts |= {name: page.block[name][:, 0].tolist() for name in ("capacity", "shortage", "cost")}
    stages, reasons = page.stages[:, :, 0].tolist(), page.reasons[:, :, 0].tolist()
    earnings = [row[0] for row in page.earnings] or [None] * len(stages)
    for values, wishes, why, earned in zip(
        zip(*facts.values(), strict=True), stages, reasons, earnings, strict=True
    ):
        told = dict(zip(facts, values, strict=True))
        yield FleetTick(
            fleet=fleet, **told, stages=tuple(wishes), reasons=tuple(why), sentence="", earnings=earned
        )


def _rows(page: KeptTicks, fleet: str, tick_s: float) -> Iterator[TimelineRow]:
    kept = {name: page.block[name][:, 0].tolist() for name in _TOLD}
    rows = zip(_ticks(page, fleet), zip(*kept.values(), strict=True), strict=True)
    for number, (tick, values) in enumerate(rows, page.first_tick):
        yield TimelineRow(
            timestamp_s=number * tick_s,
            forecast=tick.forecast,
            forecast_hi=tick.forecast_hi,
            reason=sentence(tick),
            **dict(zip(kept, values, strict=True)),
        )
