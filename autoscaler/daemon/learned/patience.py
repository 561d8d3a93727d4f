"""How long the daemon waits for VMs: as the policy plans, or longer if new VMs have been seen to take longer.

Why: an image that takes twelve minutes to set itself up would be abandoned after ten, again and again, with another VM made
in its place. Starts from stopped do not need this: five times the planned time is enough to measure them.

Rules of this file: learning only makes patience longer, never shorter, and only within bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from autoscaler.config.patience import made_patience_s, start_patience_s
from autoscaler.config.policy import Policy
from autoscaler.core.learned.lead_time import StartSource
from autoscaler.daemon.learned.learning import Learning
from autoscaler.daemon.vms.inventory import FleetInventory
from autoscaler.daemon.vms.tracked import Patience

LONGER = 1.5
"""Factor on the time that nine of ten new VMs did not exceed."""
LONGEST_S = 3600.0
"""Longest patience that can be learned, in seconds."""


def patience_of(policy: Policy) -> Patience:
    """Return the patience that follows from the policy."""
    return Patience(
        start_s=start_patience_s(policy),
        made_s=made_patience_s(policy),
        stop_s=max(600.0, 10.0 * policy.vm.stop_time_s),
        hands_off_s=policy.guards.hands_off_s,
    )


def update_patience(fleets: Iterable[tuple[str, Policy, FleetInventory]], learning: Learning) -> None:
    """Make the daemon wait for new VMs as long as they were seen to take.

    Args:
        fleets: Name, policy and inventory of each fleet.
        learning: What was learned of them.
    """
    made_s = {fleet: s for fleet, source, s in learning.start_times() if source is StartSource.FRESH}
    for name, policy, inventory in fleets:
        planned_s, learned_s = made_patience_s(policy), LONGER * made_s.get(name, 0.0)
        longer_s = max(planned_s, min(learned_s, LONGEST_S))
        if not math.isclose(inventory.patience.made_s, longer_s):
            inventory.patience = replace(inventory.patience, made_s=longer_s)
