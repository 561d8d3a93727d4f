"""Places as one fleet sees them: what the fleets of its account share, and a lack of room that concerns this fleet alone.

Why: a capacity reservation or a dedicated host that is full says nothing about VMs of other fleets of the same type in the
same zone, which start elsewhere. Which VMs are bound to it is not known, so all of the fleet's VMs there count as bound.

Rules of this file: as in `places`. A lack of room of one fleet is not remembered across a restart: it lasts for minutes.
"""

from __future__ import annotations

import math

from autoscaler.daemon.vms.places import Places
from autoscaler.daemon.vms.quarantine import FailureCause


class FleetPlaces:
    """What is known of the places of one fleet.

    Args:
        shared: What is known of the places of its account and region.
    """

    def __init__(self, shared: Places) -> None:
        self.shared = shared
        self._own = Places()

    @property
    def version(self) -> int:
        """Counts the changes to what may be started."""
        return self.shared.version + self._own.version

    @property
    def dry_at_all(self) -> bool:
        """Whether any place was found dry and has not been found to have room since."""
        return self.shared.dry_at_all or self._own.dry_at_all

    def found_dry(
        self,
        vm_type: str,
        zone: str,
        now_s: float,
        blame: FailureCause = FailureCause.PLACE,
        vms: int = 1,
    ) -> None:
        """Note that there was no room for so many VMs of this type in this zone: for anybody, of its quota, or of what this fleet
        has reserved.
        """
        if blame is FailureCause.RESERVED:
            self._own.found_dry(vm_type, zone, now_s, vms=vms)
            # The answer says nothing about the place that all fleets share, so another fleet may try it.
            self.shared.give_back(vm_type, zone, now_s, now_s)
        else:
            self.shared.found_dry(vm_type, zone, now_s, quota=blame is FailureCause.QUOTA, vms=vms)

    def found_room(self, vm_type: str, zone: str, vms: int = 1) -> None:
        """See `Places.found_room`."""
        self.shared.found_room(vm_type, zone, vms)
        self._own.found_room(vm_type, zone, vms)

    def take_room_again(self) -> bool:
        """See `Places.take_room_again`."""
        shared, own = self.shared.take_room_again(), self._own.take_room_again()
        return shared or own

    def claim(self, vm_type: str, zone: str, now_s: float) -> None:
        """See `Places.claim`."""
        self.shared.claim(vm_type, zone, now_s)
        self._own.claim(vm_type, zone, now_s)

    def give_back(self, vm_type: str, zone: str, sent_s: float, now_s: float) -> None:
        """See `Places.give_back`."""
        self.shared.give_back(vm_type, zone, sent_s, now_s)
        self._own.give_back(vm_type, zone, sent_s, now_s)

    def give_back_all_of(self, at_s: float) -> None:
        """See `Places.give_back_all_of`."""
        self.shared.give_back_all_of(at_s)
        self._own.give_back_all_of(at_s)

    def at_most(self, vm_type: str, zone: str, now_s: float) -> float:
        """See `Places.at_most`."""
        most = self.shared.at_most(vm_type, zone, now_s)
        return most if most < 1.0 else min(most, self._own.at_most(vm_type, zone, now_s))

    def free_from_s(self, vm_type: str, zone: str) -> float:
        """See `Places.free_from_s`."""
        if not self.dry_at_all:
            return -math.inf
        return max(each.free_from_s(vm_type, zone) for each in (self.shared, self._own))

    def tried_together(self, vm_type: str, zone: str) -> frozenset[tuple[str, str]]:
        """See `Places.tried_together`."""
        return self.shared.tried_together(vm_type, zone) | self._own.tried_together(vm_type, zone)

    def dry(self, now_s: float) -> list[tuple[str, str]]:
        """See `Places.dry`."""
        own = self._own.dry(now_s)
        return sorted({*self.shared.dry(now_s), *own}) if own else self.shared.dry(now_s)

    def tell(self, vm_type: str, zone: str, now_s: float, *, tried: int, failed: int) -> None:
        """See `Places.tell`."""
        self.shared.tell(vm_type, zone, now_s, tried=tried, failed=failed)

    def success(self, vm_type: str, zone: str, now_s: float) -> float:
        """See `Places.success`."""
        return self.shared.success(vm_type, zone, now_s)
