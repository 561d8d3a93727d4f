"""How long an ordered VM counts as coming, by its policy's plan: one rule for the daemon and for lanes.

Why there are two: a VM started from stopped has all it needs, but one made from nothing first copies an image and sets itself up. A start
that is planned to take five minutes must not count as lost after two, or another VM is made in its place.
"""

from __future__ import annotations

from autoscaler.config.policy import Policy

_STARTS, _SHORTEST_S = 5.0, 120.0
_MAKINGS = 2.0
"""Fewer than of starts: what takes minutes anyway spreads less for its length, and is waited for in shortage."""


def start_patience_s(policy: Policy) -> float:
    """From the order to start a stopped VM until it is not counted on any more."""
    return max(_SHORTEST_S, _STARTS * policy.vm.start_time_s)


def made_patience_s(policy: Policy) -> float:
    """From the order to make a VM from nothing until it is not counted on any more."""
    return max(start_patience_s(policy), _MAKINGS * policy.provision_time_s)
