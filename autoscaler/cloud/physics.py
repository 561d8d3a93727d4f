"""Timing and randomness of the world: how long things take, and where the random numbers come from.

Rules: values and pure functions. Every draw is addressed by (seed, purpose, VM, count). No code holds a position in a
stream, so switching on a fault, or asking in another order, never shifts another draw. The states of VMs are in
`world`, not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

FURTHEST_NORMAL = 4.0
"""Normal draws are clipped to this many standard deviations, so that every duration has a maximum (`Spread.longest_s`)."""


class Purpose(IntEnum):
    """What a random draw is for. The values are part of its address and must never change."""

    START = 1
    BOOT = 2
    STOP = 3
    SHUT_DOWN = 4
    FAULT_ON_VM = 5
    FAULT_ON_CALL = 6
    FAULT_ON_LISTING = 7


def _generator(seed: int, stream: int, purpose: Purpose, item: int, count: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, count, item, int(purpose)]))


def normal(seed: int, purpose: Purpose, vm: int, count: int) -> float:
    """Draw a standard normal for the `count`-th use of this purpose by this VM, clipped at +-FURTHEST_NORMAL."""
    value = float(_generator(seed, 0, purpose, vm, count).standard_normal())
    return min(max(value, -FURTHEST_NORMAL), FURTHEST_NORMAL)


def uniform(seed: int, stream: int, purpose: Purpose, item: int, count: int) -> float:
    """Draw a uniform number in [0, 1). `stream` separates faults from each other."""
    return float(_generator(seed, stream, purpose, item, count).random())


@dataclass(frozen=True, slots=True)
class Spread:
    """A log-normal distribution of durations.

    Attributes:
        median_s: Median in seconds.
        sigma: Standard deviation of the logarithm; with 0.2, the 95 % quantile is 1.39 medians.
    """

    median_s: float
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not (self.median_s >= 0 and math.isfinite(self.median_s)):
            raise ValueError(f"median_s must be zero or more seconds, not {self.median_s}")
        if not 0 <= self.sigma <= 3:
            raise ValueError(f"sigma must be within 0 and 3, not {self.sigma}")

    def at(self, normal_draw: float) -> float:
        """The duration in seconds for a standard normal draw."""
        return self.median_s * math.exp(self.sigma * normal_draw)

    @property
    def longest_s(self) -> float:
        """The longest possible duration, in seconds."""
        return self.at(FURTHEST_NORMAL)


@dataclass(frozen=True, slots=True)
class Physics:
    """How long the provider and the guest take.

    The defaults follow published measurements of a plain Linux image on EC2 in 2026: a stopped VM is running
    16 s after the call and usable 3 s later; a new one is usable after 25 s. A hibernated VM whose guest has nothing to
    warm up is hardly quicker than a stopped one. The time for saving memory is an assumption (8 GiB at 140 MB/s).

    Attributes:
        start: Pending time of a stopped VM that is started.
        boot: Time from running to ready of such a VM.
        launch: Pending time of a new VM.
        first_boot: Time from running to ready of a new VM, which also runs its user data.
        stop: Time from stopping to stopped.
        hibernate: Time from stopping to stopped if the memory is saved first.
        resume: Pending time of a hibernated VM that is started.
        wake: Time from running to ready of such a VM, whose memory is read back.
        may_hibernate_after_s: Time since it first ran before which a VM cannot hibernate.
        hibernated_for_s: Time after which a saved memory is lost: the VM then boots as if it had been stopped.
        shut_down: Time from shutting down to terminated.
        listing_lag_s: Time after which a change appears in listings.
        terminated_listed_s: Time for which a terminated VM stays listed.
    """

    start: Spread = Spread(16.0, 0.2)
    boot: Spread = Spread(3.0, 0.3)
    launch: Spread = Spread(18.0, 0.2)
    first_boot: Spread = Spread(7.0, 0.3)
    stop: Spread = Spread(25.0, 0.4)
    hibernate: Spread = Spread(60.0, 0.4)
    resume: Spread = Spread(16.0, 0.2)
    wake: Spread = Spread(2.4, 0.3)
    may_hibernate_after_s: float = 120.0
    hibernated_for_s: float = 60 * 86400.0
    shut_down: Spread = Spread(20.0, 0.4)
    listing_lag_s: float = 0.0
    terminated_listed_s: float = 3600.0
