"""Stress tests: the same candidates under conditions that the recording lacks, and the regret of each.

    as recorded          the trace and the plant as they are
    demand x 1.5         half as much again, all the time
    bursts               a flash crowd of half the highest demand once a day, at a random time
    metric gap           no metric for half an hour around each day's busiest moment
    provider dry         the provider refuses starts for an hour around that moment
    lead time x 2        every start takes twice as long, and the policy does not know

The loss of a candidate in a world is its cost plus a price of unserved work. Its regret is its loss less the least loss
of all candidates in that world (minimax regret: Savage 1951). If it is not known which world will come, the candidate with the
least worst regret is the choice.

Rules of this file: a world changes demand or plant, never a policy. Everything random is addressed by the seed, so
all candidates face the same. The number of VMs is the same in every world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.score import LanePrices, score
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings, Span
from autoscaler.simulator.search.executors import Executor
from autoscaler.simulator.search.sweep import SweepCourse, run_sweep
from autoscaler.simulator.search.variants import Variant
from autoscaler.simulator.traffic.parts import Crowd, crowd_shape
from autoscaler.traces.trace import Trace, TraceKind

MORE_DEMAND = 1.5
BURST_SHARE = 0.5
"""Height of an added crowd, as a share of the highest demand."""
GAP_S, DRY_S = 1800.0, 3600.0
SLOWER = 2.0
UNSERVED_PRICE = 10.0
"""Default price of unserved work, as a multiple of the price of serving it: being short costs more than serving."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class World:
    """Conditions that candidates are run under.

    Attributes:
        name: Name for people.
        what: A sentence that says how it differs from the recording.
        trace: The demand.
        gaps, dry: Spans without metrics and without capacity, in seconds from the start of the run.
        slower: Factor by which every start takes longer.
    """

    name: str
    what: str
    trace: Trace
    gaps: tuple[Span, ...] = ()
    dry: tuple[Span, ...] = ()
    slower: float = 1.0

    def plant(self, plant: PlantSettings) -> PlantSettings:
        """Return a plant as it is in this world.

        Raises:
            ConfigError: The start times would be too long.
        """
        return replace(
            plant,
            metric_gaps=(*plant.metric_gaps, *self.gaps),
            dry=(*plant.dry, *self.dry),
            start=_slower(plant.start, self.slower),
            provision=_slower(plant.provision, self.slower),
        )


@dataclass(frozen=True, slots=True)
class WorldResult:
    """Results of F candidates in a world, float64 (F,) each.

    Attributes:
        world, what: Its name, and how it differs from the recording.
        cost: Money.
        unserved: Share of the work.
        regret: Loss less the least loss of all candidates, in money.
        price: Money per unit of unserved work, as counted in the loss.
    """

    world: str
    what: str
    cost: Float
    unserved: Float
    regret: Float
    price: float


def worlds_of(course: SweepCourse) -> tuple[World, ...]:
    """Return the worlds around a course."""
    trace = course.trace
    busiest = list(_busiest_s(course))
    more, slower = f"{MORE_DEMAND:g}", f"{SLOWER:g}"
    return (
        World("as recorded", "Demand and VMs as they are.", trace),
        World(f"demand x {more}", f"Demand is {more} times as high all the time.", trace.scaled(MORE_DEMAND)),
        World(
            "bursts",
            f"Once a day, at a random time, a crowd of {BURST_SHARE:.0%} of the highest demand comes on top.",
            _with_crowds(trace, course.seed),
        ),
        World(
            "metric gap",
            f"No metrics for {GAP_S / 60:g} min around each day's busiest moment.",
            trace,
            gaps=_around(busiest, GAP_S),
        ),
        World(
            "provider dry",
            f"The provider refuses starts for {DRY_S / 60:g} min around each day's busiest moment.",
            trace,
            dry=_around(busiest, DRY_S),
        ),
        World(
            f"lead time x {slower}",
            f"Every start takes {slower} times as long, and the policy does not know.",
            trace,
            slower=SLOWER,
        ),
    )


def price_of_unserved(policy: Policy) -> float:
    """Return the default price per unit of unserved work, in money; 1 if a policy has no prices."""
    serving = policy.prices.in_service_per_h / 3600.0 / policy.vm.capacity_per_s
    return UNSERVED_PRICE * serving if serving > 0 else 1.0


def weather(
    candidates: Sequence[Variant],
    course: SweepCourse,
    price: float,
    *,
    executor: Executor | None = None,
    cache: OutlookCache | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[WorldResult, ...]:
    """Run candidates in every world; returns fewer than all worlds after Ctrl-C.

    Args:
        candidates: F candidates.
        course: The trace and the ticks that they ran over.
        price: Money per unit of unserved work.
        executor: Runs the parts; None for this process.
        cache: Forecasts of earlier runs over the course, as in `run_sweep`; most worlds have the same demand.
        progress: Called with the share that is done.

    Raises:
        ConfigError: Lanes cannot express a candidate, or a computing process died.
    """
    found = []
    worlds, kept = worlds_of(course), OutlookCache() if cache is None else cache
    for number, world in enumerate(worlds):
        there = [replace(each, plant=world.plant(each.plant)) for each in candidates]
        try:
            # Forecasts of changed demand are not needed again.
            known = kept if world.trace is course.trace else None
            ran = run_sweep(there, replace(course, trace=world.trace), executor=executor, cache=known)
        except KeyboardInterrupt:
            break
        if ran.interrupted:
            break
        ran.require_all()
        assert ran.sums is not None
        figures = score(ran.sums, LanePrices.of([each.policy for each in there]))
        loss = figures["cost"] + price * figures["unserved_work"]
        found.append(
            WorldResult(
                world.name,
                world.what,
                figures["cost"],
                figures["unserved_share"],
                loss - np.fmin.reduce(loss),
                price,
            )
        )
        if progress is not None:
            progress((number + 1) / len(worlds))
    return tuple(found)


def _slower(duration: Duration, factor: float) -> Duration:
    if factor == 1.0:
        return duration
    try:
        return Duration(duration.mean_s * factor, None if duration.p95_s is None else duration.p95_s * factor)
    except ConfigError as error:
        raise ConfigError(f"a start cannot take {factor:g} times as long: {error}") from None


def _busiest_s(course: SweepCourse) -> Iterator[float]:
    """Yield the middle of the busiest interval of each day, in seconds from the start of the run."""
    trace, start_s = course.trace, course.ticks.start_s
    end_s = start_s + course.ticks.count * course.ticks.tick_s
    days = np.floor(trace.timestamps / _DAY_S)
    inside = (trace.timestamps >= start_s) & (trace.timestamps < end_s)
    for day in np.unique(days[inside]):
        rows = np.flatnonzero(inside & (days == day))
        row = rows[int(np.argmax(trace.rates[rows]))]
        yield float(trace.timestamps[row]) + trace.interval_s / 2 - start_s


def _around(moments_s: Sequence[float], length_s: float) -> tuple[Span, ...]:
    return tuple((at_s - length_s / 2, at_s + length_s / 2) for at_s in moments_s)


def _with_crowds(trace: Trace, seed: int) -> Trace:
    """Return the trace with one crowd added a day; gaps stay gaps."""
    luck = Luck(seed, "worlds")
    rates = trace.rates.copy()
    height = BURST_SHARE * trace.peak_per_s
    for day in np.unique(np.floor(trace.timestamps / _DAY_S)).astype(np.int64).tolist():
        at_s = float(luck.uniforms(Purpose.WORLD, day, 1)[0]) * _DAY_S
        crowd = Crowd(at_s=at_s, height=height)
        rates += height * crowd_shape(trace.timestamps - (day * _DAY_S + at_s), crowd)
    values = rates * trace.interval_s if trace.kind is TraceKind.COUNT else rates
    return Trace.build(
        trace.timestamps,
        values,
        kind=trace.kind,
        name=trace.name,
        interval_s=trace.interval_s,
        censored=trace.censored,
    )
