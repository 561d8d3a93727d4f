"""What the lane engine cannot express, in sentences that name the engine that can.

Rules of this file: a setting that lanes would have to leave out is refused, never ignored. Not refused is what lanes express
in another form than the daemon: the readiness probe (the plant's start time lasts from the order until a VM serves, whatever
the probe), the uneven load of VMs and slow ones (counts share load evenly), zones (there is one place; a dry spell is
everywhere), and what is learned of start times, capacities and types (the plant's VMs are as the policy says, so there is
nothing to learn).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from autoscaler.config.policy import Policy
from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.plant_settings import PlantSettings, Shortage

LONGEST_ON_TICKS = 8640
"""The longest minimum on-time, in ticks: a day at the default tick."""

_LOOP = "the loop engine (the real daemon on virtual time) can"


def refusals(policy: Policy, plant: PlantSettings, tick_s: float) -> list[str]:
    """Return why lanes cannot run this policy on this plant; empty if they can."""
    found = []
    on_ticks = math.ceil(policy.guards.minimum_on_time_s / tick_s - 1e-9)
    if on_ticks > LONGEST_ON_TICKS:
        found.append(
            f"guards.minimum_on_time is {on_ticks} ticks of {tick_s:g} s, but lanes remember at most {LONGEST_ON_TICKS}; "
            f"{_LOOP}"
        )
    if policy.signal.kind in ("concurrency", "queue"):
        found.append(
            f"signal.kind {policy.signal.kind}: neither engine measures it, because both simulate work per second; "
            "use signal.kind throughput or total"
        )
    given = policy.signal.trace
    if given is not None and given.loop:
        found.append(f"signal.trace.loop repeats the recording, but lanes play it once; {_LOOP}")
    if (
        policy.refill is not None
        or policy.freshness.refresh is not None
        or policy.freshness.exercise is not None
    ):
        found.append(f"refill, freshness: VMs are prepared, tested and replaced one by one; {_LOOP}")
    if policy.warm_pool.hibernate is not None:
        found.append(
            f"warm_pool.hibernate: hibernated and stopped VMs take different times to start, but lanes know only "
            f"one; {_LOOP}"
        )
    if policy.guards.stop_share < 1.0:
        found.append(f"guards.stop_share counts single VMs that are leaving; {_LOOP}")
    if policy.balancer is not None:
        found.append(f"balancer: each VM that leaves is watched until it is idle; {_LOOP}")
    if policy.group is not None:
        found.append(
            f"shared: the limits of the group {policy.group.name} apply to several fleets, but lanes are variants of "
            f"one; {_LOOP}, for the fleets that it runs"
        )
    if plant.shortage is Shortage.QUEUED and policy.signal.kind == "utilisation":
        found.append(
            "shortage queued with signal.kind utilisation: utilisation depends on the queue, which neither engine "
            "measures; use signal.kind throughput or total, or shortage lost"
        )
    return found


def refuse(policies: Iterable[Policy], plants: Iterable[PlantSettings], tick_s: float) -> None:
    """Raise an error if lanes cannot run one of these policies on its plant.

    Raises:
        ConfigError: Lanes cannot run at least one of them; it gives all reasons.
    """
    reasons: dict[str, None] = {}
    for policy, plant in zip(policies, plants, strict=True):
        reasons.update(dict.fromkeys(f"{policy.fleet}: {why}" for why in refusals(policy, plant, tick_s)))
    if reasons:
        raise ConfigError("the lane engine cannot run this. " + ". ".join(reasons) + ".")
