"""The real VMs of a fleet in shadow: which run, which are asked for metrics, and what they cost.

Why: the inventory of a fleet in shadow is a simulation. Metrics come from the VMs that really run, whatever the
simulation has done to them, and a policy can be judged only by comparison with the real fleet.

Rules of this file: nothing is decided here, and nothing here reaches the simulated inventory. A VM counts as in service
once it is listed as running, because VMs that the daemon does not order are not probed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from autoscaler.daemon.vms.hibernation import held
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.daemon.vms.metering import Meter, Prices
from autoscaler.daemon.vms.tracked import Patience
from autoscaler.ports import Listing, RealVms, Vm


class RealFleet:
    """The real VMs of one fleet in shadow.

    Args:
        fleet: Its name.
        patience: How long a VM may be missing from listings before it is gone.
        prices: The policy's prices.
    """

    def __init__(self, fleet: str, patience: Patience, prices: Prices) -> None:
        self._inventory = FleetInventory(fleet, patience)
        self._meter = Meter(prices)

    def taking_in(self, listing: Listing, mine: Sequence[Vm], now_s: float) -> Iterator[int]:
        """Apply a listing of a shadow provider part by part; a listing without real VMs is ignored.

        Args:
            listing: The whole listing.
            mine: The fleet's real VMs in it.
            now_s: The current time.

        Yields:
            How many VMs were looked at.
        """
        if listing.real is not None:
            # What happens to real VMs is not an event of the shadow, whose VMs are simulated.
            yield from self._inventory.reconciling(listing, mine, now_s, [])

    def change(self, patience: Patience, prices: Prices) -> None:
        """Continue under another policy."""
        self._inventory.patience = patience
        self._meter.prices = prices

    @property
    def running(self) -> Sequence[Vm]:
        """The real VMs that run, in the order of ids."""
        return self._inventory.vms_in(Phase.RUNNING)

    def expected(self, reported: Iterable[str], now_s: float, grace_s: float) -> int:
        """Return how many VMs should have reported: those that did, and those that have run for longer than `grace_s`."""
        known = set(reported)
        return sum(vm.id in known or now_s - vm.launched_at_s > grace_s for vm in self.running)

    def charge(self, now_s: float) -> RealVms | None:
        """Charge up to now, and return counts and cost of the real VMs; None before the first complete listing."""
        if not self._inventory.listed:
            return None
        counts = self._inventory.counts(now_s, math.inf)
        provisioned = counts.provisioned
        memories = held(self._inventory) if self._meter.prices.memory_per_h else 0
        charge = self._meter.charge(self._inventory.metered(), provisioned, 0, now_s, memories)
        return RealVms(len(self.running), provisioned, charge.money)
