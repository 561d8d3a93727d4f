"""The settings of the plant: what a simulated fleet is like, as set by a person or a sweep.

Rules of this file: frozen values, checked where they are made, with a sentence that names the knob. Times are
seconds here; what they are in ticks is `plant`. The defaults are those of the embedded cloud's physics for
what the daemon can see, without any fault: a fault is something that one switches on.

Not here: what the policy says (capacity, prices, readiness, minimum on-time), which the plant reads from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from autoscaler.core.types import Float
from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.draws import FURTHEST_NORMAL, Luck, Purpose

_P95_NORMAL = 1.6448536269514722
_MOST_SKEWED = math.exp(0.5 * _P95_NORMAL**2)
"""The highest ratio of p95 to mean that a log-normal distribution has (3.87)."""

LONGEST_START_S = 6 * 3600.0
"""A start that takes longer than this is said to never end."""


class Shortage(StrEnum):
    """What becomes of work that finds no capacity."""

    LOST = "lost"
    """It goes away."""
    QUEUED = "queued"
    """It waits, and is wanted again in the next interval; shortage counts what waits at the end of each."""
    SLOWS = "slows"
    """It is let in and slows all work down: with r = demand / capacity above 1, demand / (1 + s (r - 1)) is
    served, s being `slowdown` (contention as in Gunther 1993). s = 1 serves exactly the capacity, which is
    what `lost` does; s below 1 is a fleet that can be pushed beyond its objective; s above 1 collapses."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A distribution of times: constant, or log-normal by mean and 95 % quantile.

    Attributes:
        mean_s: The mean; the constant where nothing else is given.
        p95_s: The 95 % quantile of a log-normal distribution of that mean.
    """

    mean_s: float = 0.0
    p95_s: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean_s) and 0 <= self.mean_s <= LONGEST_START_S):
            raise ConfigError(f"mean_s must be within 0 and {LONGEST_START_S:g} seconds, not {self.mean_s}")
        if self.p95_s is not None and not self.mean_s <= self.p95_s <= self.mean_s * _MOST_SKEWED:
            raise ConfigError(
                f"a 95 % quantile of {self.p95_s:g} s does not go with a mean of {self.mean_s:g} s: it must be from "
                f"{self.mean_s:g} s to {self.mean_s * _MOST_SKEWED:g} s (no log-normal distribution has another)"
            )

    @property
    def constant(self) -> bool:
        """Whether every draw is the same."""
        return self.sigma == 0

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        if self.p95_s is None or self.mean_s == 0:
            return 0.0
        return _P95_NORMAL - math.sqrt(max(_P95_NORMAL**2 - 2.0 * math.log(self.p95_s / self.mean_s), 0.0))

    @property
    def longest_s(self) -> float:
        """No draw is longer than this."""
        sigma = self.sigma
        return self.mean_s * math.exp(FURTHEST_NORMAL * sigma - 0.5 * sigma**2)

    def draw(self, luck: Luck, purpose: Purpose, index: int, count: int) -> Float:
        """float64 (count,), seconds."""
        sigma = self.sigma
        if sigma == 0:
            return np.full(count, self.mean_s)
        normals = luck.normals(purpose, index, count)
        return np.asarray(self.mean_s * np.exp(sigma * normals - 0.5 * sigma**2), np.float64)


@dataclass(frozen=True, slots=True)
class Budget:
    """A provider's token bucket of VMs that may be named by calls of one kind; it starts full.

    What does not fit is refused as a whole, as EC2 does. The bucket of calls itself cannot bind here: a tick makes at
    most one call of a kind, and EC2 gives two a second.

    Attributes:
        vms: Size.
        vms_per_s: What flows back.
    """

    vms: float
    vms_per_s: float

    def __post_init__(self) -> None:
        if not (self.vms > 0 and self.vms_per_s >= 0):
            raise ConfigError(
                f"a budget needs vms above 0 and vms_per_s of at least 0, not {self.vms} and {self.vms_per_s}"
            )


Span = tuple[float, float]
"""Start and end in seconds from the start of the run, half open."""

EC2_STARTS = Budget(1000.0, 2.0)
"""EC2's published default for VMs named by StartInstances, and likewise by RunInstances."""
EC2_STOPS = Budget(1000.0, 20.0)
"""The same for StopInstances."""


@dataclass(frozen=True, slots=True)
class PlantSettings:
    """One simulated fleet of counts.

    Attributes:
        vms: VMs that exist when the run begins.
        in_service: Of these, VMs that already serve; the others are stopped.
        start: From the order to start a stopped VM until it serves.
        provision: From the order to make a VM until it serves.
        boot_s: The end of either that is billed: running, not yet in service.
        drain_s: From the order to stop a VM until its stopping begins; it takes no work then, and is billed.
        stop_s: From the beginning of stopping until it could be started again.
        start_failure: Chance that a start falls back to stopped.
        failure_s: After how long it does.
        quarantine_s: How long such a VM is not tried again.
        stuck: Chance that a start or a provisioning hangs.
        stuck_s: How much longer it takes then; infinite for never.
        dry: Spans without capacity: the provider refuses starts and provisionings.
        dry_per_day: Mean number of further such spells a day, at random moments (exponential gaps).
        dry_mean_s: Their mean length (exponential).
        dry_hold_s: How long nothing is tried after a refusal for want of capacity.
        start_budget, provision_budget, stop_budget: The provider's API budget; None is no limit.
        metric_interval_s: Windows over which demand is averaged before it is published; None for the trace's own.
        metric_lag_s: How late a window is published; None for what the policy says of its trace.
        metric_loss: Chance that a window is never published.
        metric_gaps: Spans in which no metric arrives.
        shortage: What becomes of work that finds no capacity.
        slowdown: How much overload slows (shortage slows only).
        minimum_billed_s: What each start is billed for at least.
    """

    vms: int = 10
    in_service: int = 0
    start: Duration = field(default_factory=lambda: Duration(20.0))
    provision: Duration = field(default_factory=lambda: Duration(25.0))
    boot_s: float = 3.0
    drain_s: float = 0.0
    stop_s: float = 25.0
    start_failure: float = 0.0
    failure_s: float = 10.0
    quarantine_s: float = 600.0
    stuck: float = 0.0
    stuck_s: float = math.inf
    dry: tuple[Span, ...] = ()
    dry_per_day: float = 0.0
    dry_mean_s: float = 1800.0
    dry_hold_s: float = 180.0
    start_budget: Budget | None = None
    provision_budget: Budget | None = None
    stop_budget: Budget | None = None
    metric_interval_s: float | None = None
    metric_lag_s: float | None = None
    metric_loss: float = 0.0
    metric_gaps: tuple[Span, ...] = ()
    shortage: Shortage = Shortage.LOST
    slowdown: float = 1.0
    minimum_billed_s: float = 60.0

    def __post_init__(self) -> None:
        self._check("vms", self.vms, 0, 100_000)
        self._check("in_service", self.in_service, 0, self.vms)
        for name in ("boot_s", "drain_s", "stop_s", "failure_s", "quarantine_s", "dry_hold_s"):
            self._check(name, getattr(self, name), 0, LONGEST_START_S)
        for name in ("start_failure", "stuck", "metric_loss"):
            self._check(name, getattr(self, name), 0, 1)
        self._check("dry_per_day", self.dry_per_day, 0, 1440)
        self._check("dry_mean_s", self.dry_mean_s, 1, 7 * 86400.0)
        self._check("slowdown", self.slowdown, 0, 100)
        self._check("minimum_billed_s", self.minimum_billed_s, 0, 3600)
        if self.metric_interval_s is not None:
            self._check("metric_interval_s", self.metric_interval_s, 1, 86400)
        if self.metric_lag_s is not None:
            self._check("metric_lag_s", self.metric_lag_s, 0, 86400)
        if math.isfinite(self.stuck_s):
            self._check("stuck_s", self.stuck_s, 0, LONGEST_START_S)
        for name in ("dry", "metric_gaps"):
            for start_s, end_s in getattr(self, name):
                if not start_s < end_s:
                    raise ConfigError(f"{name}: a span must end after it starts, not {start_s} to {end_s}")

    @staticmethod
    def _check(name: str, value: float, lowest: float, highest: float) -> None:
        if not lowest <= value <= highest:
            raise ConfigError(f"{name} must be within {lowest:g} and {highest:g}, not {value:g}")

    @property
    def lucky(self) -> bool:
        """Whether starts or provisionings depend on draws."""
        durations = self.start.constant and self.provision.constant
        return bool(not durations or self.start_failure or self.stuck)

    @property
    def can_run_dry(self) -> bool:
        """Whether capacity can be missing."""
        return bool(self.dry or self.dry_per_day)
