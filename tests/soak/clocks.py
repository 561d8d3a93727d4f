"""Clocks of long lives: one that somebody sets, by an hour or by seconds, while the time that passes goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.clock import VirtualClock

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Jump:
    """The clock is set, so many seconds after the beginning, by so many seconds."""

    at_s: float
    by_s: float


class SetClock(VirtualClock):
    """A clock that is set now and then."""

    def __init__(self, origin_s: float, jumps: Sequence[Jump] = ()) -> None:
        super().__init__(origin_s)
        self._origin_s = origin_s
        self.jumps = tuple(jumps)

    def now(self) -> float:
        """Epoch seconds as this clock has them."""
        at_s = self.monotonic()
        return self._origin_s + at_s + sum(jump.by_s for jump in self.jumps if jump.at_s <= at_s)


def jumps_of(seed: int, until_s: float) -> tuple[Jump, ...]:
    """An hour ahead, an hour back, and a quarter of an hour of small steps both ways, in some order."""
    rng = np.random.default_rng((seed, 77))
    kinds = [str(kind) for kind in rng.permutation(["ahead", "back", "steps"])]
    found = []
    for number, kind in enumerate(kinds):
        begin_s = 600.0 + (until_s - 1800.0) * (number + float(rng.uniform(0.1, 0.9))) / len(kinds)
        if kind == "steps":
            found += [Jump(begin_s + 60.0 * n, float(rng.uniform(-25.0, 25.0))) for n in range(15)]
        else:
            found.append(Jump(begin_s, HOUR_S if kind == "ahead" else -HOUR_S))
    return tuple(found)
