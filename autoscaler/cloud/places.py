"""Places of the world: its region, zones and subnets, and how many VMs of a type fit in a zone.

Rules: values and look-ups. The number of VMs in use is counted elsewhere and passed in. Lack of capacity is a fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from autoscaler.cloud.vms import LaunchData
from autoscaler.errors import ProviderError


def hex_id(seed: int, *parts: str) -> str:
    """Seventeen hexadecimal digits, which are the same for the same arguments."""
    text = "/".join((str(seed), *parts))
    return "0" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Places:
    """The region of one world, with its zones and subnets.

    Args:
        seed: Seed from which subnet ids are derived.
        region: Name of the region.
        zones: Last letters of its zones.
        capacity: Most VMs that may run at once, by type and zone. Other combinations have no limit.
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
        """Raise ValueError for a zone outside this region. For configuration, not for calls."""
        if zone not in self._subnet_of:
            raise ValueError(f"{what}: {self.region} has the zones {', '.join(self.zones)}, not {zone!r}")

    def subnet_of(self, zone: str) -> str:
        """The only subnet of a zone."""
        return self._subnet_of[zone]

    def room(self, vm_type: str, zone: str, in_use: int) -> int | None:
        """How many more VMs fit; None if there is no limit."""
        limit = self._capacity.get((vm_type, zone))
        return None if limit is None else max(0, limit - in_use)

    def zone_of(self, data: LaunchData, in_use: Callable[[str], int]) -> str:
        """The zone for a launch. If it names none, this is the zone with most room, the first of equals."""
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
