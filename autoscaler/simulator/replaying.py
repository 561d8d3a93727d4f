"""A replay: a policy against a recorded trace, prepared, run and compared with its baselines.

Why: `replay` and `compare` ask the same thing of one or several policies. What a person did not say is chosen
here, and every choice that changes numbers is said (`Replay.notes`); what makes the result doubtful is a caution.

Rules of this file: no printing, no options. A trace is never changed in silence; a policy only where a simulated
VM could not carry it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.faults import Fault
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from autoscaler.config.policy import Policy
from autoscaler.errors import ConfigError
from autoscaler.ports import TickRecord
from autoscaler.simulator.baselines import always_on, describe, plain_reactive
from autoscaler.simulator.identity import identity_of
from autoscaler.simulator.loopback import LoopResult, LoopRun, run_loop
from autoscaler.simulator.report.card import FIGURES, Card, Entry, values_of
from autoscaler.simulator.report.wording import count, plural, span
from autoscaler.simulator.timeline import RunIdentity, TimelineRow, totals
from autoscaler.traces.trace import Trace, TraceKind, describe_time

MAX_TICK_S = 3600.0
_SHORTEST_WARM_UP_S = 300.0
_WARM_UP_TICKS = 10
_SPARE = 1.2
"""VMs of the plant over what the peak needs, where nobody says how many there are."""
_SATURATED = 0.8
"""Utilisation that the fleet begins at."""

Progress = Callable[[float], None]
"""Told the share that is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for; None is chosen.

    Attributes:
        vms: VMs that exist when the run begins.
        tick_s: Length of a tick.
        begin_s, end_s: Part of the trace.
        scale_to_vms: Scale the trace so that its peak needs so many VMs.
        warm_up_s: Time at the beginning that is shown and not scored.
        faults: Bad days of the cloud.
        seed: Of everything random.
    """

    vms: int | None = None
    tick_s: float | None = None
    begin_s: float | None = None
    end_s: float | None = None
    scale_to_vms: int | None = None
    warm_up_s: float | None = None
    faults: tuple[Fault, ...] = ()
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Replay:
    """A policy and everything it is run on.

    Attributes:
        policy: As given.
        fitted: The same as far as a simulation can carry it out.
        policy_file: Where it comes from.
        trace: As played.
        cloud: The plant.
        begin_s, end_s: Moments of the trace.
        tick_s: Length of a tick.
        warm_up_s: Time at the beginning that is not scored.
        seed: Of everything random.
        notes: What was chosen or changed, for the person.
        cautions: What makes the figures doubtful.
    """

    policy: Policy
    fitted: Policy
    policy_file: Path
    trace: Trace
    cloud: CloudSetup
    begin_s: float
    end_s: float
    tick_s: float
    warm_up_s: float
    seed: int
    notes: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def span_s(self) -> float:
        """Length of the run."""
        return self.end_s - self.begin_s

    @property
    def identity(self) -> RunIdentity:
        """What makes it this run."""
        return identity_of(self.policy, self.trace, asdict(self.cloud), self.seed)


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a replay.

    Attributes:
        rows: The whole time line.
        scored: The rows after the warm-up.
        whole: Whether it ran to its end.
        engine: Which engine ran it.
    """

    rows: tuple[TimelineRow, ...]
    scored: tuple[TimelineRow, ...]
    whole: bool
    engine: str


# ── preparing ───────────────────────────────────────────────────────────────────────────────────────────


def tick_for(trace: Trace) -> float:
    """The tick where nobody says one: the trace's interval, within what a replay can do."""
    return min(max(trace.interval_s, 1.0), MAX_TICK_S)


def prepare(policy: Policy, policy_file: Path, trace: Trace, wanted: Wanted) -> Replay:
    """Choose what was not said, and check the rest.

    Raises:
        ConfigError: The span or the tick is impossible, or there are no VMs to run.
        TraceError: The part asked for has no rows.
    """
    tick_s = wanted.tick_s or tick_for(trace)
    if not 1.0 <= tick_s <= MAX_TICK_S:
        raise ConfigError(f"--tick {tick_s:g}s must be from 1 s to {MAX_TICK_S / 3600:g} h")
    begin_s, end_s = _span(trace, wanted, tick_s)
    trace = trace.cut(max(begin_s - 2 * trace.interval_s, trace.start_s), end_s)
    if wanted.scale_to_vms is not None:
        trace = trace.scaled_to_peak(wanted.scale_to_vms * policy.vm.capacity_per_s)
    fitted, changes = _fitted(policy, trace, tick_s)
    needed = math.ceil(trace.peak_per_s / policy.vm.capacity_per_s - 1e-9)
    vms, said = _plant_size(policy, needed, wanted.vms)
    warm_up_s = _warm_up(wanted.warm_up_s, tick_s, end_s - begin_s)
    notes = (said, _tick_note(trace, tick_s, wanted.tick_s), *changes)
    return Replay(
        policy=policy,
        fitted=fitted,
        policy_file=policy_file,
        trace=trace,
        cloud=_cloud(policy, trace, vms, begin_s, wanted),
        begin_s=begin_s,
        end_s=end_s,
        tick_s=tick_s,
        warm_up_s=warm_up_s,
        seed=wanted.seed,
        notes=tuple(note for note in notes if note),
        cautions=tuple(_cautions(policy, trace, needed, vms)),
    )


def _span(trace: Trace, wanted: Wanted, tick_s: float) -> tuple[float, float]:
    # A count is known once its interval is over, so the first one passes before anything can be read.
    first_s = trace.start_s + (trace.interval_s if trace.kind is TraceKind.COUNT else 0.0)
    begin_s = first_s if wanted.begin_s is None else wanted.begin_s
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
    """The policy as this trace can drive it, and what was changed."""
    notes = []
    signal = policy.signal
    # A count is known one interval after its start, and is then the newest reading for another one.
    oldest_s = 2.0 * trace.interval_s + tick_s
    if policy.uses_signal and signal.max_age_s < oldest_s and signal.max_age_s < 2.5 * trace.interval_s:
        fresh_s = 2.5 * max(trace.interval_s, tick_s)
        notes.append(
            f"readings of this trace are up to {span(oldest_s)} old, so signal.max_age of "
            f"{span(signal.max_age_s)} is taken as {span(fresh_s)}: otherwise the policy would always hold"
        )
        signal = signal.model_copy(update={"max_age_s": fresh_s})
    if signal.source != "trace":
        notes.append(f"signal.source {signal.source} is replaced by the trace")
    if policy.readiness.probe == "http":
        notes.append("readiness is asked of the provider's status checks, since no simulated VM answers http")
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
        "demand holds over several ticks" if tick_s < trace.interval_s else "a tick sees the last one only"
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


def _cloud(policy: Policy, trace: Trace, vms: int, begin_s: float, wanted: Wanted) -> CloudSetup:
    """The fleet begins with as many VMs in service as its first demand needs."""
    first = trace.rate_at(begin_s)
    usual = 0.0 if math.isnan(first) else math.ceil(first / _SATURATED / policy.vm.capacity_per_s)
    serve = int(min(max(usual, policy.bounds.minimum), policy.bounds.maximum, vms))
    fleets = (
        FleetSetup(policy.fleet, serve, state=State.RUNNING),
        FleetSetup(policy.fleet, vms - serve),
    )
    p = policy.prices
    return CloudSetup(
        seed=wanted.seed,
        fleets=tuple(fleet for fleet in fleets if fleet.vms),
        faults=wanted.faults,
        prices=Prices(p.in_service_per_h, p.stopped_per_h, p.start),
    )


def _cautions(policy: Policy, trace: Trace, needed: int, vms: int) -> Iterator[str]:
    most = policy.bounds.maximum
    if needed > most:
        yield (
            f"Peak demand needs {needed:,} VMs and bounds.maximum is {most:,}: part of the shortage is the bound's. "
            "If the trace is in another unit than vm.capacity, scale it with --scale-to-vms."
        )
    elif needed > vms and policy.provision is None:
        yield f"Peak demand needs {needed:,} VMs and only {vms:,} exist: part of the shortage is theirs."
    if trace.peak_per_s < policy.vm.capacity_per_s:
        yield (
            f"One VM of {count(policy.vm.capacity_per_s)}/s serves the whole trace, whose peak is "
            f"{trace.peak_per_s:.3g}/s: if it is in another unit than vm.capacity, scale it with --scale-to-vms."
        )
    if not any((policy.prices.in_service_per_h, policy.prices.stopped_per_h, policy.prices.start)):
        yield "The policy has no prices, so nothing costs anything: fill in `prices` to compare money."
    if trace.missing:
        yield (
            f"The trace has no values for {span(trace.missing * trace.interval_s)}; demand is unknown there, and "
            "those ticks count neither as served nor as short."
        )


# ── running ─────────────────────────────────────────────────────────────────────────────────────────────


def run(
    replay: Replay,
    progress: Progress | None = None,
    enough: Callable[[], bool] | None = None,
    journal_dir: Path | None = None,
) -> Ran:
    """Run a replay.

    Args:
        replay: What to run.
        progress: Told after each tick.
        enough: Asked after each tick; true ends it there.
        journal_dir: Where the journal is kept.

    Raises:
        InvariantError: The program contradicts itself.
        JournalError: The journal cannot be kept.
    """
    return _ran(replay, _run_loop(replay, replay.fitted, progress, enough, journal_dir))


def _run_loop(
    replay: Replay,
    policy: Policy,
    progress: Progress | None = None,
    enough: Callable[[], bool] | None = None,
    journal_dir: Path | None = None,
) -> LoopResult:
    def on_tick(record: TickRecord) -> None:
        if progress is not None:
            progress(min((record.at_s - replay.begin_s) / replay.span_s, 1.0))

    run_of = LoopRun(
        policy,
        replay.trace,
        replay.cloud,
        replay.begin_s,
        replay.span_s,
        replay.tick_s,
        replay.seed,
        journal_dir,
    )
    return run_loop(run_of, on_tick, enough)


def _ran(replay: Replay, result: LoopResult) -> Ran:
    rows = result.rows
    scored = tuple(row for row in rows if row.timestamp_s >= replay.begin_s + replay.warm_up_s)
    return Ran(rows, scored, result.whole, "loop")


def baselines(
    replay: Replay, ran: Ran, progress: Progress | None = None, enough: Callable[[], bool] | None = None
) -> tuple[Entry, ...]:
    """The same demand served in simpler ways; those that take a run are left out where it was interrupted."""
    if not ran.scored:
        return ()
    peak = totals(always_on(ran.scored, replay.policy, replay.tick_s), replay.tick_s)
    found = [
        Entry(
            "static_peak", "always on at peak",
            "As many VMs as the highest demand needs, in service all the time; it knows the peak beforehand.",
            values_of(peak),
        )
    ]  # fmt: skip
    if ran.whole:
        reactive = plain_reactive(replay.fitted)
        result = _run_loop(replay, reactive, progress, enough)
        if result.whole:
            found.append(
                Entry(
                    "plain_reactive", "plain reactive",
                    "Demand as measured plus 30% headroom, with 10% tolerance; bounds, guards and prices of the policy.",
                    values_of(totals(_ran(replay, result).scored, replay.tick_s)),
                )
            )  # fmt: skip
    return tuple(found)


# ── what is left of it ──────────────────────────────────────────────────────────────────────────────────


def entry_of(replay: Replay, ran: Ran, name: str, key: str = "policy") -> Entry:
    """The column of a policy in the score card."""
    return Entry(
        key, name, describe(replay.policy), values_of(totals(ran.scored, replay.tick_s)), judged=True
    )


def card_of(entries: tuple[Entry, ...]) -> Card:
    """The score card of these entries."""
    return Card(FIGURES, entries)


def details_of(replay: Replay, ran: Ran) -> dict[str, Any]:
    """Facts beside the figures, for `report.json`."""
    return {
        "fleet": replay.policy.fleet,
        "policy_file": str(replay.policy_file),
        "policy_in_words": describe(replay.policy),
        "trace": replay.trace.name,
        "begin": describe_time(replay.begin_s),
        "end": describe_time(replay.begin_s + len(ran.rows) * replay.tick_s),
        "asked_s": replay.span_s,
        "span_s": len(ran.rows) * replay.tick_s,
        "not_scored_s": replay.warm_up_s,
        "partial": not ran.whole,
        "tick_s": replay.tick_s,
        "vms": sum(fleet.vms for fleet in replay.cloud.fleets),
        "vm_capacity_per_s": replay.policy.vm.capacity_per_s,
        "engine": ran.engine,
        "notes": list(replay.notes),
        "cautions": list(replay.cautions),
    }


def shared_luck(replays: tuple[Replay, ...]) -> tuple[Replay, ...]:
    """The same replays on one plant: the largest fleet of any, so that only decisions differ."""
    largest = max(replays, key=lambda one: sum(fleet.vms for fleet in one.cloud.fleets))
    return tuple(
        replace(one, cloud=replace(one.cloud, fleets=_renamed(largest.cloud, one.policy.fleet)))
        for one in replays
    )


def _renamed(cloud: CloudSetup, fleet: str) -> tuple[FleetSetup, ...]:
    return tuple(replace(each, fleet=fleet) for each in cloud.fleets)


def same_span(runs: Mapping[str, tuple[Replay, Ran]]) -> dict[str, tuple[Replay, Ran]]:
    """The runs cut to the ticks that all of them have, where one was interrupted."""
    shortest = min(len(ran.rows) for _, ran in runs.values())
    whole = all(ran.whole for _, ran in runs.values())
    return {
        name: (
            one,
            Ran(
                ran.rows[:shortest],
                ran.scored[: max(shortest - (len(ran.rows) - len(ran.scored)), 0)],
                whole,
                ran.engine,
            ),
        )
        for name, (one, ran) in runs.items()
    }
