"""How long an ordered VM counts as coming, by its policy's plan: one rule for the daemon and for lanes.

There are two limits because a VM started from stopped has all it needs, while a VM made from nothing first copies an image and sets
itself up. A start that is planned to take five minutes must not count as lost after two, or another VM is made in its place.
"""

from __future__ import annotations

from autoscaler.config.policy import Policy

_STARTS, _SHORTEST_S = 5.0, 120.0
_MAKINGS = 2.0
"""A VM made from nothing counts as coming for this many times the planned time. It is less than for starts (`_STARTS`), because a time
of minutes varies less relative to its length, and the fleet is short of VMs meanwhile.
"""


def start_patience_s(policy: Policy) -> float:
    """Return how long a VM ordered to start from stopped counts as coming, seconds."""
    return max(_SHORTEST_S, _STARTS * policy.vm.start_time_s)


def made_patience_s(policy: Policy) -> float:
    """Return how long a VM ordered to be made from nothing counts as coming, seconds."""
    return max(start_patience_s(policy), _MAKINGS * policy.provision_time_s)
