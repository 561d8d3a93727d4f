"""One trace of the benchmark, from its file to its verdict, as a unit of work for any process.

Rules of this file: the order of the steps. What is run is `racing`, what it is measured by `curves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import Policy
from autoscaler.core.types import Int
from autoscaler.simulator.benchmark.course import PROVISION_S, START_S, Course, Fleet, course_of
from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES, Curve, volume
from autoscaler.simulator.benchmark.entrants import POOL_SHORTAGE_PRICE, Entrant
from autoscaler.simulator.benchmark.known_law import LawBooks, law_books
from autoscaler.simulator.benchmark.racing import race_peers, raced
from autoscaler.simulator.benchmark.rivals import Rival
from autoscaler.simulator.benchmark.warm_pools import (
    Books,
    PoolTerms,
    break_even_target,
    clairvoyant_books,
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
    """The clairvoyant on one fleet.

    Attributes:
        cost: VM-hours at each of `LEVELS`.
        starts: Starts at each.
        front: VM-hours at each of `VOLUME_SHARES`.
    """

    cost: tuple[float, ...]
    starts: tuple[int, ...]
    front: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """What became of a promised served share.

    Attributes:
        promised: The share, for people.
        unserved: Share left in the scored time.
        late_unserved: Share left after the first week; NaN where the trace is no longer.
        cost: VM-hours billed in the scored time.
    """

    promised: str
    unserved: float
    late_unserved: float
    cost: float


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """The warm pool of a policy on one fleet.

    Attributes:
        own: Its books.
        peak: Those of a pool that holds all VMs ever wanted.
        break_even: Those of a pool that holds a VM until that has cost as much as making it.
        foreseen: Those of a pool that knows the next hour.
        lawful: Those of a pool by the best law of waits, known in hindsight; None where scipy is not installed.
        starts: VMs that the policy started in the scored time, of which some were missed.
        least: VM-hours of the cheapest pool for what the policy wanted, with hindsight.
        saving: Share of all cost that any pool can save on this demand, with hindsight.
        pays: Whether that is worth the trouble.
    """

    own: Books
    peak: Books
    break_even: Books
    foreseen: Books
    lawful: LawBooks | None
    starts: int
    least: float
    saving: float
    pays: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What one entrant came to on one fleet.

    Attributes:
        curve: Of its settings.
        promises: What became of them.
        warm_pool: Of its warm pool; None where that is not judged.
        coverage: Of its forecasts; None where it makes none.
    """

    curve: Curve
    promises: tuple[Promise, ...]
    warm_pool: PoolVerdict | None
    coverage: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class FleetResult:
    """One size of fleet on one trace.

    Attributes:
        size: VMs that the 99.9 % quantile of demand needs.
        clairvoyant: The least cost.
        curves: Of all rules, by key.
        regrets: By key, at each level: cost over the least cost, less 1; infinite where not reached.
        volumes: By key.
        promises: By key of the policy.
        warm_pools: By key of the policy; one whose warm pool was judged.
        coverage: By key of the policy: the share of outcomes below each quantile of its forecasts, in the order of
            `calibration.LEVELS`; one that forecasts.
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
    """One trace.

    Attributes:
        trace: Its name.
        digest: Of the file as read.
        tick_s: Length of a tick.
        scored_days: How long is scored.
        long: Whether that is at least seven days.
        fleets: By size.
    """

    trace: str
    digest: str
    tick_s: float
    scored_days: float
    long: bool
    fleets: tuple[FleetResult, ...]


def fought(
    trace: Trace,
    sizes: Sequence[int],
    rivals: Sequence[Rival],
    entrants: Sequence[Entrant],
    known: Bout | None = None,
) -> Bout:
    """Run a trace.

    Args:
        trace: Demand.
        sizes: VMs that its 99.9 % quantile needs, fleet by fleet.
        rivals: Peers to run.
        entrants: Policies to run.
        known: An earlier bout on the same trace, whose yardstick and other rules are kept where it has the size.

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


def race_entrant(course: Course, fleets: Sequence[Fleet], entrant: Entrant) -> dict[int, Told]:
    """All settings of an entrant on fleets of all sizes, what became of its promises, and its warm pool."""
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
        found[fleet.size] = Told(curve, promised, pool, _coverage_of(course, policies[first]))
    return found


def _coverage_of(course: Course, policy: Policy) -> tuple[float, ...] | None:
    """Of the forecasts that the policy reads, in the scored time."""
    ticks = course.ticks
    params = compile_params([policy], ticks.tick_s, float(ticks.times_s[0])).series
    if not params.laws[0]:
        return None
    # An interval is known at the tick that ends it.
    demand = np.concatenate(([np.nan], wanted(course.trace, ticks)[:-1]))
    lead = int(params.lead_ticks[0])
    return tuple(forecast_coverage(issued(params, demand, ticks), demand, lead, course.learn_ticks).tolist())


def _pool_of(course: Course, fleet: Fleet, asked: Int, warm: Int) -> PoolVerdict:
    terms = PoolTerms(fleet.tick_s, PROVISION_S, START_S)
    scored = course.learn_ticks
    worth = worth_of(course.demand() / fleet.vm_capacity, terms, POOL_SHORTAGE_PRICE)
    return PoolVerdict(
        own=kept_books(asked, warm, terms, scored),
        peak=kept_books(asked, peak_target(asked), terms, scored),
        break_even=kept_books(asked, break_even_target(asked, terms), terms, scored),
        foreseen=kept_books(asked, foreseen_target(asked, terms), terms, scored),
        lawful=law_books(asked, terms, scored),
        starts=rises(asked, scored),
        least=clairvoyant_books(asked, terms, scored),
        saving=worth.saving,
        pays=worth.pays,
    )


def yardstick_of(course: Course, fleet: Fleet) -> Yardstick:
    """What the clairvoyant would have paid."""
    demand = course.demand()
    front = Front(demand, fleet.terms(demand), precision=_PRECISION)
    return Yardstick(
        cost=tuple(front.cost_serving(1.0 - level) for level in LEVELS),
        starts=tuple(front.serving(1.0 - level).starts for level in LEVELS),
        front=tuple(front.cost_serving(1.0 - share) for share in VOLUME_SHARES),
    )


def _judged(
    course: Course,
    fleet: Fleet,
    known: FleetResult | None,
    raced_ones: Sequence[Curve],
    told: Mapping[str, Told],
) -> FleetResult:
    """What is known of a fleet already, with what was run now in its place."""
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
