"""One trace of the benchmark, from its file to its verdict: a part that any process can work out.

Rules of this file: the order of the steps. What is run is `racing`, what it is measured by `curves`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.simulator.benchmark.course import Course, Fleet, course_of
from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES, Curve, volume
from autoscaler.simulator.benchmark.entrants import Entrant
from autoscaler.simulator.benchmark.racing import race_peers, raced
from autoscaler.simulator.benchmark.rivals import Rival
from autoscaler.simulator.judging.clairvoyant import Front
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
    """

    size: int
    clairvoyant: Yardstick
    curves: dict[str, Curve]
    regrets: dict[str, tuple[float, ...]]
    volumes: dict[str, float]
    promises: dict[str, tuple[Promise, ...]]


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
    curves: dict[int, dict[str, Curve]] = {
        size: dict(before[size].curves) if size in before else {} for size in sizes
    }
    if rivals:
        for size, raced_ones in race_peers(course, fleets, rivals).items():
            curves[size].update({curve.key: curve for curve in raced_ones})
    promises = {size: dict(before[size].promises) if size in before else {} for size in sizes}
    for entrant in entrants:
        for size, (curve, kept) in race_entrant(course, fleets, entrant).items():
            curves[size][curve.key] = curve
            promises[size][entrant.key] = kept
    results = []
    for fleet in fleets:
        yardstick = before[fleet.size].clairvoyant if fleet.size in before else yardstick_of(course, fleet)
        results.append(_judged(fleet, curves[fleet.size], yardstick, promises[fleet.size]))
    return Bout(
        trace.name, trace.digest, course.ticks.tick_s, course.scored_days, course.long, tuple(results)
    )


def race_entrant(
    course: Course, fleets: Sequence[Fleet], entrant: Entrant
) -> dict[int, tuple[Curve, tuple[Promise, ...]]]:
    """All settings of an entrant on fleets of all sizes, and what became of its promises."""
    settings = (*entrant.settings, *entrant.promises)
    policies = [policy for fleet in fleets for policy in entrant.policies(fleet, settings)]
    plants = [fleet.plant for fleet in fleets for _ in settings]
    tally, each, own = raced(course, policies, plants), len(settings), len(entrant.settings)
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
        found[fleet.size] = (curve, promised)
    return found


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
    fleet: Fleet,
    curves: dict[str, Curve],
    yardstick: Yardstick,
    promises: dict[str, tuple[Promise, ...]],
) -> FleetResult:
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
        promises,
    )
