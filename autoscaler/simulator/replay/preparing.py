"""Prepares a replay: a policy against a recorded trace.

`replay` and `compare` need the same preparation for one or several policies. Options that the user did not give are chosen
here. Every choice that changes figures is described in a note (`Replay.notes`), and everything that makes the figures
doubtful in a caution.

Rules of this file: nothing is printed and nothing is run (`replaying`). A change to the trace is always reported. A policy
is changed only where a simulated VM could not carry it out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from autoscaler.cloud.faults import Fault
from autoscaler.config.policy import Policy
from autoscaler.core.types import Freshness
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.baselines import describe
from autoscaler.simulator.lanes.draws import Luck
from autoscaler.simulator.lanes.measuring import Ticks, seen
from autoscaler.simulator.lanes.metrics import pipeline_of
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.replay.identity import identity_of
from autoscaler.simulator.replay.timeline import RunIdentity
from autoscaler.simulator.report.wording import count, plural, share, span
from autoscaler.traces.statistics import doubts_of
from autoscaler.traces.trace import Trace, TraceKind, describe_time

MAX_TICK_S = 3600.0
_SHORTEST_WARM_UP_S = 300.0
_WARM_UP_TICKS = 10
_SIZE, _START = 0, 1
"""Positions in `Replay.notes` of the notes on the size of the plant and on start times."""
_SPARE = 1.2
"""VMs of the plant relative to what the peak needs, if the user gives no number."""
_FEW = 0.01
"""Share of ticks with stale metrics above which a caution is given."""
_SATURATED = 0.8
"""Utilisation of the VMs in service at the beginning of a run."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of a replay. None means that a value is chosen.

    Attributes:
        vms: Number of VMs that exist when the run begins.
        tick_s: Length of a tick in seconds.
        begin_s, end_s: Part of the trace to replay, epoch seconds.
        scale_to_vms: Number of VMs that the peak of the trace should need. The trace is scaled to it.
        scaled_for_per_s: Capacity of these VMs. None takes that of the policy; policies that are compared need one for all.
        warm_up_s: Seconds at the beginning that are shown but not scored.
        start_time_s: Mean seconds from the order to start a VM until it serves.
        start_p95_s: 95 % quantile of the same, if start times vary.
        start_failure: Probability that a starting VM falls back to stopped.
        provision_time_s: Seconds from the order to provision a VM until it serves.
        metric_lag_s: Seconds by which metrics are late.
        faults: Faults of the simulated cloud.
        seed: Seed of all randomness.
    """

    vms: int | None = None
    tick_s: float | None = None
    begin_s: float | None = None
    end_s: float | None = None
    scale_to_vms: int | None = None
    scaled_for_per_s: float | None = None
    warm_up_s: float | None = None
    start_time_s: float | None = None
    start_p95_s: float | None = None
    start_failure: float = 0.0
    provision_time_s: float | None = None
    metric_lag_s: float | None = None
    faults: tuple[Fault, ...] = ()
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Replay:
    """A policy and everything that it runs on.

    Attributes:
        policy: The policy as given.
        fitted: The policy, changed as far as a simulation requires.
        policy_file: The file that the policy comes from.
        trace: The trace as it is played.
        plant: The simulated VMs and metrics.
        made: Time from the order to provision a VM until it serves.
        faults: Faults of the simulated cloud.
        begin_s, end_s: Begin and end of the run, moments of the trace in epoch seconds.
        tick_s: Length of a tick in seconds.
        warm_up_s: Seconds at the beginning that are not scored.
        seed: Seed of all randomness.
        notes: What was chosen or changed, in sentences for the user.
        cautions: What makes the figures doubtful, in sentences for the user.
        outlooks: Cache of forecasts, shared with the runs that this one is compared with.
    """

    policy: Policy
    fitted: Policy
    policy_file: Path
    trace: Trace
    plant: PlantSettings
    made: Duration
    faults: tuple[Fault, ...]
    begin_s: float
    end_s: float
    tick_s: float
    warm_up_s: float
    seed: int
    notes: tuple[str, ...]
    cautions: tuple[str, ...]
    outlooks: OutlookCache = field(default_factory=OutlookCache, compare=False, repr=False)

    @property
    def span_s(self) -> float:
        """Length of the run in seconds."""
        return self.end_s - self.begin_s

    @property
    def grid(self) -> Ticks:
        """The ticks of the run."""
        return Ticks.over(self.begin_s, self.span_s, self.tick_s)

    @property
    def ticks(self) -> int:
        """Number of ticks."""
        return self.grid.count

    @property
    def warm_up_ticks(self) -> int:
        """Number of ticks that are not scored."""
        return min(math.ceil(self.warm_up_s / self.tick_s - 1e-9), self.ticks)

    @property
    def in_words(self) -> str:
        """A description of how the policy asks for VMs."""
        return describe(self.policy)

    @property
    def identity(self) -> RunIdentity:
        """Digests of everything that determines the result."""
        plant = {**asdict(self.plant), "faults": [asdict(fault) for fault in self.faults]}
        return identity_of(self.policy, self.trace, plant, self.seed)


# ── preparing ───────────────────────────────────────────────────────────────────────────────────────────


def tick_for(trace: Trace) -> float:
    """Return the default tick for a trace: its interval, limited to what a replay supports."""
    return min(max(trace.interval_s, 1.0), MAX_TICK_S)


def prepare(policy: Policy, policy_file: Path, trace: Trace, wanted: Wanted) -> Replay:
    """Choose the options that were not given, check the others, and build the replay.

    Raises:
        ConfigError: The span or the tick is impossible, or there are no VMs to run.
        TraceError: The trace has no rows in the selected part.
    """
    tick_s = wanted.tick_s or tick_for(trace)
    if not 1.0 <= tick_s <= MAX_TICK_S:
        raise ConfigError(f"--tick {tick_s:g}s must be from 1 s to {MAX_TICK_S / 3600:g} h")
    begin_s, end_s = _span(trace, wanted, tick_s)
    trace = trace.cut(max(begin_s - 2 * trace.interval_s, trace.start_s), end_s)
    if wanted.scale_to_vms is not None:
        trace = trace.scaled_to_peak(
            wanted.scale_to_vms * (wanted.scaled_for_per_s or policy.vm.capacity_per_s)
        )
    fitted, changes = _fitted(policy, trace, tick_s)
    needed = math.ceil(trace.peak_per_s / policy.vm.capacity_per_s - 1e-9)
    vms, said = _plant_size(policy, needed, wanted.vms)
    made, how_made = _provision_time(policy, wanted)
    plant, how = _plant(policy, trace, vms, begin_s, wanted, made)
    warm_up_s = _warm_up(wanted.warm_up_s, tick_s, end_s - begin_s)
    unscored = f"the first {span(warm_up_s)} are not scored (--warm-up)" if warm_up_s > 0 else ""
    begun = Ticks.over(begin_s, end_s - begin_s, tick_s)
    notes = (said, f"{how}; {how_made}", _tick_note(trace, tick_s, wanted.tick_s), unscored, *changes)
    return Replay(
        policy=policy,
        fitted=fitted,
        policy_file=policy_file,
        trace=trace,
        plant=plant,
        made=made,
        faults=wanted.faults,
        begin_s=begin_s,
        end_s=end_s,
        tick_s=tick_s,
        warm_up_s=warm_up_s,
        seed=wanted.seed,
        notes=tuple(note for note in notes if note),
        cautions=(*_cautions(policy, trace, needed, vms), *_too_late(fitted, trace, plant, begun)),
    )


def _span(trace: Trace, wanted: Wanted, tick_s: float) -> tuple[float, float]:
    # A count becomes known when its interval is over, so one interval has to pass before the first reading.
    first_s = trace.start_s + (trace.interval_s if trace.kind is TraceKind.COUNT else 0.0)
    begin_s = first_s if wanted.begin_s is None else wanted.begin_s
    # Ticks lie on the grid of the clock, like the daemon's.
    begin_s = math.ceil(begin_s / tick_s - 1e-9) * tick_s
    end_s = trace.end_s if wanted.end_s is None else wanted.end_s
    if not trace.start_s <= begin_s < end_s <= trace.end_s:
        raise ConfigError(
            f"trace {trace.name} covers {describe_time(trace.start_s)} to {describe_time(trace.end_s)}; "
            f"--from {describe_time(begin_s)} and --to {describe_time(end_s)} must lie within it, in this order"
        )
    if end_s - begin_s < 3 * tick_s:
        raise ConfigError(
            f"{span(end_s - begin_s)} of trace {trace.name} are fewer than 3 ticks of {span(tick_s)}; "
            "replay a longer part (--from, --to), or use a shorter --tick"
        )
    return begin_s, end_s


def _fitted(policy: Policy, trace: Trace, tick_s: float) -> tuple[Policy, list[str]]:
    """Adapt the policy to a simulation driven by this trace, and say what was changed."""
    notes = []
    signal = policy.signal
    # A count becomes known one interval after its start, and stays the newest reading for another interval.
    oldest_s = 2.0 * trace.interval_s + tick_s
    if policy.uses_signal and signal.max_age_s < oldest_s and signal.max_age_s < 2.5 * trace.interval_s:
        fresh_s = 2.5 * max(trace.interval_s, tick_s)
        notes.append(
            f"readings of this trace are up to {span(oldest_s)} old, so signal.max_age is raised from "
            f"{span(signal.max_age_s)} to {span(fresh_s)}; otherwise the policy would always hold"
        )
        signal = signal.model_copy(update={"max_age_s": fresh_s})
    if signal.source != "trace":
        notes.append(f"signal.source {signal.source} is replaced by the trace")
    if policy.readiness.probe == "http":
        notes.append(
            "readiness comes from the provider's status checks, because simulated VMs do not answer HTTP"
        )
    return policy.model_copy(update={"signal": signal}), notes


def _plant_size(policy: Policy, needed: int, asked: int | None) -> tuple[int, str]:
    if asked is not None:
        return asked, f"a plant of {plural(asked, 'VM', 'VMs')}: peak demand needs {needed:,}"
    most = max(policy.bounds.maximum, policy.bounds.minimum, 1)
    vms = min(max(math.ceil(_SPARE * needed), policy.bounds.minimum, 1), most)
    why = f", and bounds.maximum is {most:,}" if vms == most and most < _SPARE * needed else ""
    return vms, f"a plant of {plural(vms, 'VM', 'VMs')}: peak demand needs {needed:,}{why} (--vms)"


def _tick_note(trace: Trace, tick_s: float, asked_s: float | None) -> str:
    if tick_s == trace.interval_s:
        return f"ticks of {span(tick_s)}, the trace's interval" + ("" if asked_s else " (--tick)")
    relation = (
        "each value holds for several ticks" if tick_s < trace.interval_s else "a tick sees the last one only"
    )
    return f"ticks of {span(tick_s)} on a trace with one value per {span(trace.interval_s)}: {relation}"


def _warm_up(asked_s: float | None, tick_s: float, span_s: float) -> float:
    if asked_s is None:
        return min(
            max(_SHORTEST_WARM_UP_S, _WARM_UP_TICKS * tick_s), tick_s * math.floor(0.2 * span_s / tick_s)
        )
    if asked_s >= span_s:
        raise ConfigError(f"--warm-up {span(asked_s)} leaves nothing of {span(span_s)} to score")
    return asked_s


def _plant(
    policy: Policy, trace: Trace, vms: int, begin_s: float, wanted: Wanted, made: Duration
) -> tuple[PlantSettings, str]:
    """Build the plant, and a note on its start times. It begins with as many VMs in service as the first demand needs."""
    first = trace.rate_at(begin_s)
    usual = 0.0 if math.isnan(first) else math.ceil(first / _SATURATED / policy.vm.capacity_per_s)
    serve = int(min(max(usual, policy.bounds.minimum), policy.bounds.maximum, vms))
    start_s = policy.vm.start_time_s if wanted.start_time_s is None else wanted.start_time_s
    why = "as vm.start_time says (--start-time)" if wanted.start_time_s is None else "(--start-time)"
    late = "" if wanted.start_p95_s is None else f" on average (95% quantile: {span(wanted.start_p95_s)})"
    boot_s = min(PlantSettings().boot_s, start_s)
    plant = PlantSettings(
        vms=vms,
        in_service=serve,
        start=_start_time(start_s, wanted.start_p95_s),
        # Without effect if the policy never provisions VMs.
        provision=PlantSettings().provision if policy.provision is None else made,
        boot_s=boot_s,
        stop_s=policy.vm.stop_time_s,
        start_failure=wanted.start_failure,
        metric_lag_s=wanted.metric_lag_s,
    )
    return plant, f"a start takes {span(start_s)}{late}, {why}{_hibernated(policy)}"


def _provision_time(policy: Policy, wanted: Wanted) -> tuple[Duration, str]:
    """Choose how long a provision takes, and say where the number comes from: the option, or what the policy plans with."""
    start_s = policy.vm.start_time_s if wanted.start_time_s is None else wanted.start_time_s
    if wanted.provision_time_s is not None:
        planned_s, why = wanted.provision_time_s, ""
    else:
        planned_s = policy.provision_time_s
        why = "" if policy.objective is None else ", as objective.provision_time says"
    made_s = max(planned_s, start_s)
    return Duration(made_s), f"provisioning a VM takes {span(made_s)}{why} (--provision-time)"


def _hibernated(policy: Policy) -> str:
    """Say how long a hibernated VM is assumed to take to start. Empty if the policy does not hibernate VMs."""
    section = policy.warm_pool.hibernate
    if section is None:
        return ""
    if section.start_time_s is None:
        return "; starting a hibernated VM takes as long, because warm_pool.hibernate has no start_time"
    return f"; starting a hibernated VM takes {span(section.start_time_s)}, as warm_pool.hibernate.start_time says"


def _start_time(mean_s: float, p95_s: float | None) -> Duration:
    try:
        return Duration(mean_s, p95_s)
    except ConfigError as error:
        raise ConfigError(f"--start-time, --start-p95: {error}") from None


def _cautions(policy: Policy, trace: Trace, needed: int, vms: int) -> Iterator[str]:
    most = policy.bounds.maximum
    if needed > most:
        yield (
            f"Peak demand needs {needed:,} VMs, but bounds.maximum is {most:,}, which causes part of the shortage. "
            "If the trace and vm.capacity use different units, scale the trace with --scale-to-vms."
        )
    elif needed > vms and policy.provision is None:
        yield f"Peak demand needs {needed:,} VMs, but only {vms:,} exist, which causes part of the shortage."
    if trace.peak_per_s == 0:
        yield "The trace is zero throughout, so no VM is ever needed."
    elif trace.peak_per_s < policy.vm.capacity_per_s:
        yield (
            f"One VM of {count(policy.vm.capacity_per_s)}/s can serve the whole trace, whose peak is {trace.peak_per_s:.3g}/s. "
            "If the trace and vm.capacity use different units, scale the trace with --scale-to-vms."
        )
    if not any((policy.prices.in_service_per_h, policy.prices.stopped_per_h, policy.prices.start)):
        yield "The policy has no prices, so all costs are 0. Fill in `prices` to compare costs."
    yield from doubts_of(trace)
    if trace.missing:
        yield (
            f"The trace has no values for {span(trace.missing * trace.interval_s)}; demand is unknown there, and "
            "those ticks count neither as served nor as short."
        )


def _too_late(policy: Policy, trace: Trace, plant: PlantSettings, ticks: Ticks) -> Iterator[str]:
    """Yield a caution if metrics arrive so late that they are often stale."""
    pipeline = pipeline_of(policy, plant)
    if not (policy.uses_signal and pipeline.lag_s > 0):
        return
    stale = float(np.mean(seen(trace, ticks, pipeline, Luck(0, policy.fleet)).freshness == Freshness.STALE))
    if stale > _FEW:
        yield (
            f"Metrics are {span(pipeline.lag_s)} late and count as stale after {span(pipeline.max_age_s)} (signal.max_age): "
            f"they are stale in {share(stale)} of the ticks. Neither the policy nor the baselines act on stale metrics."
        )


def shared_luck(replays: tuple[Replay, ...]) -> tuple[Replay, ...]:
    """Return the replays with one plant and one fleet name, so that all meet the same VMs and the same random draws.

    The plant is that of the first replay, with as many VMs as the largest plant has. The notes say so. Cautions say where
    the policies' own assumptions differ.
    """
    first = replays[0]
    largest = max(replays, key=lambda one: one.plant.vms)
    plant = replace(first.plant, vms=largest.plant.vms)
    shared = (largest.notes[_SIZE], first.notes[_START]) if len(replays) > 1 else first.notes[: _START + 1]
    cautions = tuple(_differing([one.policy for one in replays], plant))
    return tuple(
        replace(
            one,
            plant=plant,
            fitted=one.fitted.model_copy(update={"fleet": first.fitted.fleet}),
            notes=(*shared, *one.notes[_START + 1 :]),
            cautions=(*cautions, *one.cautions),
        )
        for one in replays
    )


def _differing(policies: Sequence[Policy], plant: PlantSettings) -> Iterator[str]:
    """Yield cautions where the compared policies make assumptions about prices and VMs that cannot all be true."""
    if len({policy.prices for policy in policies}) > 1:
        told = " and ".join(f"{policy.prices.in_service_per_h:g}/h" for policy in policies)
        yield (
            f"The policies have different `prices` (a VM in service costs {told}), and the costs of each are computed with its "
            "own. Make them equal to compare what the policies do rather than what VMs cost."
        )
    if len({policy.vm.capacity_per_s for policy in policies}) > 1:
        told = " and ".join(f"{count(policy.vm.capacity_per_s)}/s" for policy in policies)
        yield (
            f"The policies have different vm.capacity ({told}), and each is simulated with its own. Make it equal, unless the "
            "capacity is what you compare."
        )
    if len({policy.vm.start_time_s for policy in policies}) > 1:
        told = " and ".join(span(policy.vm.start_time_s) for policy in policies)
        yield (
            f"The policies have different vm.start_time ({told}). Simulated starts take {span(plant.start.mean_s)} for all, but "
            "each policy plans with its own. Make it equal, unless the start time is what you compare."
        )
