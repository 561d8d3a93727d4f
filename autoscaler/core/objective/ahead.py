"""What models want at future ticks, computed at once when a replay knows demand in advance.

The state derived from demand advances with each tick that is used, and only with those. If a tick turns out differently, or the
state is read (`Trial.settle`), the rest is discarded. So nothing depends on this but the time taken.

Rules of this file: no wishes are computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.falls import Falls, calm, doubted, pass_calm
from autoscaler.core.laws import Page
from autoscaler.core.objective.plain import Passed
from autoscaler.core.objective.shadows import Shadows
from autoscaler.core.objective.trial import Trial
from autoscaler.core.types import Float, Int, SmallInt

AHEAD = "ahead"
"""Under which name it is owed."""


class Ahead:
    """Ticks to come of n columns, T of them, from some row of a page on.

    Args:
        page: In which they are.
        row: The first of them there.
        now_s: Their times, T of them.
        price: float64 (n,), of shortage at all of them.
        want: int (T, 2, M, n), within bounds, or (T, 2, C) of shadows' cells.
        work: float64 (T, n), demand in VMs.
        passed: What is remembered once they are over.
        shadows: Have gone through them; None where they go tick by tick.

    Attributes:
        want, work, shadows: As given.
        used: How many of them have come.
    """

    def __init__(
        self,
        page: Page,
        row: int,
        now_s: Sequence[float],
        price: Float,
        want: SmallInt,
        work: Float,
        passed: Passed,
        shadows: Shadows | None,
    ) -> None:
        self._page, self._row, self._now_s, self._passed = page, row, now_s, passed
        self._first_tick = page.first_tick + row
        self._price, self._same_price = price.copy(), price
        self.used, self._valid = 0, True
        self._looked = self._calm = 0
        self.want, self.work, self.shadows = want, work, shadows

    def goes_on(self, page: Page, row: int, now_s: float, price: Float) -> bool:
        """Whether the next tick is this one, at these prices."""
        at = self.used
        if not (self._valid and page is self._page and row == self._row + at and at < len(self.want)):
            return False
        if price is not self._same_price:
            if not np.array_equal(price, self._price):
                return False
            self._same_price = price
        return now_s == self._now_s[at]

    def next(self) -> int:
        """Use the next tick: which of them it is."""
        self.used += 1
        return self.used - 1

    def doubted(self, falls: Falls, tick_s: float, lead_ticks: Float, price: Float) -> Int | None:
        """As `falls.doubted` of the tick that was used last, of all columns; most ticks are known to be calm."""
        at = self.used - 1
        if at < self._calm:
            return None
        self._catch_up(falls, at)
        tick = self._first_tick + at
        held = doubted(falls, tick, tick_s, self.work[at], lead_ticks, price)
        self._looked = self._calm = at + 1
        if held is None:
            self._calm += calm(falls, tick + 1, tick_s, self.work[at + 1 :])
        return held

    def _catch_up(self, falls: Falls, end: int) -> None:
        """Have falls remember the calm ticks before one."""
        pass_calm(falls, self._first_tick + self._looked, self.work[self._looked : end])
        self._looked = max(self._looked, end)

    def settle(self, trial: Trial) -> None:
        """Have the trial remember the demand of the ticks that were used; the others are dropped."""
        self._valid = False
        if not self.used:
            return
        self._catch_up(trial.falls, self.used)
        self._passed.remember(trial, self._first_tick, self.used)
