"""Demand that `habits` still has to record: buffered tick by tick, recorded in one go when it is read.

What is usual is read once an hour, the maximum ever when models are compared, and the slots of a day when it is over. So nothing is
lost if the ticks in between are buffered and recorded together, exactly as they would have been one by one.

Rules of this file: it buffers ticks and passes them on; `habits` computes.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.habits import HOUR_S, Habits, note, note_page
from autoscaler.core.types import Bool, Float

BUFFERED_DEMAND = "notes"
"""Name of the buffered ticks in `Trial.owed`."""
_MOST_NUMBERS, _MOST_TICKS, _FEWEST_TICKS = 2_048, 12, 3
"""At most `_MOST_NUMBERS` numbers and `_MOST_TICKS` ticks are buffered, because one tick has to record them all. If fewer than
`_FEWEST_TICKS` ticks fit, recording tick by tick is as fast."""


class DemandBuffer:
    """Buffers ticks of demand of n columns until they are recorded.

    Args:
        columns: Number of columns.
        tick_s: Length of a tick.
    """

    def __init__(self, columns: int, tick_s: float) -> None:
        ticks = min(_MOST_NUMBERS // columns, _MOST_TICKS)
        self._tick_s, self._ticks = tick_s, ticks if ticks >= _FEWEST_TICKS else 0
        self._storage = np.empty((self._ticks, columns))
        self._now_s: list[float] = []
        self._need, self._recorded, self._buffered = self._storage, 0, 0

    def keep(self, trial: Trial, now_s: float, need: Float, counts: Bool | None) -> None:
        """Record a tick of demand, now or later.

        Args:
            trial: Its habits are updated in place.
            now_s: Time of the tick.
            need: float64 (n,), demand in VMs.
            counts: bool (n,), whether demand is known; None if it is everywhere.
        """
        if not self._ticks or not (counts is None or np.count_nonzero(counts) == len(counts)):
            trial.settle(BUFFERED_DEMAND)
            known = np.ones(len(need), np.bool_) if counts is None else counts
            note(trial.habits, now_s, need, known, self._tick_s)
            return
        if (
            self._need is not self._storage
            or self._buffered == self._ticks
            or trial.owed.get(BUFFERED_DEMAND) is not self
        ):
            trial.settle(BUFFERED_DEMAND)
            self._now_s, self._need, self._recorded, self._buffered = [], self._storage, 0, 0
            trial.owed[BUFFERED_DEMAND] = self
        self._need[self._buffered] = need
        self._now_s.append(now_s)
        self._buffered += 1

    def foresee(self, trial: Trial, now_s: list[float], need: Float) -> None:
        """Prepare T future ticks, so that `keep_next` only has to count them.

        Args:
            trial: Its buffered ticks are recorded first.
            now_s: Times of the ticks.
            need: float64 (T, n), demand in VMs, known everywhere.
        """
        trial.settle(BUFFERED_DEMAND)
        self._now_s, self._need, self._recorded, self._buffered = now_s, need, 0, 0

    def keep_next(self, trial: Trial) -> None:
        """Record the next tick of those prepared by `foresee`, now or later."""
        self._buffered += 1
        trial.owed[BUFFERED_DEMAND] = self

    def highest_known(self, habits: Habits) -> bool:
        """Return whether recording the buffered ticks would leave the highest demand ever as it is."""
        need = self._need[self._recorded : self._buffered]
        return not (
            np.count_nonzero(habits.above)
            or np.count_nonzero(np.maximum.reduce(need, axis=0, initial=0.0) > habits.highest)
        )

    def settle(self, trial: Trial) -> None:
        """Record all buffered ticks."""
        while self._recorded < self._buffered:
            first, end = self._recorded, self._recorded + 1
            hour = self._now_s[first] // HOUR_S
            while end < self._buffered and self._now_s[end] // HOUR_S == hour:
                end += 1
            note_page(trial.habits, self._now_s[first:end], self._need[first:end], self._tick_s)
            self._recorded = end
