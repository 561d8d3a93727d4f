"""What models want at ticks to come, worked out at once where a replay foresees demand.

What is remembered of demand moves on with each tick that is used, and only with these: where a tick turns out otherwise, or somebody
looks at what is remembered (`Trial.settle`), the rest is dropped. So nothing depends on it but the time taken.

Rules of this file: no wishes are worked out here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.laws import Page
from autoscaler.core.plain import Passed
from autoscaler.core.trial import Trial
from autoscaler.core.types import Float, SmallInt

AHEAD = "ahead"
"""Under which name it is owed."""


class Ahead:
    """Ticks to come of n columns, T of them, from some row of a page on.

    Args:
        page: In which they are.
        row: The first of them there.
        now_s: Their times, T of them.
        price: float64 (n,), of shortage at all of them.
        want: int (T, 2, M, n), within bounds.
        passed: What is remembered once they are over.

    Attributes:
        want: As given.
        work: float64 (T, n), demand in VMs.
        used: How many of them have come.
    """

    def __init__(
        self, page: Page, row: int, now_s: Sequence[float], price: Float, want: SmallInt, passed: Passed
    ) -> None:
        self._page, self._row, self._now_s, self._passed = page, row, now_s, passed
        self._price, self._same_price = price.copy(), price
        self.used, self._valid = 0, True
        self.want, self.work = want, passed.work

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

    def settle(self, trial: Trial) -> None:
        """Have the trial remember the demand of the ticks that were used; the others are dropped."""
        self._valid = False
        if not self.used:
            return
        trial.falling = self._passed.falling[self.used - 1].copy()
        if self.used == len(self.want):
            trial.peaks = self._passed.peaks
        else:
            trial.peaks.push_page(self._page.first_tick + self._row, self._passed.parts[: self.used])
