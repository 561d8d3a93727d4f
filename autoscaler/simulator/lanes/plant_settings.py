"""The settings of the plant: what a simulated fleet is like, as set by a person or a sweep.

Rules of this file: values are frozen and are checked when they are made; an error names the setting. Times are in seconds;
`plant` converts them to ticks. The defaults equal the physics of the embedded cloud in all that the daemon can see, without
any fault: faults must be switched on.

Capacity, prices, readiness and minimum on-time are not set here: the plant reads them from the policy.
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
"""The highest ratio of p95 to mean that a log-normal distribution can have (3.87)."""

LONGEST_START_S = 6 * 3600.0
"""The longest time that can be set, in seconds; a start that would take longer must be set to never end."""


class Shortage(StrEnum):
    """What happens to work that finds no capacity."""

    LOST = "lost"
    """The work is lost."""
    QUEUED = "queued"
    """The work waits and is wanted again in the next interval; shortage is what waits at the end of each interval."""
    SLOWS = "slows"
    """The work is let in and slows all work down: with r = demand / capacity above 1, demand / (1 + s (r - 1)) is served,
    where s is `slowdown` (contention as in Gunther 1993). s = 1 serves exactly the capacity, as `lost` does; s below 1 is a
    fleet that can be pushed beyond its objective; with s above 1 throughput collapses."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A distribution of times: constant, or log-normal given its mean and 95 % quantile.

    Attributes:
        mean_s: The mean; the constant if `p95_s` is None.
        p95_s: The 95 % quantile of a log-normal distribution with that mean.
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
        """The longest possible draw, in seconds."""
        sigma = self.sigma
        return self.mean_s * math.exp(FURTHEST_NORMAL * sigma - 0.5 * sigma**2)

    def draw(self, luck: Luck, purpose: Purpose, index: int, count: int) -> Float:
        """Return float64 (count,), durations in seconds."""
        sigma = self.sigma
        if sigma == 0:
            return np.full(count, self.mean_s)
        normals = luck.normals(purpose, index, count)
        return np.asarray(self.mean_s * np.exp(sigma * normals - 0.5 * sigma**2), np.float64)


@dataclass(frozen=True, slots=True)
class Budget:
    """A provider's token bucket for calls of one kind, in which each VM that a call names takes a token; it starts full.

    A call that exceeds it is refused as a whole, as EC2 does. The provider's bucket of calls never binds here: a tick makes
    at most one call of a kind, and EC2 allows two a second.

    Attributes:
        vms: Size of the bucket.
        vms_per_s: Rate at which it refills.
    """

    vms: float
    vms_per_s: float

    def __post_init__(self) -> None:
        if not (self.vms > 0 and self.vms_per_s >= 0):
            raise ConfigError(
                f"a budget needs vms above 0 and vms_per_s of at least 0, not {self.vms} and {self.vms_per_s}"
            )


Span = tuple[float, float]
"""Start and end in seconds from the start of the run; the end is excluded."""

EC2_STARTS = Budget(1000.0, 2.0)
"""EC2's published default for VMs named by StartInstances, and for those named by RunInstances."""
EC2_STOPS = Budget(1000.0, 20.0)
"""EC2's published default for VMs named by StopInstances."""


@dataclass(frozen=True, slots=True)
class PlantSettings:
    """Settings of one simulated fleet.

    Attributes:
        vms: VMs that exist when the run begins.
        in_service: How many of these already serve; the others are stopped.
        start: Time from the order to start a stopped VM until it serves.
        provision: Time from the order to provision a VM until it serves.
        boot_s: The last part of either time, which is billed: the VM runs but does not serve yet.
        drain_s: Time from the order to stop a VM until stopping begins; the VM takes no work then, and is billed.
        stop_s: Time from the beginning of stopping until the VM could be started again.
        start_failure: Probability that a start falls back to stopped.
        failure_s: Time after which a failing start falls back.
        quarantine_s: Time for which a VM whose start failed is not started again.
        stuck: Probability that a start or a provisioning hangs.
        stuck_s: Extra time that a hanging one takes; infinite if it never ends.
        dry: Spans without capacity: the provider refuses starts and provisionings.
        dry_per_day: Mean number of further such spells a day, at random moments (exponential gaps).
        dry_mean_s: Mean length of those spells (exponential).
        dry_hold_s: Time for which nothing is tried after a refusal for lack of capacity.
        start_budget, provision_budget, stop_budget: The provider's API budget; None for no limit.
        metric_interval_s: Length of the windows over which demand is averaged before it is published; None for the
            trace's own intervals.
        metric_lag_s: Delay after which a window is published; None for the lag that the policy gives for its trace.
        metric_loss: Probability that a window is never published.
        metric_gaps: Spans in which no metric arrives.
        shortage: What happens to work that finds no capacity.
        slowdown: How much overload slows all work (only if shortage slows).
        minimum_billed_s: Least time for which each start is billed.
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
        """Whether starts or provisionings depend on random draws."""
        durations = self.start.constant and self.provision.constant
        return bool(not durations or self.start_failure or self.stuck)

    @property
    def can_run_dry(self) -> bool:
        """Whether the provider can run out of capacity."""
        return bool(self.dry or self.dry_per_day)
