"""When a late VM is overtaken by another: timers learned from the fleet's own starts, and a budget.

Why: half of all bad starts are not refused, but late. Waiting for the longest possible start time costs minutes of shortage;
ordering another VM at the slightest delay costs money. So a start is late once all but the slowest few would have arrived,
and the cost of overtaking is bounded by a share of what the fleet serves.

Rules of this file: pure; time is an argument. With fewer than `ENOUGH` measured times, a timer answers with the upper
bound.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

ENOUGH = 20
"""Least number of measured times from which a timer knows anything."""
_KEPT = 200
_QUANTILE = 0.98
_MARGIN = 1.25
_MARGIN_S = 5.0

IDLE_SHARE = 0.01
"""Budget for overtaken VMs that arrive after all and run for nothing, as a share of the VM-seconds that the fleet serves."""
PER_HEDGE_S = 60.0
"""VM-seconds that a VM which arrives too late costs at least: the shortest billed run."""
_MOST_SAVED_S = 20 * PER_HEDGE_S
"""Most VM-seconds that can be saved up, so that a quiet month does not pay for a wild morning."""


@dataclass(slots=True)
class Timer:
    """The latest measured times of one transition."""

    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, seconds: float) -> None:
        """Add one measured time."""
        self.times_s.append(max(seconds, 0.0))

    def late_after_s(self, at_least_s: float, at_most_s: float) -> float:
        """Return the time after which the transition is late, within the bounds; the upper bound while too little is
        known.

        Times of VMs that were overtaken and arrived after all count too, so the limit rises on a day on which
        everything is slow.
        """
        if len(self.times_s) < ENOUGH:
            return at_most_s
        ordered = sorted(self.times_s)
        slow_s = ordered[min(int(_QUANTILE * len(ordered)), len(ordered) - 1)]
        return min(max(_MARGIN * slow_s + _MARGIN_S, at_least_s), at_most_s)


@dataclass(slots=True)
class Timers:
    """The timers of one fleet: from the order to running, from running to ready, and from the order to stopped.

    New VMs have timers of their own, because all of them would be late compared with starts of stopped VMs.
    """

    pending: Timer = field(default_factory=Timer)
    unready: Timer = field(default_factory=Timer)
    stopping: Timer = field(default_factory=Timer)
    new_pending: Timer = field(default_factory=Timer)
    new_unready: Timer = field(default_factory=Timer)

    def until_running(self, *, new: bool) -> Timer:
        """Return the timer from the order to running."""
        return self.new_pending if new else self.pending

    def until_ready(self, *, new: bool) -> Timer:
        """Return the timer from running to ready."""
        return self.new_unready if new else self.unready


@dataclass(slots=True)
class HedgeBudget:
    """What overtaking late VMs may cost, in VM-seconds that are run for nothing.

    Attributes:
        share: Share of the VM-seconds served that may be spent.
        idle_s: VM-seconds run for nothing so far.
        served_s: VM-seconds served so far.
        saved_s: VM-seconds that may be spent now.
    """

    share: float = IDLE_SHARE
    idle_s: float = 0.0
    served_s: float = 0.0
    saved_s: float = 0.0
    _at_s: float | None = None

    def serve(self, in_service: int, now_s: float) -> None:
        """Credit the share of the VM-seconds that `in_service` VMs have served since the last call."""
        if self._at_s is not None:
            served_s = in_service * max(now_s - self._at_s, 0.0)
            self.served_s += served_s
            self.saved_s = min(self.saved_s + self.share * served_s, _MOST_SAVED_S)
        self._at_s = now_s

    def take(self) -> bool:
        """Pay for overtaking one VM in advance, and return whether the budget allowed it."""
        if self.saved_s < PER_HEDGE_S:
            return False
        self.saved_s -= PER_HEDGE_S
        return True

    def give_back(self) -> None:
        """Refund the advance for an overtaken VM that never ran."""
        self.saved_s = min(self.saved_s + PER_HEDGE_S, _MOST_SAVED_S)

    def ran_idle(self, seconds: float) -> None:
        """Charge what an overtaken VM has run for nothing beyond the advance."""
        self.idle_s += seconds
        self.saved_s -= max(seconds - PER_HEDGE_S, 0.0)
