"""Demand recorded in earlier ticks, for learning after a restart.

Why it is separate from `reader`: it needs one number per tick for many fleets at once, and none of the texts, which are
most of a tick. A week is read once for all requested fleets.

Rules of this file: it reads in a thread of its own, in short reads like every reader. A tick that cannot be decoded is
a gap.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import JournalError
from autoscaler.store import schema
from autoscaler.store.rows import numbers
from autoscaler.store.thread import OneThread

BATCH = 500


class RecordedPast:
    """Implements `RecordedDemand` on the journal in a state directory.

    Args:
        directory: The state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / schema.FILE_NAME

    async def demand(
        self, fleets: Sequence[str], start_s: float, end_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Times and demand of the ticks in a range; see the port."""
        thread = OneThread("past")
        try:
            call = asyncio.get_running_loop().run_in_executor(
                thread, self._read, tuple(fleets), start_s, end_s
            )
            return await call
        finally:
            thread.shutdown()

    def _read(
        self, fleets: tuple[str, ...], start_s: float, end_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        times: list[NDArray[np.float64]] = []
        parts: list[NDArray[np.float32]] = []
        with (
            closing(schema.open_for_reading(self._path)) as connection,
            schema.translated(str(self._path), "read"),
        ):
            rosters: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
            bounds = "SELECT min(id), max(id) FROM ticks WHERE at_s >= ? AND at_s < ?"
            first, last = connection.execute(bounds, (start_s, end_s)).fetchone()
            done = -1 if first is None else first - 1
            query = (
                "SELECT id, at_s, format, body, roster_id FROM ticks WHERE id > ? AND id <= ? "
                "AND +at_s >= ? AND +at_s < ? ORDER BY id LIMIT ?"
            )
            while rows := connection.execute(query, (done, last, start_s, end_s, BATCH)).fetchall():
                done = rows[-1][0]
                for roster in {row[4] for row in rows} - rosters.keys():
                    (names,) = connection.execute(
                        "SELECT fleets FROM rosters WHERE id = ?", (roster,)
                    ).fetchone()
                    rosters[roster] = _places(json.loads(names), fleets)
                times.append(np.array([row[1] for row in rows], np.float64))
                parts.append(demand_of(rows, rosters, len(fleets)))
        if not parts:
            return np.empty(0), np.empty((0, len(fleets)), np.float32)
        return np.concatenate(times), np.concatenate(parts)


def _places(names: Sequence[str], fleets: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in a roster of the requested fleets that it contains, and the indices of these fleets."""
    place = {name: at for at, name in enumerate(names)}
    found = [(place[fleet], at) for at, fleet in enumerate(fleets) if fleet in place]
    return np.array([at for at, _ in found], np.int64), np.array([at for _, at in found], np.int64)


def demand_of(
    rows: Sequence[tuple[int, float, int, bytes, int]],
    rosters: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
    fleets: int,
) -> NDArray[np.float32]:
    """Return the demand in recorded ticks: float32 (ticks, fleets), NaN where it was hidden or the tick is damaged.

    Args:
        rows: Id, time, format, body and roster of each tick.
        rosters: By id, places of the fleets in the body, and in the result.
        fleets: Number of fleets.
    """
    found = np.full((len(rows), fleets), np.nan, np.float32)
    for at, (_, _, number, body, roster) in enumerate(rows):
        here, there = rosters[roster]
        try:
            recorded = numbers(number, body)[here]
        except (JournalError, IndexError):
            continue
        # Demand that was not fresh is recorded as NaN.
        found[at, there] = np.where(recorded["censored"], np.nan, recorded["demand"])
    return found
