"""Demand that `habits` still has to record: buffered tick by tick, recorded in one go when it is read.

What is usual is read once an hour, the maximum ever when models are compared, and the slots of a day when it is over. So nothing is
lost if the ticks in between are buffered and recorded together, exactly as they would have been one by one.

Rules of this file: it keeps and passes on.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.objective.habits import HOUR_S, Habits, note, note_page
from autoscaler.core.objective.trial import Trial
from autoscaler.core.types import Bool, Float

NOTES = "notes"
"""Under which name they are owed."""
_MOST_KEPT, _MOST_TICKS, _FEWEST_TICKS = 2_048, 12, 3
"""So many numbers are kept at most, of so many ticks, since one tick notes all; where fewer fit it takes no less than tick by tick."""


class Notes:
    """Ticks to be noted of n columns.

    Args:
        columns: How many.
        tick_s: Length of a tick.
    """

    def __init__(self, columns: int, tick_s: float) -> None:
        ticks = min(_MOST_KEPT // columns, _MOST_TICKS)
        self._tick_s, self._ticks = tick_s, ticks if ticks >= _FEWEST_TICKS else 0
        self._room = np.empty((self._ticks, columns))
        self._now_s: list[float] = []
        self._need, self._noted, self._kept = self._room, 0, 0

    def keep(self, trial: Trial, now_s: float, need: Float, counts: Bool | None) -> None:
        """Count a tick of demand, now or later.

        Args:
            trial: Its habits are updated in place.
            now_s: Time of the tick.
            need: float64 (n,), demand in VMs.
            counts: bool (n,), where it is known; None for everywhere.
        """
        if not self._ticks or not (counts is None or np.count_nonzero(counts) == len(counts)):
            trial.settle(NOTES)
            known = np.ones(len(need), np.bool_) if counts is None else counts
            note(trial.habits, now_s, need, known, self._tick_s)
            return
        if self._need is not self._room or self._kept == self._ticks or trial.owed.get(NOTES) is not self:
            trial.settle(NOTES)
            self._now_s, self._need, self._noted, self._kept = [], self._room, 0, 0
            trial.owed[NOTES] = self
        self._need[self._kept] = need
        self._now_s.append(now_s)
        self._kept += 1

    def foresee(self, trial: Trial, now_s: list[float], need: Float) -> None:
        """Have ready what `keep_next` keeps: times of T ticks, and demand in VMs, float64 (T, n), known everywhere."""
        trial.settle(NOTES)
        self._now_s, self._need, self._noted, self._kept = now_s, need, 0, 0

    def keep_next(self, trial: Trial) -> None:
        """As `keep`, the next of the ticks that were foreseen."""
        self._kept += 1
        trial.owed[NOTES] = self

    def highest_known(self, habits: Habits) -> bool:
        """Whether nothing that was kept is as high as the highest ever."""
        need = self._need[self._noted : self._kept]
        return not (
            np.count_nonzero(habits.above)
            or np.count_nonzero(np.maximum.reduce(need, axis=0, initial=0.0) > habits.highest)
        )

    def settle(self, trial: Trial) -> None:
        """Note all that was kept."""
        while self._noted < self._kept:
            first, end = self._noted, self._noted + 1
            hour = self._now_s[first] // HOUR_S
            while end < self._kept and self._now_s[end] // HOUR_S == hour:
                end += 1
            note_page(trial.habits, self._now_s[first:end], self._need[first:end], self._tick_s)
            self._noted = end
