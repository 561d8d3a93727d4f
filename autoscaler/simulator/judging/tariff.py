"""Work, time and cost of whole VMs: linear in counts, so that only counts need to be summed.

A simulated fleet of counts is billed by rules that are the same in every tick. So its capacity, its billed time and its cost
need not be computed tick by tick. They follow from how many VMs there were, summed as integers, which is exact however a run
is cut. What does not follow from counts (the rest of a billing minimum, drawn start times) is summed separately as
VM-seconds.

Rules of this file: element-wise over lanes, each figure in one fixed order of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from autoscaler.core.types import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates of L lanes, float64 (L,) unless said otherwise.

    Attributes:
        tick_s: float, seconds of a tick.
        capacity: Work per second of a VM in service.
        drains: bool (L,), whether a VM drains before it stops, and so is billed for longer.
        lead_in_s, made_lead_in_s: Seconds that one VM started from stopped, or provisioned, was billed before it
            served; 0 if that is summed VM by VM.
        running: Money per VM-second.
        stored: Money per provisioned VM and tick.
        start, make: Money per start that came into service, and per provisioning.
    """

    tick_s: float
    capacity: Float
    drains: Bool
    lead_in_s: Float
    made_lead_in_s: Float
    running: Float
    stored: Float
    start: Float
    make: Float

    def work(self, in_service: Int, stops: Int) -> Float:
        """Return the work per second, summed over ticks, that VMs in service can do, without those just stopped."""
        return (in_service - stops) * self.capacity

    def billed_s(
        self, in_service: Int, stops: Int, draining: Int, arrived: Int, made: Int, extra_s: Float
    ) -> Float:
        """Return the VM-seconds billed as running.

        Args:
            in_service: int64 (L,), VMs in service at the beginning of each tick, summed over ticks.
            stops: int64 (L,), VMs whose stop was accepted.
            draining: int64 (L,), draining VMs at the beginning of each tick, summed over ticks.
            arrived: int64 (L,), VMs that came into service from stopped.
            made: int64 (L,), VMs that came into service from provisioning.
            extra_s: float64 (L,), VM-seconds billed that do not follow from counts.
        """
        ticks = in_service - stops + draining + stops * self.drains
        return ticks * self.tick_s + arrived * self.lead_in_s + made * self.made_lead_in_s + extra_s

    def cost(self, billed_s: Float, provisioned: Int, came: Int, provisions: Int) -> Float:
        """Return the cost in money.

        Args:
            billed_s: float64 (L,), as returned by `billed_s`.
            provisioned: int64 (L,), VMs that existed, summed over ticks.
            came: int64 (L,), VMs that came into service.
            provisions: int64 (L,), provisionings accepted.
        """
        return (
            billed_s * self.running + provisioned * self.stored + came * self.start + provisions * self.make
        )

    def taken(self, lanes: Int | slice) -> Tariff:
        """Return the rates of some of the lanes, in the order given."""
        return Tariff(self.tick_s, *(getattr(self, name)[lanes].copy() for name in _RATES))

    @classmethod
    def side_by_side(cls, parts: Sequence[Tariff]) -> Tariff:
        """Join the lanes of several tariffs with the same tick, in order."""
        joined = (np.concatenate([getattr(part, name) for part in parts]) for name in _RATES)
        return cls(parts[0].tick_s, *joined)


_RATES = tuple(field.name for field in fields(Tariff) if field.name != "tick_s")
