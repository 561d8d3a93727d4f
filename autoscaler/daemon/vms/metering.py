"""The cost of a fleet, as the journal records it: the product's one cost model.

A VM is billed from running until stopping begins, per second, at least `MINIMUM_S` per start. Pending and stopping are free,
except that a hibernating VM is billed until that is done. Storage is paid for every provisioned VM, and a saved memory may
cost extra; a start and a provisioning may have a price. The moment at which a VM began to run is known only to lie between
two listings, so the middle is taken: the error is unbiased and evens out over starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

MINIMUM_S = 60.0
"""Shortest billed run per start, in seconds (EC2, Linux)."""


@dataclass(slots=True)
class Run:
    """One billed run of a VM.

    Attributes:
        from_s: When it began to run.
        to_s: When stopping began; None while it runs.
        charged_s: Seconds charged so far.
        counts_start: Whether it began with a start that we saw, so that the price of a start and the minimum apply.
        start_charged: Whether the start was charged.
    """

    from_s: float
    to_s: float | None = None
    charged_s: float = 0.0
    counts_start: bool = False
    start_charged: bool = False


class Metered(Protocol):
    """What the meter reads of a VM."""

    run: Run | None
    closed_runs: list[Run]


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in the one currency of the settings: per VM-hour in service, per VM-hour provisioned, per start, per
    provisioning, and per hour of a saved memory.
    """

    in_service_per_h: float
    stopped_per_h: float
    start: float
    provision: float
    memory_per_h: float = 0.0


@dataclass(slots=True)
class Charge:
    """What one interval cost.

    Attributes:
        running_s: VM-seconds billed as running.
        stored_s: VM-seconds of storage.
        starts: Starts that began to run.
        money: All of it at the fleet's prices, provisioning included.
    """

    running_s: float = 0.0
    stored_s: float = 0.0
    starts: int = 0
    money: float = 0.0


class Meter:
    """Charges one fleet, interval by interval."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.total = Charge()
        self._charged_to_s: float | None = None

    def charge(
        self, vms: Iterable[Metered], provisioned: int, new_vms: int, now_s: float, memories: int = 0
    ) -> Charge:
        """Charge everything up to now, and return what it cost.

        Args:
            vms: The fleet's VMs; their finished runs are charged to the end and dropped.
            provisioned: How many VMs exist.
            new_vms: How many VMs were accepted for provisioning since the last call.
            now_s: The current time.
            memories: How many saved memories exist.
        """
        charge = Charge()
        running_s = 0.0
        for vm in vms:
            if vm.closed_runs:
                for run in vm.closed_runs:
                    running_s += _due(run, now_s, charge)
                vm.closed_runs.clear()
            if vm.run is not None:
                running_s += _due(vm.run, now_s, charge)
        charge.running_s = running_s
        held_s = 0.0
        if self._charged_to_s is not None:
            since_s = max(now_s - self._charged_to_s, 0.0)
            charge.stored_s, held_s = provisioned * since_s, memories * since_s
        self._charged_to_s = now_s
        p = self.prices
        charge.money = (
            charge.running_s / 3600.0 * p.in_service_per_h
            + charge.stored_s / 3600.0 * p.stopped_per_h
            + charge.starts * p.start
            + new_vms * p.provision
        )
        if held_s:
            charge.money += held_s / 3600.0 * p.memory_per_h
        total = self.total
        total.running_s += charge.running_s
        total.stored_s += charge.stored_s
        total.starts += charge.starts
        total.money += charge.money
        return charge


def _due(run: Run, now_s: float, charge: Charge) -> float:
    """Return the seconds of a run that have not been charged yet, and mark them as charged; count its start if due."""
    due_s = (now_s if run.to_s is None else run.to_s) - run.from_s
    if run.counts_start:
        # The provider charges the minimum at once, even before the first minute is over.
        due_s = max(due_s, MINIMUM_S)
        if not run.start_charged:
            charge.starts += 1
            run.start_charged = True
    extra_s = due_s - run.charged_s
    if extra_s <= 0.0:
        return 0.0
    run.charged_s += extra_s
    return extra_s
