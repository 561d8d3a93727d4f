"""Where each VM is, from the latest listing: its machine type and zone.

Why: EC2 refuses a call if one of the places that it names has no room, and calls name VMs only.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.ports import Listing


class VmPlaces:
    """The places of one account's VMs."""

    def __init__(self) -> None:
        self._latest: Listing | None = None
        self._of: dict[str, tuple[str, str]] = {}
        self._retyped: dict[str, str] = {}
        """By id, the new type of VMs that no listing has shown with it yet."""

    def listed(self, listing: Listing) -> None:
        """Note a listing. It is read only when a place is asked for."""
        self._latest = listing

    def retyped(self, vm_id: str, vm_type: str) -> None:
        """Note that a VM has another machine type now."""
        self._retyped[vm_id] = vm_type

    def place_of(self, vm_ids: Sequence[str]) -> tuple[str, str] | None:
        """Return the machine type and zone that all of these VMs share; None if they do not, or it is unknown."""
        self._read()
        places = {self._of.get(vm_id) for vm_id in vm_ids}
        types = {self._retyped.get(vm_id) for vm_id in vm_ids}
        if len(places) != 1 or len(types) != 1:
            return None
        place, new_type = places.pop(), types.pop()
        return place if place is None or new_type is None else (new_type, place[1])

    def _read(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None:
            return
        found = {vm.id: (vm.vm_type, vm.zone) for vm in latest.vms}
        self._of = found if latest.complete else self._of | found
        self._retyped = {
            vm_id: vm_type
            for vm_id, vm_type in self._retyped.items()
            if vm_id in self._of and self._of[vm_id][0] != vm_type
        }
