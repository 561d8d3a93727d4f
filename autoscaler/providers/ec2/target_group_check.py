"""Checks that a target group suits its fleet's policy: how fast it marks a VM healthy, and how long it deregisters.

Rules of this file: pure functions from the load balancer's description of the group to findings; no I/O, no botocore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from autoscaler.ports.findings import Finding, Level

PERMISSIONS: Final = frozenset(
    f"elasticloadbalancing:{action}" for action in ("DescribeTargetGroups", "DescribeTargetGroupAttributes")
)
"""Permissions needed to examine a target group; they are in `deploy/iam-policy-target-groups.json`."""
_CHECK: Final = "balancer"
_MARGIN_S: Final = 60.0
_DEFAULT_DELAY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """A target group as the load balancer describes it.

    Attributes:
        kind: Type of its targets: instance, ip, lambda or alb.
        interval_s: Seconds between two health checks of a target.
        successes: Consecutive successful checks after which a target is healthy.
        delay_s: Longest time that a deregistered target is `draining`, in seconds.
        slow_start_s: Time for which a new target gets less than its share of requests, in seconds; 0 if it does not.
    """

    kind: str
    interval_s: float
    successes: int
    delay_s: float
    slow_start_s: float

    @property
    def healthy_s(self) -> float:
        """Longest time until a VM is healthy, if it has just missed a check, in seconds."""
        return self.interval_s * self.successes


def target_group(described: Mapping[str, Any], attributes: Mapping[str, str]) -> TargetGroup:
    """Build a group from a row of DescribeTargetGroups and its attributes. Missing values get their defaults."""
    return TargetGroup(
        kind=described.get("TargetType", "instance"),
        interval_s=float(described.get("HealthCheckIntervalSeconds", 30)),
        successes=int(described.get("HealthyThresholdCount", 5)),
        delay_s=float(attributes.get("deregistration_delay.timeout_seconds", _DEFAULT_DELAY_S)),
        slow_start_s=float(attributes.get("slow_start.duration_seconds", 0)),
    )


def of_group(fleet: str, group: TargetGroup, start_time_s: float, drain_timeout_s: float) -> list[Finding]:
    """Find settings that do not suit the policy. If all do, one finding says so.

    Args:
        fleet: Name of the fleet.
        group: The target group.
        start_time_s: The policy's start time, from the order until the VM serves, in seconds.
        drain_timeout_s: The policy's limit for a VM to become idle, in seconds.
    """
    found = []
    if group.kind != "instance":
        text = f"the target group's targets are of type {group.kind}: VMs cannot be registered in it by their ids"
        fix = "make a target group of type instance, and name it in balancer.target_group.arn"
        found.append(Finding(_CHECK, Level.PROBLEM, text, fix, fleet))
    if group.healthy_s > start_time_s:
        text = (
            f"the target group may take {group.healthy_s:g} s ({group.successes} checks, one every {group.interval_s:g} s) "
            f"until it calls a new VM healthy, but vm.start_time is {start_time_s:g} s in all: VMs would be ordered too late"
        )
        fix = (
            "set HealthCheckIntervalSeconds to 5 and HealthyThresholdCount to 2 on the target group, or write the time "
            "that a start really takes into vm.start_time"
        )
        found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if group.delay_s > drain_timeout_s:
        text = (
            f"the target group drains a VM for up to {group.delay_s:g} s (deregistration delay), and until then it counts "
            f"as busy, but drain.timeout is {drain_timeout_s:g} s: none would be seen idle in time"
        )
        fix = (
            f"write at least {group.delay_s + _MARGIN_S:g}s for drain.timeout, or lower "
            "deregistration_delay.timeout_seconds to what the longest request takes"
        )
        found.append(Finding(_CHECK, Level.PROBLEM, text, fix, fleet))
    if group.slow_start_s > 0:
        text = (
            f"the target group gives a new VM less than its share for {group.slow_start_s:g} s (slow start)"
        )
        fix = "set slow_start.duration_seconds to 0, or add it to vm.start_time"
        found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if found:
        return found
    text = f"the target group calls a new VM healthy within {group.healthy_s:g} s and lets one go within {group.delay_s:g} s"
    return [Finding(_CHECK, Level.OK, text, "", fleet)]
