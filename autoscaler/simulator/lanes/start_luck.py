"""Which lanes draw their start times independently, and which share the same draws.

Rules of this file: everything follows from settings alone; nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.config.patience import made_patience_s, start_patience_s
from autoscaler.config.policy import Policy
from autoscaler.simulator.lanes.plant_settings import PlantSettings


def has_luck(plants: Sequence[PlantSettings], policies: Sequence[Policy]) -> bool:
    """Whether the starts of some lane differ from VM to VM: times are drawn, or starts may fail or be given up."""
    return any(plant.lucky or _slow(plant, policy) for plant, policy in zip(plants, policies, strict=True))


def _slow(plant: PlantSettings, policy: Policy) -> bool:
    """Whether starts may take longer than the daemon waits before it gives them up."""
    made_late = policy.provision is not None and plant.provision.longest_s > made_patience_s(policy)
    return made_late or plant.start.longest_s > start_patience_s(policy)


def luck_groups(
    plants: Sequence[PlantSettings], policies: Sequence[Policy], shifts: Sequence[int]
) -> list[tuple[tuple[PlantSettings, str, tuple[float, float], int], list[int]]]:
    """Group lanes that share their draws, by the settings, fleet, patience and shift that decide them."""
    found: dict[tuple[PlantSettings, str, tuple[float, float], int], list[int]] = {}
    for lane, (plant, policy, shift) in enumerate(zip(plants, policies, shifts, strict=True)):
        patience_s = start_patience_s(policy), made_patience_s(policy)
        found.setdefault((plant, policy.fleet, patience_s, shift), []).append(lane)
    return list(found.items())
