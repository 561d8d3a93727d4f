"""Compares a policy on the same demand and plant with peers, no pool, fixed pools, and hindsight.

All run side by side (`contest`), so that they face the same random draws and have the same information. Then follows the
clairvoyant optimum that leaves as large a share of the work unserved as the policy did. The result is the entries of a score
card, with the policy first.

Rules of this file: it has no rule and no figure of its own. `peers` and `alarms` decide, `clairvoyant` computes hindsight,
and `score` computes figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Int
from autoscaler.simulator.judging.clairvoyant import Front, Optimum, Terms, peak_vms
from autoscaler.simulator.judging.contest import Contestant, ContestCourse, contest
from autoscaler.simulator.judging.ledger import Block, Sums
from autoscaler.simulator.judging.score import Comparators, LanePrices, score
from autoscaler.simulator.judging.stretches import sums_of_one
from autoscaler.simulator.lanes.measuring import Ticks, wanted
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.peers.alarms import StepScaling, TargetTracking
from autoscaler.simulator.peers.holding import DelayedOff, Google, break_even_s
from autoscaler.simulator.peers.kubernetes import Kubernetes
from autoscaler.simulator.peers.peer import Peer
from autoscaler.simulator.peers.periodic import SameTimeBefore
from autoscaler.simulator.report.card import Entry
from autoscaler.traces.trace import Trace

_COST_PRECISION = 1e-4
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Rival:
    """A peer that policies are compared with.

    Attributes:
        key: Name for programs.
        name: Name for people.
        what: A sentence that states its rule.
        make: Builds the peer from the parameters of its lane and the terms of the fleet.
    """

    key: str
    name: str
    what: str
    make: Callable[[LaneParams, Terms], Peer]


RIVALS: tuple[Rival, ...] = (
    Rival(
        "target_tracking", "AWS target tracking",
        "Target 77% of capacity. Scales out when 3 of 3 one-minute points are above it, in when 15 of 15 are over 10% below it.",
        lambda params, _: TargetTracking(params),
    ),
    Rival(
        "step_scaling", "AWS step scaling",
        "Target 77%. Steps of +10%, +30%, -10% and -30% after two one-minute points, with the pauses given in the user guide.",
        lambda params, _: StepScaling(params),
    ),
    Rival(
        "kubernetes", "Kubernetes autoscaler",
        "Target 77%. Scales in proportion, with 10% tolerance: out in 15 s to at most double or 4 more, whichever is more, in to the highest wish of 5 minutes.",
        lambda params, _: Kubernetes(params),
    ),
    Rival(
        "google", "Google autoscaler",
        "As many VMs as the peak of the last 10 minutes needs at 77%.",
        lambda params, _: Google(params),
    ),
    Rival(
        "yesterday", "same time yesterday",
        "As many VMs as the same time yesterday needed at 77%; on the first day, as many as demand needs now.",
        lambda params, terms: SameTimeBefore(params, ahead_s=terms.lead_ticks * terms.tick_s),
    ),
    Rival(
        "delayed_off", "delayed off",
        "Scales out at once, to 77%; stops a VM when its idle time has cost as much as a start (ski rental).",
        lambda params, terms: DelayedOff(
            params, break_even_s=break_even_s(per_start=terms.per_start, in_service_per_h=terms.in_service_per_h)
        ),
    ),
)  # fmt: skip
"""The peers of every table; all aim at 30 % headroom, which is 77 % of capacity (`peer.USUAL_UTILISATION`)."""

_POLICY, _WITHOUT_POOL = 0, 1


@dataclass(frozen=True, slots=True)
class Standings:
    """Results of a comparison.

    Attributes:
        entries: The policy, its peers and hindsight, as columns of a score card over `score.FIGURES`.
        optimum: The clairvoyant schedule; None if the run was stopped or no work was wanted.
        whole: Whether the run came to its end.
    """

    entries: tuple[Entry, ...]
    optimum: Optimum | None
    whole: bool


@dataclass(frozen=True, slots=True)
class OwnRun:
    """Results of the policy's own run.

    Attributes:
        sums: Sums over the judged ticks, one lane.
        begins: VMs in service or starting when judging began.
    """

    sums: Sums
    begins: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A policy, and what it is compared with on one fleet.

    Attributes:
        policy: The policy.
        plant: The fleet that all of them run.
        trace: The demand.
        ticks: The ticks of the run.
        warm_up_ticks: Ticks at the beginning that are not judged.
        seed: Seed of all random draws.
        rivals: The peers in the table.
        made: Time to provision a VM, for the fleet without a pool (see `without_pool`).
        cache: Forecasts of earlier runs of the same trace, which this run reads and extends.
    """

    policy: Policy
    plant: PlantSettings
    trace: Trace
    ticks: Ticks
    warm_up_ticks: int = 0
    seed: int = 0
    rivals: Sequence[Rival] = RIVALS
    made: Duration | None = None
    cache: OutlookCache | None = None

    def standings(
        self, progress: Callable[[float], None] | None = None, enough: Callable[[], bool] | None = None
    ) -> Standings:
        """Run the policy and everything it is compared with.

        Args:
            progress: Called with the share of the run that is done.
            enough: Called now and then; if it returns True the run stops and nothing is judged.

        Raises:
            ConfigError: Lanes cannot express the run.
        """
        found = contest(
            (Contestant(self.policy, self.plant), *self._others),
            self._course,
            progress=progress,
            enough=enough,
        )
        if found.sums is None:
            return Standings((), None, whole=False)
        return self.beside(
            OwnRun(found.sums.taken(slice(0, 1)), found.begins), found.sums.taken(slice(1, None))
        )

    def others(
        self, progress: Callable[[float], None] | None = None, enough: Callable[[], bool] | None = None
    ) -> Sums | None:
        """Run everything that the policy is compared with, without the policy itself, and return the sums for `beside`.

        The arguments are those of `standings`. None if the run was stopped before its end.
        """
        return contest(self._others, self._course, progress=progress, enough=enough).sums

    def beside(self, own: OwnRun, others: Sums) -> Standings:
        """Return where the policy stands, from the sums of its own run and those returned by `others`."""
        if self.warm_up_ticks >= self.ticks.count:
            return Standings((), None, whole=True)
        everybody = (self.policy, *(each.policy for each in self._others))
        sums = Sums.side_by_side([own.sums, others])
        return _judged(sums, everybody, self.rivals, self._demand, self._terms(own))

    def hindsight(self, own: OwnRun) -> Comparators:
        """Return the costs that hindsight gives at the policy's own prices and bounds.

        These are the cost of VMs that are always on, and the least cost of leaving as much unserved as the policy did.
        """
        peak, best, _ = _hindsight(own.sums, self._demand, self._terms(own))
        return Comparators(peak_cost=score(peak)["cost"], optimum_cost=best)

    @property
    def _course(self) -> ContestCourse:
        return ContestCourse(self.trace, self.ticks, self.warm_up_ticks, self.seed, self.cache)

    @property
    def _demand(self) -> Float:
        return wanted(self.trace, self.ticks)[self.warm_up_ticks :]

    def _terms(self, own: OwnRun) -> Terms:
        return replace(terms_of(self.policy, self.plant, self.ticks.tick_s), initial=own.begins)

    @property
    def _others(self) -> tuple[Contestant, ...]:
        terms = terms_of(self.policy, self.plant, self.ticks.tick_s)
        return (
            Contestant(*without_pool(self.policy, self.plant, self.made)),
            # On the policy's own plant and forecast settings, so that forecasts, which peers do not use, are not made twice.
            *(Contestant(self.policy, self.plant, partial(_made, rival, terms)) for rival in self.rivals),
        )


def _made(rival: Rival, terms: Terms, params: LaneParams) -> Peer:
    return rival.make(params, terms)


def terms_of(policy: Policy, plant: PlantSettings, tick_s: float) -> Terms:
    """Return the terms of the clairvoyant: the policy's prices and bounds, the plant's times, and all VMs that may exist."""
    exist = plant.vms if policy.provision is None else max(plant.vms, policy.provision.maximum)
    ceiling = min(policy.bounds.maximum, exist)
    start_s = plant.start.mean_s
    lead_ticks = max(math.ceil(start_s / tick_s - _ROUNDING), 1)
    return Terms(
        tick_s=tick_s,
        vm_capacity=policy.vm.capacity_per_s,
        in_service_per_h=policy.prices.in_service_per_h,
        stopped_per_h=policy.prices.stopped_per_h,
        start=policy.prices.start,
        # A VM counts from the tick that finds it in service, and is billed from its boot on.
        start_billed_s=lead_ticks * tick_s - start_s + min(plant.boot_s, start_s),
        minimum_billing_s=plant.minimum_billed_s,
        lead_ticks=lead_ticks,
        initial=plant.in_service,
        minimum=min(policy.bounds.minimum, ceiling),
        ceiling=ceiling,
        provisioned=plant.vms,
    )


def without_pool(
    policy: Policy, plant: PlantSettings, made: Duration | None = None
) -> tuple[Policy, PlantSettings]:
    """Return the same fleet without stopped VMs: every start provisions a new VM.

    A start takes as long as provisioning and costs as much, disks are paid only while VMs run, and the policy knows the
    longer lead time.

    Args:
        policy: The policy.
        plant: The fleet.
        made: Time from the order to provision a VM until it serves; None for the plant's own time.
    """
    made = made or plant.provision
    prices = policy.prices.model_copy(
        update={
            "in_service_per_h": policy.prices.in_service_per_h + policy.prices.stopped_per_h,
            "stopped_per_h": 0.0,
            "start": policy.prices.start + policy.prices.provision,
        }
    )
    vm = policy.vm.model_copy(update={"start_time_s": max(made.mean_s, policy.vm.start_time_s)})
    return (
        policy.model_copy(update={"prices": prices, "vm": vm}),
        replace(plant, start=made, start_budget=plant.provision_budget),
    )


def _judged(
    sums: Sums,
    policies: Sequence[Policy],
    rivals: Sequence[Rival],
    demand: Float,
    terms: Terms,
) -> Standings:
    """Compute the entries of the score card from the sums of all lanes, the policy first."""
    lanes = sums.lanes
    peak, best, optimum = _hindsight(sums, demand, terms)
    costs = Comparators(
        peak_cost=np.full(lanes, score(peak)["cost"][0]),
        optimum_cost=best,
        without_pool=sums.taken(np.full(lanes, _WITHOUT_POOL)),
    )
    card = score(sums, LanePrices.of(policies), costs)
    own = card.of_lane(_POLICY)
    entries = [Entry("policy", "this policy", "The policy that is judged.", own, judged=True)]
    entries += [
        Entry(rival.key, rival.name, rival.what, _own_figures(card.of_lane(at)))
        for at, rival in enumerate(rivals, _WITHOUT_POOL + 1)
    ]
    entries.append(
        Entry(
            "without_pool", "without a warm pool",
            "The same policy, but every start provisions a new VM.",
            # It pays for no disks of stopped VMs, so the optimum computed for the others does not apply to it.
            _own_figures(card.of_lane(_WITHOUT_POOL), "regret", "captured"),
        )
    )  # fmt: skip
    prices = LanePrices.of(policies[:1])
    entries.append(
        Entry(
            "static_peak", "always on at peak",
            "As many VMs as the highest demand needs, in service all the time. The peak is known beforehand.",
            _own_figures(score(peak, prices).of_lane(0)),
        )
    )  # fmt: skip
    if optimum is not None:
        told = schedule_sums(optimum.vms, demand, terms)
        entries.append(
            Entry(
                "clairvoyant", "clairvoyant optimum",
                f"The cheapest schedule that knows the future and leaves no more work unserved: {optimum.remark}.",
                _own_figures(score(told, prices).of_lane(0)),
            )
        )  # fmt: skip
    return Standings(tuple(entries), optimum, whole=True)


def _hindsight(sums: Sums, demand: Float, terms: Terms) -> tuple[Sums, Float, Optimum | None]:
    """Return the sums of VMs that are always on, the least cost of each lane, and the cheapest schedule for the policy.

    The sums have one lane, the costs are float64 (L,). The schedule is None if no work is wanted.
    """
    peak = schedule_sums(np.full(len(demand), peak_vms(demand, terms)), demand, terms, moves=False)
    front = Front(demand, terms, precision=_COST_PRECISION)
    if not front.work > 0:
        return peak, np.full(sums.lanes, np.nan), None
    # Each lane is compared with the least cost of leaving as much unserved as it did itself.
    shares = score(sums)["unserved_share"]
    best = np.array(front.costs_serving([1.0 - share for share in shares.tolist()]))
    return peak, best, front.serving(1.0 - shares[_POLICY])


def _own_figures(values: Mapping[str, float], *others: str) -> dict[str, float]:
    """Return the figures without those that compare the policy with its own pool, and without `others`, which do not apply."""
    unknown = ("pool_cost", "shortage_avoided_s", "cost_per_avoided_s", *others)
    return {key: math.nan if key in unknown else value for key, value in values.items()}


def schedule_sums(vms: Int, demand: Float, terms: Terms, *, moves: bool = True) -> Sums:
    """Return the sums of a schedule that was not simulated, as one lane.

    Args:
        vms: int64 (T,), VMs in service.
        demand: float64 (T,), work per second; NaN if unknown.
        terms: Prices and VMs.
        moves: Whether the fleet is in the state given by the terms before the first tick, which may start and stop VMs. If
            not, only the schedule's own VMs exist, and they were in service before.
    """
    before = terms.initial if moves else int(vms[0])
    steps = np.diff(vms, prepend=before)
    starts, stops = np.maximum(steps, 0), np.maximum(-steps, 0)
    block = Block.empty(len(vms), 1, terms.tick_s)
    block.demand[:, 0] = demand
    block.desired[:, 0] = vms
    # The VMs present at the beginning of a tick include those that it stops.
    block.in_service[:, 0] = vms + stops
    block.stopped[:, 0] = np.maximum(terms.provisioned - vms - stops, 0)
    block.starts[:, 0], block.stops[:, 0] = starts, stops
    block.capacity[:, 0] = vms * terms.vm_capacity
    block.shortage = _shortage(demand, block.capacity[:, 0])[:, np.newaxis]
    block.billed_vm_s[:, 0] = vms * terms.tick_s + starts * terms.start_billed_s
    exist = block.provisioned[:, 0] = np.maximum(vms, terms.provisioned if moves else int(vms.max()))
    block.cost[:, 0] = vms * terms.vm_tick + starts * terms.per_start + exist * terms.disk_tick
    return sums_of_one(block, terms.vm_capacity)


def _shortage(demand: Float, capacity: Float) -> Float:
    """Return the work per second not served, without rounding errors."""
    shortage = np.maximum(demand - capacity, 0.0)
    nothing: Bool = shortage <= _ROUNDING * capacity
    return np.where(nothing, 0.0, shortage)
