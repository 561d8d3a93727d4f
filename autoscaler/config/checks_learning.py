"""Checks of what a policy lets the daemon learn.

Rules of this file: as `checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.config.finding import Finding
from autoscaler.config.policy import Policy


def check_learning(policy: Policy) -> Iterator[Finding]:
    """What cannot be learned from the policy's signal."""
    kind = policy.signal.kind
    if policy.vm.learn_capacity is not None and kind != "throughput":
        yield Finding(
            (("vm", "learn_capacity"), ("signal", "kind")),
            f"`vm.learn_capacity` needs the work of each VM, and `signal.kind` {kind} does not measure it",
            "remove `vm.learn_capacity`, or measure throughput",
        )
