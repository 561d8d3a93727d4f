"""One trace of the benchmark, from its file to its verdict, as a unit of work for any process.

Rules of this file: it only fixes the order of the steps. `contest_runs` runs the lanes, `curves` measures them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import Policy
from autoscaler.core.types import Int
from autoscaler.simulator.benchmark.conditions import PROVISION_S, START_S, BenchmarkCourse, Fleet, course_of
from autoscaler.simulator.benchmark.contest_runs import race_peers, raced
from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES, Curve, volume
from autoscaler.simulator.benchmark.entrants import POOL_SHORTAGE_PRICE, Entrant
from autoscaler.simulator.benchmark.known_law import LawBooks, law_books
from autoscaler.simulator.benchmark.peer_entries import Rival
from autoscaler.simulator.benchmark.warm_pools import (
    Books,
    PoolTerms,
    break_even_target,
    clairvoyant_books,
    day_target,
    foreseen_target,
    kept_books,
    peak_target,
    rises,
    worth_of,
)
from autoscaler.simulator.judging.calibration import forecast_coverage
from autoscaler.simulator.judging.clairvoyant import Front
from autoscaler.simulator.lanes.measuring import wanted
from autoscaler.simulator.lanes.outlooks import issued
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.traces.trace import Trace

_PRECISION = 1e-4


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The clairvoyant's results on one fleet.

    Attributes:
        cost: VM-hours at each of `LEVELS`.
        starts: Number of starts at each of `LEVELS`.
        front: VM-hours at each of `VOLUME_SHARES`.
    """

    cost: tuple[float, ...]
    starts: tuple[int, ...]
    front: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """A promised served share, and what was served.

    Attributes:
        promised: The promised share, as text for people.
        unserved: Share of demand that stayed unserved in the scored time.
        late_unserved: The same, counted after the first week only. NaN if the trace is no longer than a week.
        cost: VM-hours billed in the scored time.
    """

    promised: str
    unserved: float
    late_unserved: float
    cost: float


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """The warm pool of one policy on one fleet, compared with other pools.

    Attributes:
        own: Books of the policy's own pool.
        peak: Books of a pool that holds all VMs ever wanted.
        for_a_day: Books of a pool that holds a VM for a day after it was wanted last.
        break_even: Books of a pool that holds a VM until holding it has cost as much as making it.
        foreseen: Books of a pool that knows the next hour of demand.
        lawful: Books of the best pool that knows the distribution of waits in hindsight. None if scipy is not installed.
        starts: VMs that the policy started in the scored time, including missed starts.
        least: VM-hours of the cheapest pool, in hindsight, for the numbers of VMs that the policy wanted.
        saving: Largest share of the total cost that any pool can save on this demand, in hindsight.
        pays: Whether that saving is large enough to be worth having.
    """

    own: Books
    peak: Books
    for_a_day: Books
    break_even: Books
    foreseen: Books
    lawful: LawBooks | None
    starts: int
    least: float
    saving: float
    pays: bool


@dataclass(frozen=True, slots=True)
class EntrantResult:
    """The results of one entrant on one fleet.

    Attributes:
        curve: Cost against unserved work over its settings.
        promises: Its promised served shares, and what was served.
        warm_pool: The verdict on its warm pool. None if its pool is not judged.
        coverage: Coverage of its forecasts' quantiles. None if it does not forecast.
    """

    curve: Curve
    promises: tuple[Promise, ...]
    warm_pool: PoolVerdict | None
    coverage: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class FleetResult:
    """All results for one fleet size on one trace.

    Attributes:
        size: Number of VMs that the 99.9 % quantile of demand needs.
        clairvoyant: The least possible cost.
        curves: Curve of each rule, by key.
        regrets: By key, at each of `LEVELS`: cost divided by the least cost, minus 1. Infinite if the level is not reached.
        volumes: `curves.volume` of each rule, by key.
        promises: Promised served shares, by key of the policy.
        warm_pools: Verdicts by key of the policy, for policies whose warm pool was judged.
        coverage: By key of the policy, for policies that forecast: share of outcomes below each quantile of the forecasts,
            in the order of `calibration.LEVELS`.
    """

    size: int
    clairvoyant: Yardstick
    curves: dict[str, Curve]
    regrets: dict[str, tuple[float, ...]]
    volumes: dict[str, float]
    promises: dict[str, tuple[Promise, ...]]
    warm_pools: dict[str, PoolVerdict]
    coverage: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Bout:
    """The results of one trace.

    Attributes:
        trace: Name of the trace.
        digest: Digest of the trace as it was read.
        tick_s: Length of a tick in seconds.
        scored_days: Length of the scored time in days.
        long: Whether at least seven days are scored.
        fleets: One result per fleet size.
    """

    trace: str
    digest: str
    tick_s: float
    scored_days: float
    long: bool
    fleets: tuple[FleetResult, ...]


def run_bout(
    trace: Trace,
    sizes: Sequence[int],
    rivals: Sequence[Rival],
    entrants: Sequence[Entrant],
    known: Bout | None = None,
) -> Bout:
    """Run peers and policies on one trace, at every fleet size, and judge them.

    Args:
        trace: The recorded demand.
        sizes: Fleet sizes, each as the number of VMs that the 99.9 % quantile of demand needs.
        rivals: Peers to run.
        entrants: Policies to run.
        known: An earlier result on the same trace. For sizes that it contains, its yardstick and the curves of rules that
            are not run now are reused.

    Raises:
        TraceError: The trace cannot be used.
        ConfigError: An entrant cannot be run.
    """
    course = course_of(trace)
    fleets = [Fleet.on(course, size) for size in sizes]
    before = {fleet.size: fleet for fleet in known.fleets} if known else {}
    raced_ones = race_peers(course, fleets, rivals) if rivals else {}
    told = [(entrant.key, race_entrant(course, fleets, entrant)) for entrant in entrants]
    results = [
        _judged(
            course,
            fleet,
            before.get(fleet.size),
            raced_ones.get(fleet.size, ()),
            {key: each[fleet.size] for key, each in told},
        )
        for fleet in fleets
    ]
    return Bout(
        trace.name, trace.digest, course.ticks.tick_s, course.scored_days, course.long, tuple(results)
    )


def race_entrant(
    course: BenchmarkCourse, fleets: Sequence[Fleet], entrant: Entrant
) -> dict[int, EntrantResult]:
    """Run all settings, promises and the warm pool of one entrant on every fleet, and return the results by fleet size."""
    settings, own = (*entrant.settings, *entrant.promises), len(entrant.settings)
    policies, plants, watched = list[Policy](), list[PlantSettings](), list[int]()
    for fleet in fleets:
        policies += entrant.policies(fleet, settings)
        if entrant.warm_pool:
            watched.append(len(policies))
            policies.append(entrant.pool_policy(fleet))
        plants += [fleet.plant] * (len(policies) - len(plants))
    tally, each = raced(course, policies, plants, watched=watched), len(policies) // len(fleets)
    found = {}
    for at, fleet in enumerate(fleets):
        first = at * each
        curve = tally.curve(slice(first, first + own), entrant.key, entrant.knob, entrant.labels())
        promised = tuple(
            Promise(
                entrant.promised(values),
                float(tally.unserved[first + own + number]),
                float(tally.late_unserved[first + own + number]),
                float(tally.cost[first + own + number]),
            )
            for number, values in enumerate(entrant.promises)
        )
        pool = _pool_of(course, fleet, tally.wanted[:, at], tally.warm[:, at]) if entrant.warm_pool else None
        found[fleet.size] = EntrantResult(curve, promised, pool, _forecast_coverage(course, policies[first]))
    return found


def _forecast_coverage(course: BenchmarkCourse, policy: Policy) -> tuple[float, ...] | None:
    """Measure the coverage of the forecasts that the policy reads, in the scored time. None if it reads none."""
    ticks = course.ticks
    params = compile_params([policy], ticks.tick_s, float(ticks.times_s[0])).series
    if not params.laws[0]:
        return None
    # The demand of an interval becomes known at the tick that ends it.
    demand = np.concatenate(([np.nan], wanted(course.trace, ticks)[:-1]))
    lead = int(params.lead_ticks[0])
    return tuple(forecast_coverage(issued(params, demand, ticks), demand, lead, course.learn_ticks).tolist())


def _pool_of(course: BenchmarkCourse, fleet: Fleet, asked: Int, warm: Int) -> PoolVerdict:
    terms = PoolTerms(fleet.tick_s, PROVISION_S, START_S)
    scored = course.learn_ticks
    worth = worth_of(course.demand() / fleet.vm_capacity, terms, POOL_SHORTAGE_PRICE)
    return PoolVerdict(
        own=kept_books(asked, warm, terms, scored),
        peak=kept_books(asked, peak_target(asked), terms, scored),
        for_a_day=kept_books(asked, day_target(asked, terms), terms, scored),
        break_even=kept_books(asked, break_even_target(asked, terms), terms, scored),
        foreseen=kept_books(asked, foreseen_target(asked, terms), terms, scored),
        lawful=law_books(asked, terms, scored),
        starts=rises(asked, scored),
        least=clairvoyant_books(asked, terms, scored),
        saving=worth.saving,
        pays=worth.pays,
    )


def yardstick_of(course: BenchmarkCourse, fleet: Fleet) -> Yardstick:
    """Compute the cost and starts of the clairvoyant on one fleet."""
    demand = course.demand()
    front = Front(demand, fleet.terms(demand), precision=_PRECISION)
    return Yardstick(
        cost=tuple(front.cost_serving(1.0 - level) for level in LEVELS),
        starts=tuple(front.serving(1.0 - level).starts for level in LEVELS),
        front=tuple(front.cost_serving(1.0 - share) for share in VOLUME_SHARES),
    )


def _judged(
    course: BenchmarkCourse,
    fleet: Fleet,
    known: FleetResult | None,
    raced_ones: Sequence[Curve],
    told: Mapping[str, EntrantResult],
) -> FleetResult:
    """Merge new results into the known result of a fleet, replacing results of the same key."""
    if known is None:
        known = FleetResult(fleet.size, yardstick_of(course, fleet), {}, {}, {}, {}, {}, {})
    yardstick = known.clairvoyant
    curves = known.curves | {curve.key: curve for curve in raced_ones}
    curves |= {key: each.curve for key, each in told.items()}
    hulls = {key: curve.hull() for key, curve in curves.items()}
    return FleetResult(
        fleet.size,
        yardstick,
        curves,
        {
            key: tuple(
                hull.cost_at(level) / least - 1.0 for level, least in zip(LEVELS, yardstick.cost, strict=True)
            )
            for key, hull in hulls.items()
        },
        {key: volume(hull, yardstick.front) for key, hull in hulls.items()},
        known.promises | {key: each.promises for key, each in told.items()},
        known.warm_pools | {key: each.warm_pool for key, each in told.items() if each.warm_pool is not None},
        known.coverage | {key: each.coverage for key, each in told.items() if each.coverage is not None},
    )
