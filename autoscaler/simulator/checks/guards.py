"""The checks that run on lanes: look-ahead, lag, warm-up, independence, determinism, restart, conservation, silence.

Each check tests a statement about decisions that holds for every honest policy. The idea comes from freqtrade's look-ahead
and recursive analyses, which re-run a strategy on less data and compare (freqtrade, 2022). Here each lane has its own cut
point, so many cuts are tested in one run.

Rules of this file: a guard that could not have failed on this traffic says that it was not shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.types import Bool, Freshness, Samples
from autoscaler.simulator.checks.subject import (
    Ints,
    Subject,
    Trail,
    first_difference,
    spread_over,
    trail,
    trail_of,
)
from autoscaler.simulator.judging.score import score
from autoscaler.simulator.lanes.draws import Luck
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.measuring import Pipeline, seen, wanted
from autoscaler.simulator.report.wording import share, span
from autoscaler.traces.trace import Trace, TraceKind

CUTS = 12
RESTARTS = 8
_POISON = 1e9
_LAG_GROWTH, _LAG_POINTS = 3.0, 0.01
"""With one more tick of lag, unserved work may triple, or grow by a hundredth of demand, whichever is more."""

_LEARNED_AFTER_S = 13.5 * 86_400.0
"""Seconds of traffic from which a policy that learns must meet the limits below: two weeks, with some missing at the ends."""
_BEGUN_VM_HOURS, _BEGUN_GROWTH, _BEGUN_POINTS = 0.1, 2.0, 0.001
"""If begun later, such a policy may run a tenth more or fewer VM-hours, and leave twice as much unserved or a thousandth more."""


class State(StrEnum):
    """What a guard found."""

    HOLDS = "holds"
    FAILS = "FAILS"
    NOT_SHOWN = "not shown"
    """The guard could not have failed on this traffic."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guard's finding.

    Attributes:
        guard: Name of the guard.
        state: What it found.
        finding: The finding in words, with figures.
    """

    guard: str
    state: State
    finding: str


def prefix(subject: Subject) -> Verdict:
    """Check that decisions on a trace that ends early equal the first decisions on the whole trace."""
    cuts = _cuts(subject)
    ends = [_until(subject, cut) for cut in cuts]
    return _same_until("prefix", subject, ends, cuts, "a trace that ends then")


def poison(subject: Subject) -> Verdict:
    """Check that demand that is not known yet, even absurd demand, changes no decision."""
    cuts = _cuts(subject)
    poisoned = [_poisoned(subject, cut, value) for cut in cuts for value in (_POISON, 0.0)]
    return _same_until(
        "poison", subject, poisoned, [cut for cut in cuts for _ in range(2)], "other demand from then on"
    )


def _cuts(subject: Subject) -> list[int]:
    """Return ticks to cut at: right after decisions that changed, where look-ahead would show, and others evenly spread."""
    decided = trail(subject, subject.run_of([subject.trace])).decided[:, :, 0]
    changed = np.flatnonzero((decided[1:] != decided[:-1]).any(axis=1)) + 2
    chosen = changed[np.linspace(0, len(changed) - 1, min(CUTS, len(changed))).astype(np.int64)].tolist()
    return sorted(
        {*spread_over(subject.ticks.count, CUTS // 2), *(cut for cut in chosen if cut < subject.ticks.count)}
    )


def _same_until(guard: str, subject: Subject, traces: list[Trace], cuts: list[int], what: str) -> Verdict:
    """Check that decisions on changed traces equal those on the whole trace until the cut."""
    decided = trail(subject, subject.run_of([subject.trace, *traces])).decided
    moved = int((decided[1:] != decided[:-1]).any(axis=1)[:, 0].sum())
    for lane, cut in enumerate(cuts, start=1):
        apart = first_difference(decided[:cut, :, 0], decided[:cut, :, lane])
        if apart is not None:
            return Verdict(
                guard,
                State.FAILS,
                f"the decision of {subject.time_of(apart)} depends on what came after {subject.time_of(cut)}: it differs "
                f"with {what}",
            )
    if not moved:
        return Verdict(guard, State.NOT_SHOWN, "no decision ever changed on this traffic")
    return Verdict(guard, State.HOLDS, f"no decision depends on what came later, at {len(cuts)} cuts")


def _until(subject: Subject, cut: int) -> Trace:
    """Return the trace up to the tick of a cut."""
    end_s = (subject.ticks.first + cut) * subject.ticks.tick_s
    return subject.trace.cut(
        subject.trace.start_s, max(end_s, subject.trace.start_s + subject.trace.interval_s)
    )


def _poisoned(subject: Subject, cut: int, value: float) -> Trace:
    """Return the trace with all values that are not known yet at a cut replaced."""
    trace = subject.trace
    known_s = trace.timestamps + (trace.interval_s if trace.kind is TraceKind.COUNT else 0.0)
    later = known_s >= (subject.ticks.first + cut) * subject.ticks.tick_s
    values = np.where(later, value, trace.values)
    return Trace.build(
        trace.timestamps, values, kind=trace.kind, name="poisoned", interval_s=trace.interval_s
    )


def lag(subject: Subject) -> Verdict:
    """Check that one more tick of metric lag does not make the policy collapse."""
    given = subject.policy.signal.trace
    now_s = subject.plant.metric_lag_s
    now_s = (given.lag_s if given else 0.0) if now_s is None else now_s
    later_s = now_s + subject.ticks.tick_s
    plants = [replace(subject.plant, metric_lag_s=each) for each in (now_s, later_s)]
    # The policy must not reject a reading for being one tick older.
    patient = _patient(subject, subject.ticks.tick_s)
    run = patient.run_of([subject.trace] * 2, plants=plants)
    lanes = patient.lanes(run)
    sums = lanes.sums()
    lanes.run(run.ticks.count, sums)
    unserved = score(sums)["unserved_share"]
    before, after = float(unserved[0]), float(unserved[1])
    if np.isnan(before):
        return Verdict("lag", State.NOT_SHOWN, "there was no work to serve")
    said = f"{share(before)} of the work is unserved, and {share(after)} with readings {span(subject.ticks.tick_s)} older"
    if not after <= max(_LAG_GROWTH * before, before + _LAG_POINTS):
        return Verdict("lag", State.FAILS, f"{said}: the policy depends on data that it may not have in time")
    return Verdict("lag", State.HOLDS, said)


def _patient(subject: Subject, more_s: float) -> Subject:
    """Return the subject with a policy that accepts readings older by `more_s`."""
    signal = subject.policy.signal
    longer = signal.model_copy(update={"max_age_s": signal.max_age_s + more_s})
    return replace(subject, policy=subject.policy.model_copy(update={"signal": longer}))


def warm_up(subject: Subject) -> Verdict:
    """Check that decisions stop depending on when the run began, within the first half of it.

    A policy that learns never forgets completely. So its figures in the second half are compared instead, if there was
    enough traffic to learn from: the VMs that it runs and the work that it leaves unserved. The same holds for a policy with
    a tolerance, within which two numbers of VMs may differ until demand has been through its daily swing.
    """
    count = subject.ticks.count
    shifts = [0, *(count // 12 * at for at in (1, 2, 3))]
    run = subject.run_of([subject.trace] * len(shifts), shifts=shifts)
    run = replace(run, ticks=replace(run.ticks, count=count - shifts[-1]))
    found = trail(subject, run)
    decided = found.decided
    longest, worst, learned = 0, 0.0, ""
    for lane, shift in enumerate(shifts[1:], start=1):
        overlap = len(decided) - shift
        apart = (decided[shift:, :, 0] != decided[:overlap, :, lane]).any(axis=1)
        history = int(np.flatnonzero(apart)[-1]) + 1 if apart.any() else 0
        longest = max(longest, history)
        if history <= overlap // 2:
            continue
        begun = f"started {span(shift * subject.ticks.tick_s)} later, it"
        if not (_learns(subject) or _tolerates(subject)):
            said = (
                f"{begun} still decides differently after {span(history * subject.ticks.tick_s)}: its decisions "
                "depend on when it was started"
            )
            return Verdict("warm-up", State.FAILS, said)
        size, differs = _later_begun(subject, found["in_service"], lane, shift)
        if size >= worst:
            worst, learned = size, f"{begun} {differs}"
    if learned and _learns(subject) and subject.ticks.count * subject.ticks.tick_s < _LEARNED_AFTER_S:
        said = f"the policy learns, and {learned}; give it two weeks of traffic or more"
        return Verdict("warm-up", State.NOT_SHOWN, said)
    if learned:
        state = State.FAILS if worst > 1.0 else State.HOLDS
        why = "the policy learns" if _learns(subject) else "numbers may keep differing within its tolerance"
        return Verdict("warm-up", state, f"{why}, and {learned}")
    if not (decided[1:] != decided[:-1]).any():
        return Verdict("warm-up", State.NOT_SHOWN, "no decision ever changed on this traffic")
    return Verdict(
        "warm-up",
        State.HOLDS,
        f"after {span(longest * subject.ticks.tick_s)} no decision depends on when the run began",
    )


def _learns(subject: Subject) -> bool:
    """Whether the policy learns from traffic."""
    return subject.policy.objective is not None or subject.policy.forecast is not None


def _tolerates(subject: Subject) -> bool:
    """Whether the policy has a tolerance within which nothing changes."""
    reactive = subject.policy.reactive
    return reactive is not None and reactive.tolerance > 0.0


def _later_begun(subject: Subject, in_service: Ints, lane: int, shift: int) -> tuple[float, str]:
    """Compare the second half of a run that began later with the same time of the first run.

    Returns:
        The difference as a multiple of what is allowed, and in words.
    """
    half = (len(in_service) - shift) // 2
    first, later = in_service[shift:, 0][half:], in_service[: len(in_service) - shift, lane][half:]
    demand = np.nan_to_num(wanted(subject.trace, subject.ticks)[shift + half : shift + half + len(first)])
    work = max(float(demand.sum()), 1e-300)
    capacity = subject.policy.vm.capacity_per_s
    before, after = (float(np.maximum(demand - vms * capacity, 0.0).sum()) / work for vms in (first, later))
    more = float(later.sum()) / max(float(first.sum()), 1.0) - 1.0
    lost = max(_BEGUN_GROWTH * before, before + _BEGUN_POINTS)
    words = f"runs {abs(more):.1%} {'more' if more > 0 else 'fewer'} VM-hours in the second half of the time"
    words += f" and leaves {share(after)} of the work unserved, not {share(before)}"
    return max(abs(more) / _BEGUN_VM_HOURS, after / lost), words


def independence(subject: Subject) -> Verdict:
    """Check that a lane decides the same alone, among others, and in another place among them."""
    alone = trail(subject, subject.run_of([subject.trace])).decided[:, :, 0]
    busy, calm = subject.trace.scaled(3.0), subject.trace.scaled(0.3)
    for traces, lane in (
        ([subject.trace, busy, calm], 0),
        ([calm, busy, subject.trace, busy, calm], 2),
        ([*[busy] * 20, subject.trace], 20),
    ):
        crowd = trail(subject, subject.run_of(traces)).decided[:, :, lane]
        apart = first_difference(alone, crowd)
        if apart is not None:
            return Verdict(
                "independence",
                State.FAILS,
                f"among {len(traces)} fleets it decides differently at {subject.time_of(apart)} than alone: fleets are not isolated",
            )
    return Verdict("independence", State.HOLDS, "alone, among 3, 5 and 21 fleets it decides the same")


def determinism(subject: Subject) -> Verdict:
    """Check that the same run decides the same, however it is split into calls."""
    run = subject.run_of([subject.trace])
    first = trail(subject, run).decided
    for cuts in (0, 7, 64, 1000):
        apart = first_difference(first, trail(subject, run, cuts).decided)
        if apart is not None:
            how = "run again" if not cuts else f"in parts of {cuts} ticks"
            return Verdict(
                "determinism", State.FAILS, f"{how}, it decides differently at {subject.time_of(apart)}"
            )
    return Verdict(
        "determinism", State.HOLDS, "run twice, and in parts of 7, 64 and 1,000 ticks, it decides the same"
    )


def restart(subject: Subject) -> Verdict:
    """Check that the saved state holds all that is remembered: a decider restored from it must decide the same."""
    run = subject.run_of([subject.trace])
    whole = trail(subject, run).decided
    witness = Witness([0])
    lanes = subject.lanes(run, witness)
    for tick in (*spread_over(run.ticks.count, RESTARTS), run.ticks.count):
        lanes.run(tick - lanes.tick)
        new = subject.lanes(run).decider
        state = getattr(lanes.decider, "state", None)
        if state is not None:
            new.state = type(state).restore(state.dump())  # type: ignore[attr-defined]
        if hasattr(lanes.decider, "params"):
            new.params = lanes.decider.params  # type: ignore[attr-defined]
        lanes.decider = new
    apart = first_difference(whole, trail_of(witness).decided)
    if apart is not None:
        return Verdict(
            "restart",
            State.FAILS,
            f"restarted before, it decides differently at {subject.time_of(apart)}: its saved state lacks something",
        )
    if said := _forecast_forgets(subject):
        return Verdict("restart", State.FAILS, said)
    return Verdict(
        "restart", State.HOLDS, f"restarted {RESTARTS} times from its saved state it decides the same"
    )


def _forecast_forgets(subject: Subject) -> str:
    """Return in words how a forecaster restored from its saved state forecasts differently; empty if it does not."""
    if subject.policy.forecast is None:
        return ""
    params = compile_params([subject.policy], subject.ticks.tick_s, subject.ticks.start_s).series
    known = seen(
        subject.trace,
        subject.ticks,
        Pipeline(0.0, subject.policy.signal.max_age_s, inside=False),
        Luck(subject.seed, subject.policy.fleet),
    )
    through, restored = SeriesState.empty(params), SeriesState.empty(params)
    again = set(spread_over(subject.ticks.count, RESTARTS))
    for tick, now_s in enumerate(subject.ticks.times_s.tolist()):
        row = slice(tick, tick + 1)
        samples = Samples(
            now_s,
            known.demand[row],
            known.observed_at_s[row],
            known.freshness[row],
            np.ones(1),
            np.zeros(1, np.bool_),
        )
        if tick in again:
            restored = SeriesState.restore(restored.dump())
        one, other = step(params, through, samples), step(params, restored, samples)
        if not np.array_equal(one.at_lead, other.at_lead, equal_nan=True):
            return f"restarted before, it forecasts differently at {subject.time_of(tick)}"
    return ""


def conservation(subject: Subject) -> Verdict:
    """Check that VMs neither vanish nor appear, and that no VM is started or stopped that is not there."""
    found = trail(subject, subject.run_of([subject.trace]))
    if said := _not_conserved(subject, found):
        return Verdict("conservation", State.FAILS, said)
    if not (found["start"].any() and found["stop"].any()):
        return Verdict(
            "conservation", State.NOT_SHOWN, "nothing was both started and stopped on this traffic"
        )
    starts, stops = int(found["start"].sum()), int(found["stop"].sum())
    return Verdict(
        "conservation", State.HOLDS, f"{starts} starts and {stops} stops, and every VM is accounted for"
    )


def _not_conserved(subject: Subject, found: Trail) -> str:
    """Return the first violation in words; empty if there is none."""
    counts = [found[name] for name in ("in_service", "starting", "draining", "stopping", "stopped")]
    rules = {
        "more VMs are started than are stopped": found["start"] > found["stopped"],
        "more VMs are stopped than serve": found["stop"] > found["in_service"],
        "a negative number is decided": (found.decided < 0).any(axis=1),
        "the VMs do not add up": _sum_is_wrong(subject, np.add.reduce(counts), found["provisioned"]),
        "a negative number of VMs is in some state": np.stack(counts).min(axis=0) < 0,
    }
    for said, broken in rules.items():
        at = np.flatnonzero(broken.any(axis=1))
        if at.size:
            return f"{said} at {subject.time_of(int(at[0]))}"
    return ""


def _sum_is_wrong(subject: Subject, total: Ints, provisioned: Ints) -> Bool:
    """Whether the VMs in all states do not add up to those provisioned."""
    # A hanging VM is given up and belongs to no counted state until it comes after all.
    return total > provisioned if subject.plant.lucky else total != provisioned


def silence(subject: Subject) -> Verdict:
    """Check that nothing is stopped while readings are missing, wherever they end, for as long as the policy holds.

    After that time a fleet falls back to the largest of its last good wish, the schedule and the forecast, which may be
    fewer.
    """
    if not subject.policy.uses_signal:
        return Verdict("silence", State.NOT_SHOWN, "the policy needs no readings")
    hold_s = subject.policy.signal.loss_hold_s
    calm = trail(subject, subject.run_of([subject.trace]))
    stops = np.flatnonzero(calm["stop"][:, 0])
    if not stops.size:
        return Verdict("silence", State.NOT_SHOWN, "nothing is ever stopped on this traffic")
    # Readings end just before a stop would be decided, because a policy that takes silence for no demand would act there.
    chosen = stops[np.linspace(0, len(stops) - 1, min(CUTS, len(stops))).astype(np.int64)]
    tick_s = subject.ticks.tick_s
    long_s = max(3600.0, 20 * tick_s)
    plants = [
        replace(subject.plant, metric_gaps=((float(tick) * tick_s, float(tick) * tick_s + long_s),))
        for tick in chosen.tolist()
    ]
    found = trail(subject, subject.run_of([subject.trace] * len(plants), plants=plants))
    silent = found["freshness"] != int(Freshness.FRESH)
    silent &= np.add.accumulate(silent, axis=0) * tick_s <= hold_s
    if not silent.any():
        return Verdict("silence", State.NOT_SHOWN, f"the policy holds for {span(hold_s)} only")
    broken = silent & (found["stop"] > 0)
    if broken.any():
        tick, lane = (int(axis[0]) for axis in np.nonzero(broken))
        return Verdict(
            "silence",
            State.FAILS,
            f"{found['stop'][tick, lane]} VMs are stopped at {subject.time_of(tick)}, when there was no reading",
        )
    return Verdict(
        "silence",
        State.HOLDS,
        f"nothing is stopped in the first {span(min(hold_s, long_s))} of {len(plants)} outages of the metrics",
    )


GUARDS: dict[str, Callable[[Subject], Verdict]] = {
    "prefix": prefix,
    "poison": poison,
    "lag": lag,
    "warm-up": warm_up,
    "independence": independence,
    "determinism": determinism,
    "restart": restart,
    "conservation": conservation,
    "silence": silence,
}
"""All guards that need lanes only, in the order in which they are reported."""
