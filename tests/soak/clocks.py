"""A clock for long lives that can be set, by an hour or by seconds, while monotonic time continues."""

from __future__ import annotations

from autoscaler.clock import VirtualClock

HOUR_S = 3600.0


class SetClock(VirtualClock):
    """A clock that can be set."""

    def __init__(self, origin_s: float) -> None:
        super().__init__(origin_s)
        self.ahead_s = 0.0

    def now(self) -> float:
        """Epoch seconds as this clock shows them."""
        return super().now() + self.ahead_s
