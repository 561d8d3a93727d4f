"""The figures of a score card: name, unit and meaning of each, declared once for all ways to compute it.

Rules of this file: declarations only. `judging.score` computes figures from sums, `card` from totals. A figure that cannot
be computed is NaN, which is shown as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoscaler.simulator.report.wording import Unit

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the score card.

    Attributes:
        key: Key for programs.
        label: Name for people.
        unit: Unit of the value.
        better: Which direction is better.
        what: Its meaning in one or two sentences.
        group: Heading under which it is shown.
    """

    key: str
    label: str
    unit: Unit
    better: Better
    what: str
    group: str = ""


FIGURES: tuple[Figure, ...] = (
    Figure(
        "cost", "Cost", Unit.MONEY, "lower",
        "Everything that is paid for the run: VMs while they are billed as running (at least 60 s per start), "
        "storage of every provisioned VM, and the prices of starts and of new VMs, if the policy has any.",
        "Money",
    ),
    Figure(
        "cost_per_day", "Cost per day", Unit.MONEY, "lower",
        "Cost of an average day of the run.",
        "Money",
    ),
    Figure(
        "running_cost", "Cost of running VMs", Unit.MONEY, "lower",
        "VM-hours billed as running, at least 60 s per start, at their price.",
        "Money",
    ),
    Figure(
        "start_cost", "Cost of starts and new VMs", Unit.MONEY, "lower",
        "Prices of starts that came into service and of new VMs, if the policy has any.",
        "Money",
    ),
    Figure(
        "storage_cost", "Cost of storage", Unit.MONEY, "lower",
        "Disks of all VMs that exist, whether they run or not.",
        "Money",
    ),
    Figure(
        "vm_hours", "VM-hours in service", Unit.VM_HOURS, "lower",
        "Hours in which VMs were in service, summed over all VMs.",
        "Money",
    ),
    Figure(
        "billed_vm_hours", "VM-hours billed", Unit.VM_HOURS, "lower",
        "Hours for which VMs are billed as running, summed over all VMs: while they come into service, serve and drain, at "
        "least 60 s per start.",
        "Money",
    ),
    Figure(
        "pool_vm_hours", "VM-hours in the warm pool", Unit.VM_HOURS, "neither",
        "Hours in which VMs were stopped and could have been started, summed over all VMs.",
        "Money",
    ),
    Figure(
        "capacity_used", "Capacity used", Unit.SHARE, "neither",
        "Work served, as a share of what the VMs in service could have done at the objective.",
        "Money",
    ),
    Figure(
        "unserved_share", "Work unserved", Unit.SHARE, "lower",
        "Share of all wanted work that exceeded what the VMs in service could do at the objective.",
        "Service",
    ),
    Figure(
        "unserved_work", "Unserved work", Unit.WORK, "lower",
        "Wanted work that found no capacity, in units of work.",
        "Service",
    ),
    Figure(
        "shortage_s", "Time with shortage", Unit.SPAN, "lower",
        "Time in which demand exceeded capacity, by however little.",
        "Service",
    ),
    Figure(
        "unknown_s", "Time unknown", Unit.SPAN, "lower",
        "Time for which the trace has no demand. All figures about demand leave it out.",
        "Service",
    ),
    Figure(
        "episodes", "Shortage episodes", Unit.COUNT, "lower",
        "Number of shortages. Adjoining ticks with shortage are one episode.",
        "Service",
    ),
    Figure(
        "longest_episode_s", "Longest episode", Unit.SPAN, "lower",
        "Length of the longest shortage episode.",
        "Service",
    ),
    Figure(
        "mean_episode_s", "Mean episode", Unit.SPAN, "lower",
        "Mean length of a shortage episode.",
        "Service",
    ),
    Figure(
        "worst_shortage", "Worst shortage", Unit.NUMBER, "lower",
        "The highest shortage of any tick, in work per second.",
        "Service",
    ),
    Figure(
        "mean_wait_s", "Mean time to capacity", Unit.SPAN, "lower",
        "Mean length of the periods in which fewer VMs were in service than wanted.",
        "Service",
    ),
    Figure(
        "longest_wait_s", "Longest time to capacity", Unit.SPAN, "lower",
        "Length of the longest period in which fewer VMs were in service than wanted.",
        "Service",
    ),
    Figure(
        "warm_hits", "Warm hits", Unit.SHARE, "higher",
        "Share of the ordered VMs that were started from the warm pool rather than newly made.",
        "Service",
    ),
    Figure(
        "failed_starts", "Starts that failed", Unit.SHARE, "lower",
        "Share of the ordered VMs that never came into service.",
        "Service",
    ),
    Figure(
        "starts_per_day", "VMs started per day", Unit.PER_DAY, "lower",
        "Starts that the provider accepted. Each is an API call and a boot, and both can fail.",
        "Stability",
    ),
    Figure(
        "churn_per_day", "Starts and stops per day", Unit.PER_DAY, "lower",
        "VMs started, newly made and stopped on an average day.",
        "Stability",
    ),
    Figure(
        "reversals_per_day", "Changes of direction per day", Unit.PER_DAY, "lower",
        "How often the wanted number of VMs turned from rising to falling or back.",
        "Stability",
    ),
    Figure(
        "thrash_per_day", "Thrash per day", Unit.PER_DAY, "lower",
        "Movement of the wanted number of VMs against its trend over about an hour, on an average day, in units of the "
        "whole range that it covered. A daily cycle gives none, flapping gives much.",
        "Stability",
    ),
    Figure(
        "under_accuracy", "Under-provisioning accuracy", Unit.SHARE, "lower",
        "VMs missing from what demand needs, as a share of the need, averaged over time.",
        "Elasticity",
    ),
    Figure(
        "over_accuracy", "Over-provisioning accuracy", Unit.SHARE, "lower",
        "VMs beyond what demand needs, as a share of the need, averaged over time.",
        "Elasticity",
    ),
    Figure(
        "under_time", "Under-provisioning time share", Unit.SHARE, "lower",
        "Share of time with fewer VMs than demand needs.",
        "Elasticity",
    ),
    Figure(
        "over_time", "Over-provisioning time share", Unit.SHARE, "lower",
        "Share of time with more VMs than demand needs.",
        "Elasticity",
    ),
    Figure(
        "instability", "Instability", Unit.SHARE, "lower",
        "Share of time in which the number of VMs in service did not move as the need did. It is descriptive and not for "
        "ranking: headroom alone makes it high.",
        "Elasticity",
    ),
    Figure(
        "regret", "Regret", Unit.SHARE, "lower",
        "How much more the run cost than the cheapest schedule that knows the future and leaves the same share of the "
        "work unserved.",
        "In comparison",
    ),
    Figure(
        "captured", "Captured savings", Unit.SHARE, "higher",
        "Share of the possible savings against a fleet sized for the peak that was achieved: 0 is the cost of that "
        "fleet, 1 the least possible cost. Read it together with the unserved work.",
        "In comparison",
    ),
    Figure(
        "pool_cost", "Cost of the warm pool", Unit.MONEY, "lower",
        "Cost with the warm pool minus the cost without it. Below 0, the pool pays for itself.",
        "In comparison",
    ),
    Figure(
        "shortage_avoided_s", "Shortage avoided by the warm pool", Unit.SPAN, "higher",
        "Time with shortage without the warm pool minus the time with shortage with it.",
        "In comparison",
    ),
    Figure(
        "cost_per_avoided_s", "Cost per second of shortage avoided", Unit.MONEY, "lower",
        "Cost of the warm pool for each second of shortage that it avoids. It does not apply if the pool avoids none.",
        "In comparison",
    ),
)  # fmt: skip
"""All figures, in the order of the score card."""
