"""Places of the world: its region, zones and subnets, and how many VMs of a type fit in a zone.

Rules: values and lookups. How many are in use is counted elsewhere and handed in; dry spells are faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from autoscaler.cloud.vms import LaunchData
from autoscaler.errors import ProviderError


def hex_id(seed: int, *parts: str) -> str:
    """Seventeen hexadecimal digits, the same for the same arguments."""
    text = "/".join((str(seed), *parts))
    return "0" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Places:
    """The map of one world.

    Args:
        seed: Subnet ids follow from it.
        region: Name of the region.
        zones: Last letters of its zones.
        capacity: The most VMs that may run at once per (type, zone); what is not named has no limit.
    """

    def __init__(self, seed: int, region: str, zones: str, capacity: Mapping[tuple[str, str], int]) -> None:
        self.region = region
        self.zones = tuple(region + letter for letter in zones)
        self.subnets = {f"subnet-{hex_id(seed, 'subnet', zone)}": zone for zone in self.zones}
        self._subnet_of = {zone: subnet for subnet, zone in self.subnets.items()}
        self._capacity = dict(capacity)
        for vm_type, zone in self._capacity:
            self.check_zone(zone, f"the capacity of {vm_type}")

    def check_zone(self, zone: str, what: str) -> None:
        """Refuse a zone that is not of this region; for what is configured, not for calls."""
        if zone not in self._subnet_of:
            raise ValueError(f"{what}: {self.region} has the zones {', '.join(self.zones)}, not {zone!r}")

    def subnet_of(self, zone: str) -> str:
        """The one subnet of a zone."""
        return self._subnet_of[zone]

    def room(self, vm_type: str, zone: str, in_use: int) -> int | None:
        """How many more fit; None means no limit."""
        limit = self._capacity.get((vm_type, zone))
        return None if limit is None else max(0, limit - in_use)

    def zone_of(self, data: LaunchData, in_use: Callable[[str], int]) -> str:
        """The zone that a launch goes to; without a wish, the one with most room, the first of equals."""
        if data.subnet:
            if data.subnet not in self.subnets:
                raise ProviderError(
                    f"The subnet ID '{data.subnet}' does not exist", code="InvalidSubnetID.NotFound"
                )
            return self.subnets[data.subnet]
        if data.zone:
            if data.zone not in self._subnet_of:
                raise ProviderError(
                    f"{data.zone} is not a zone of {self.region}", code="InvalidParameterValue"
                )
            return data.zone

        def most(zone: str) -> float:
            room = self.room(data.vm_type, zone, in_use(zone))
            return float("inf") if room is None else room

        return max(self.zones, key=most)
