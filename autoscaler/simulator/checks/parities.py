"""The checks that need the real daemon: both engines decide alike, and so does a replayed journal.

Rules of this file: the daemon runs on virtual time over a part of the run, because it takes longer than lanes.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.core.decide import decide
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Samples, Snapshot
from autoscaler.ports import FleetTick
from autoscaler.simulator.checks.guards import State, Verdict
from autoscaler.simulator.checks.subject import Subject
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.matching import as_probed, cloud_of, unmatched
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.store import JournalReader
from autoscaler.store.reader import TickRow
from autoscaler.traces.trace import describe_time

LONGEST_TICKS = 2000
"""Most ticks that the daemon is run for, around the highest demand of the run."""
_COMPARED = (
    "in_service",
    "starting",
    "stopping",
    "stopped",
    "desired",
    "start",
    "provision",
    "stop",
    "reasons",
)


def engine_parity(subject: Subject) -> Verdict:
    """Check that the lane engine and the real daemon decide the same, tick by tick, on the same fleet."""
    if missing := unmatched(subject.plant):
        return Verdict(
            "engine parity", State.NOT_SHOWN, f"the engines differ on purpose here: {'; '.join(missing)}"
        )
    part = _part(subject)
    recorded: list[FleetTick] = []
    run_loop(_loop_run(part), lambda record: recorded.append(record.fleets[0]))
    witness = Witness([0])
    lanes = part.lanes(part.run_of([part.trace]), witness)
    lanes.run(part.ticks.count)
    mine = witness.fleet_ticks(0, part.policy.fleet)
    for number, (lane, loop) in enumerate(zip(mine, recorded, strict=False)):
        for name in _COMPARED:
            if getattr(lane, name) != getattr(loop, name):
                return Verdict(
                    "engine parity",
                    State.FAILS,
                    f"at {part.time_of(number)} `{name}` is {getattr(lane, name)} in lanes and {getattr(loop, name)} in the daemon",
                )
    if not any(tick.start or tick.stop for tick in recorded):
        return Verdict("engine parity", State.NOT_SHOWN, "nothing was started or stopped on this traffic")
    return Verdict(
        "engine parity", State.HOLDS, f"lanes and the real daemon decide the same in {len(recorded):,} ticks"
    )


def journal_parity(subject: Subject) -> Verdict:
    """Check that the journal holds all that a decision depends on: recorded ticks decided again must give the same decisions."""
    part = _part(subject)
    with tempfile.TemporaryDirectory(prefix="autoscaler-check-") as folder:
        run_loop(replace(_loop_run(part), journal_dir=Path(folder)))
        with JournalReader(Path(folder)) as reader:
            ticks = reader.ticks(part.policy.fleet, float("-inf"), float("inf"))
    apart = decided_again(subject, ticks)
    if apart:
        return Verdict("journal parity", State.FAILS, apart)
    return Verdict(
        "journal parity",
        State.HOLDS,
        f"{len(ticks):,} ticks of the journal lead to the same decisions when replayed",
    )


def decided_again(subject: Subject, ticks: tuple[TickRow, ...]) -> str:
    """Decide recorded ticks once more and return the first difference in words; empty if there is none."""
    tick_s = subject.ticks.tick_s
    compiled = compile_params([as_probed(subject.policy)], tick_s, ticks[0].at_s)
    lane_state, series_state = LaneState.empty(compiled.lanes), SeriesState.empty(compiled.series)
    for row in ticks:
        was = row.recorded
        samples = _samples(row)
        outlook = step(compiled.series, series_state, samples)
        decision = decide(compiled.lanes, lane_state, _snapshot(row, samples), outlook)
        now = tuple(int(each) for each in decision.value[:, 0])
        why = tuple(int(each) for each in decision.reason[:, 0])
        if now != was.stages or why != was.reasons:
            return (
                f"the tick of {describe_time(row.at_s)} was decided as {was.stages[-1]}, but a replay decides {now[-1]}: "
                "the journal lacks something that the decision depended on"
            )
    return ""


def _samples(row: TickRow) -> Samples:
    was = row.recorded
    return Samples(
        row.at_s,
        np.array([was.demand]),
        np.array([was.observed_at_s]),
        np.array([was.freshness]),
        np.array([was.coverage]),
        np.array([was.censored]),
    )


def _snapshot(row: TickRow, samples: Samples) -> Snapshot:
    was, yes = row.recorded, np.ones(1, np.bool_)

    def one(count: int) -> np.ndarray:
        return np.array([count], np.int32)

    return Snapshot(
        now_s=row.at_s,
        tick=row.tick,
        demand=samples.demand,
        observed_at_s=samples.observed_at_s,
        freshness=samples.freshness,
        coverage=samples.coverage,
        censored=samples.censored,
        in_service=one(was.in_service),
        starting=one(was.starting),
        draining=one(was.draining),
        stopping=one(was.stopping),
        stopped=one(was.stopped),
        provisioned=one(was.provisioned),
        stoppable=one(was.stoppable),
        listed=yes,
        may_start=yes,
        may_provision=yes,
        may_stop=yes,
        floor=one(0),
        ceiling=one(NO_CEILING),
    )


def _part(subject: Subject) -> Subject:
    """Return the stretch of the run around its highest demand."""
    ticks = subject.ticks
    count = min(ticks.count, LONGEST_TICKS)
    peak_s = float(subject.trace.timestamps[int(np.argmax(subject.trace.values))])
    middle = round(peak_s / ticks.tick_s) - ticks.first
    first = min(max(middle - count // 2, 0), ticks.count - count)
    return replace(subject, ticks=replace(ticks, first=ticks.first + first, count=count))


def _loop_run(part: Subject) -> LoopRun:
    policy = as_probed(part.policy)
    return LoopRun(
        policy,
        part.trace,
        cloud_of(policy, part.plant, part.seed),
        part.ticks.start_s,
        (part.ticks.count - 0.5) * part.ticks.tick_s,
        part.ticks.tick_s,
        part.seed,
    )
