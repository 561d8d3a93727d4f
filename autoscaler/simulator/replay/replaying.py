"""Runs a replay: on lanes if they can express it, otherwise with the real daemon on virtual time.

Rules of this file: both engines run the same plant on the same ticks. What only one of them can express is reported or
refused, never left out. The score card compares the policy with other ways to serve the demand (`standings`). These always
run as lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.errors import ConfigError
from autoscaler.ports import TickRecord
from autoscaler.simulator.judging.forecast_score import FORECAST_FIGURES, forecast_values
from autoscaler.simulator.judging.ledger import Block, Sums
from autoscaler.simulator.judging.score import FIGURES, Comparators, LanePrices, score
from autoscaler.simulator.judging.standings import (
    RIVALS,
    Comparison,
    OwnRun,
    Rival,
    without_pool,
)
from autoscaler.simulator.judging.stretches import sums_of_one
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.fingerprints import fingerprint
from autoscaler.simulator.lanes.lane_timeline import KeptTicks, timeline
from autoscaler.simulator.lanes.matching import as_probed, cloud_of, unmatched
from autoscaler.simulator.lanes.metrics import pipeline_of
from autoscaler.simulator.lanes.refusals import refusals
from autoscaler.simulator.lanes.run import EnoughError
from autoscaler.simulator.lanes.segments import run_segmented
from autoscaler.simulator.peers.peer import USUAL_UTILISATION
from autoscaler.simulator.replay.preparing import Replay
from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.simulator.report.card import Card, Entry
from autoscaler.simulator.report.columns import columns_of
from autoscaler.traces.trace import TraceKind, describe_time

Engine = Literal["auto", "lanes", "loop"]
Progress = Callable[[float], None]
"""Called with the share that is done, from 0 to 1."""

_AIM = (
    f"the compared rules aim at {USUAL_UTILISATION:.0%} of vm.capacity, which is {1 / USUAL_UTILISATION - 1:.0%} headroom; "
    "`autoscaler benchmark` runs them at every setting"
)
_ALONE = "the policy is not compared with other rules: these run by lanes, and lanes cannot express the fleet of this policy"
_NO_FAULTS = "the compared rules ran without the faults"
_LONG_TICKS = 4096
"""Number of ticks above which a run is cut into segments that run side by side. Shorter runs are done before cutting pays."""
_UNTOLD = ("failed_starts", "running_cost", "start_cost", "storage_cost", "billed_vm_hours")
"""Figures that cannot be computed from a timeline alone."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of a replay.

    Attributes:
        rows: The whole timeline.
        scored: The rows after the warm-up.
        sums: Sums over the scored ticks, as one lane.
        decisions: Digest of the decisions of all ticks. Both engines give the same.
        whole: Whether the run reached its end.
        engine: Name of the engine that ran it.
        from_rows: Whether `sums` come from the timeline alone, so that the figures in `_UNTOLD` are unknown.
        own: The policy's run for the comparison with rivals, if it is not run again for that (`is_run_once`).
    """

    rows: tuple[TimelineRow, ...]
    scored: tuple[TimelineRow, ...]
    sums: Sums
    decisions: str
    whole: bool
    engine: str
    from_rows: bool = False
    own: OwnRun | None = None


def engine_for(replay: Replay, asked: Engine = "auto") -> tuple[Literal["lanes", "loop"], str]:
    """Choose the engine for a replay, and say what there is to note about the choice. The note may be empty.

    Raises:
        ConfigError: The requested engine cannot express the replay.
    """
    if asked == "loop":
        missing = unmatched(replay.plant)
        return "loop", f"the loop engine differs from the plant: {'; '.join(missing)}" if missing else ""
    reasons = refusals(replay.fitted, replay.plant, replay.tick_s)
    if replay.faults:
        reasons = [*reasons, "--faults strike single VMs and calls, which only the loop engine simulates"]
    if not reasons:
        return "lanes", ""
    if asked == "lanes":
        raise ConfigError(f"--engine lanes cannot run this: {'; '.join(reasons)}")
    return "loop", f"run by the loop engine: {'; '.join(reasons)}"


def precompute_forecasts(replay: Replay, enough: Callable[[], bool] | None = None) -> None:
    """Compute the forecasts that a run by lanes and `rivals_of` need, so that both find them in the cache.

    Both sets of forecasts are made in one pass, because stepping two series costs little more than stepping one. Nothing is
    kept if the pass is ended early. Nothing is made if no policy reads forecasts, or if they depend on the plant.

    Args:
        replay: The replay, which lanes are to run.
        enough: Asked from time to time. True ends the pass.
    """
    policy = as_probed(replay.fitted)
    other, plant = without_pool(policy, replay.plant, replay.made)

    def look() -> None:
        if enough is not None and enough():
            raise EnoughError

    replay.outlooks.look = look
    run_of = LaneRun((policy, other), (replay.plant, plant), (replay.trace,) * 2, replay.grid, replay.seed)
    try:
        Lanes(run_of, cache=replay.outlooks)
    except EnoughError:
        return
    finally:
        replay.outlooks.look = None


def run(
    replay: Replay,
    progress: Progress | None = None,
    enough: Callable[[], bool] | None = None,
    journal_dir: Path | None = None,
    engine: Literal["lanes", "loop"] | None = None,
) -> ReplayResult:
    """Run a replay.

    Args:
        replay: The replay.
        progress: Called from time to time.
        enough: Asked from time to time. True ends the run, and the part that was run is returned.
        journal_dir: Directory for the loop engine's journal.
        engine: The engine. None chooses the one that suits.

    Raises:
        ConfigError: The engine cannot express the replay.
        InvariantError: The program contradicts itself.
        JournalError: The journal cannot be written.
    """
    if (engine or engine_for(replay)[0]) == "loop":
        return _by_loop(replay, progress, enough, journal_dir)
    return _by_lanes(replay, progress, enough)


def _by_lanes(replay: Replay, progress: Progress | None, enough: Callable[[], bool] | None) -> ReplayResult:
    def look(share: float | None = None) -> None:
        if enough is not None and enough():
            raise EnoughError
        if progress is not None and share is not None:
            progress(share)

    replay.outlooks.look = look
    # Cutting a short run does not pay. `run_segmented` runs what cannot be cut tick by tick.
    segments = None if replay.ticks > _LONG_TICKS else 1
    once = is_run_once(replay)
    try:
        # The policy's sums are those of the witnessed run, as far as it goes.
        found = run_segmented(
            _lane_run(replay),
            segments=segments,
            cache=replay.outlooks,
            witnessed=[0],
            elasticity=once,
            skipped=replay.warm_up_ticks if once else 0,
            look=look,
        )
    except EnoughError:
        # Ended while forecasts were being made, before the first tick.
        return _ran_by_lanes(replay, (), None)
    finally:
        replay.outlooks.look = None
    ran = _ran_by_lanes(replay, found.pages[0], found.fingerprints.digests()[0] if found.whole else None)
    if once and found.whole and found.begins is not None:
        return replace(ran, own=OwnRun(found.sums, int(found.begins[0])))
    return ran


def _ran_by_lanes(replay: Replay, pages: Sequence[KeptTicks], decisions: str | None) -> ReplayResult:
    """Build the result of a run by lanes. Without a digest of its decisions, the run did not reach its end."""
    rows = timeline(pages, replay.policy.fleet, replay.tick_s)
    kept: dict[str, Any] = {
        name: np.concatenate([page.block[name] for page in pages])[replay.warm_up_ticks :]
        for name in (pages[0].block if pages else ())
    }
    capacity = replay.policy.vm.capacity_per_s
    sums = Sums(replay.tick_s, np.array([capacity]))
    if pages:
        first_tick = pages[0].first_tick + replay.warm_up_ticks
        sums = sums_of_one(Block(replay.tick_s, first_tick, **kept), capacity)
    scored = rows[replay.warm_up_ticks :]
    return ReplayResult(rows, scored, sums, decisions or _digest(rows), decisions is not None, "lanes")


def _digest(rows: Sequence[TimelineRow]) -> str:
    return fingerprint(
        (row.desired or 0, row.starts or 0, row.stops or 0, row.provisions or 0) for row in rows
    )


def _lane_run(replay: Replay) -> LaneRun:
    return LaneRun((as_probed(replay.fitted),), (replay.plant,), (replay.trace,), replay.grid, replay.seed)


def _by_loop(
    replay: Replay,
    progress: Progress | None,
    enough: Callable[[], bool] | None,
    journal_dir: Path | None,
) -> ReplayResult:
    # Importing the daemon takes longer than writing down a month that lanes ran.
    from autoscaler.simulator.replay.loopback import LoopRun, run_loop

    def on_tick(record: TickRecord) -> None:
        if progress is not None:
            progress(min((record.at_s - replay.begin_s) / replay.span_s, 1.0))

    policy = as_probed(replay.fitted)
    cloud = replace(cloud_of(policy, replay.plant, replay.seed), faults=replay.faults)
    # A row is closed by the next tick, so one tick more is run than there are rows.
    length_s = replay.ticks * replay.tick_s + 0.5 * replay.tick_s
    result = run_loop(
        LoopRun(
            policy=policy,
            trace=replay.trace,
            cloud=cloud,
            start_s=replay.begin_s,
            duration_s=length_s,
            tick_s=replay.tick_s,
            seed=replay.seed,
            journal_dir=journal_dir,
            imbalance=0.0,
        ),
        on_tick,
        enough,
    )
    rows = result.rows[: replay.ticks]
    scored = rows[replay.warm_up_ticks :]
    return ReplayResult(
        rows, scored, _sums_of(scored, replay), _digest(rows), result.whole, "loop", from_rows=True
    )


def _sums_of(rows: Sequence[TimelineRow], replay: Replay) -> Sums:
    """Sum the rows of a timeline. The figures in `_UNTOLD` cannot be computed from rows and have no meaning in the result."""
    sums = Sums(replay.tick_s, np.array([replay.policy.vm.capacity_per_s]))
    if not rows:
        return sums
    columns = columns_of(rows, replay.tick_s)

    def work(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return columns[name][:, np.newaxis]

    def vms(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        return np.nan_to_num(columns[name]).astype(np.int32)[:, np.newaxis]

    sums.add(
        Block(
            tick_s=replay.tick_s,
            first_tick=round(float(columns.stamps_s[0]) / replay.tick_s),
            demand=work("demand"),
            capacity=work("capacity"),
            shortage=work("shortage"),
            desired=vms("desired"),
            in_service=vms("in_service"),
            starting=vms("starting"),
            draining=vms("draining"),
            stopped=vms("stopped"),
            provisioned=np.zeros((len(rows), 1), np.int32),
            warm_target=vms("warm_target"),
            starts=vms("starts"),
            stops=vms("stops"),
            provisions=vms("provisions"),
            failed_starts=np.zeros((len(rows), 1), np.int32),
            billed_vm_s=np.full((len(rows), 1), math.nan),
            cost=work("cost"),
        )
    )
    return sums


# ── the score card and the facts beside it ──────────────────────────────────────────────────────────────────


def rivals_of(
    replay: Replay, progress: Progress | None = None, enough: Callable[[], bool] | None = None
) -> tuple[Entry, ...]:
    """Run the policy and other ways to serve the demand as lanes. Returns columns of a score card, the policy first.

    Empty if lanes cannot express the policy, or if the run was ended early.
    """
    if refusals(replay.fitted, replay.plant, replay.tick_s):
        return ()
    found = _compared(replay).standings(progress, enough)
    return found.entries if found.whole else ()


def is_run_once(replay: Replay) -> bool:
    """Return whether lanes run the policy only once and judge its rivals beside that run.

    So it is with an objective: such a run cannot be cut into segments, so it is most of the work.
    """
    return replay.policy.objective is not None and engine_for(replay)[0] == "lanes"


def others_of(
    replay: Replay,
    progress: Progress | None = None,
    enough: Callable[[], bool] | None = None,
    rivals: Sequence[Rival] = RIVALS,
) -> Sums | None:
    """Return the sums of all rivals for `rivals_beside`, the fleet without its warm pool first. None if ended early."""
    return _compared(replay, rivals).others(progress, enough)


def rivals_beside(replay: Replay, own: OwnRun, others: Sums) -> tuple[Entry, ...]:
    """Return the same entries as `rivals_of`, to the bit, from the policy's own run and the result of `others_of`."""
    return _compared(replay).beside(own, others).entries


def _compared(replay: Replay, rivals: Sequence[Rival] = RIVALS) -> Comparison:
    return Comparison(
        as_probed(replay.fitted),
        replay.plant,
        replay.trace,
        replay.grid,
        replay.warm_up_ticks,
        replay.seed,
        rivals,
        replay.made,
        replay.outlooks,
    )


def entry_of(
    replay: Replay,
    ran: ReplayResult,
    name: str,
    key: str = "policy",
    rivals: Sequence[Entry] = (),
    *,
    hindsight: bool = False,
    progress: Progress | None = None,
    enough: Callable[[], bool] | None = None,
) -> Entry:
    """Return the column of a policy in the score card.

    Args:
        replay: The replay.
        ran: Its result.
        name: Name of the policy for people.
        key: Key for programs.
        rivals: Entries of `rivals_of` that belong to this policy. Empty for another policy, whose optimum differs from
            theirs.
        hindsight: Whether to compute the optimum in hindsight and the worth of the warm pool if `rivals` do not tell them
            for this run.
        progress: Called with the share of that computation that is done.
        enough: Asked from time to time whether to end it.
    """
    cost = {entry.key: np.array([entry.values["cost"]]) for entry in rivals}
    beside = Comparators(cost.get("static_peak"), cost.get("clairvoyant"))
    if hindsight and (not rivals or ran.from_rows):
        # The rivals' least cost is for the service level of a run by lanes.
        beside = _hindsight_figures(replay, ran, progress, enough)
    values = score(ran.sums, LanePrices.of([replay.policy]), beside).of_lane(0)
    if ran.from_rows:
        values |= dict.fromkeys(_UNTOLD, math.nan)
    own = next((entry for entry in rivals if entry.key == "policy"), None)
    if own is not None and ran.engine == "lanes" and ran.whole:
        values |= {figure: own.values[figure] for figure in _BESIDE}
    return Entry(key, name, replay.in_words, values | _forecast_figures(replay, ran), judged=True)


def _forecast_figures(replay: Replay, ran: ReplayResult) -> dict[str, float]:
    """Compute the figures of the forecasts for the scored ticks. Empty if there are no scored ticks."""
    if not ran.scored:
        return {}
    columns = columns_of(ran.scored, replay.tick_s)
    policy = as_probed(replay.fitted)
    series = compile_params([policy], replay.tick_s, replay.begin_s).series
    # A tick sees the interval that ends there. If the trace is a gauge, it sees the interval that begins there.
    behind = int(pipeline_of(policy, replay.plant).lag_s // replay.tick_s) + (
        replay.trace.kind is TraceKind.COUNT
    )
    ahead = max(int(series.lead_ticks[0]) - behind, 0)
    return forecast_values(columns["demand"], columns["forecast"], columns["forecast_hi"], ahead)


def _hindsight_figures(
    replay: Replay, ran: ReplayResult, progress: Progress | None, enough: Callable[[], bool] | None
) -> Comparators:
    """Compute the figures in hindsight. Empty where `rivals_of` would be empty.

    A run by the loop engine gets no figures of the pool, because it does not match a run by lanes to the second.
    """
    if not ran.whole or not ran.scored or refusals(replay.fitted, replay.plant, replay.tick_s):
        return Comparators()
    first = ran.scored[0]
    own = OwnRun(ran.sums, (first.in_service or 0) + (first.starting or 0))
    found = _compared(replay).hindsight(own)
    if ran.from_rows:
        return found
    return replace(found, without_pool=others_of(replay, progress, enough, ()))


_BESIDE = ("regret", "captured", "pool_cost", "shortage_avoided_s", "cost_per_avoided_s")
"""Figures that depend on other runs than the policy's own."""


def card_of(judged: Sequence[Entry], rivals: Sequence[Entry]) -> Card:
    """Build the score card of policies and their rivals. A fleet that is always on at the peak comes first among the rivals."""
    others = [entry for entry in rivals if not entry.judged]
    others.sort(key=lambda entry: entry.key != "static_peak")
    foretold = any(figure.key in entry.values for entry in judged for figure in FORECAST_FIGURES)
    figures = (*FIGURES, *FORECAST_FIGURES) if foretold else FIGURES
    unknown = {figure.key: math.nan for figure in figures}
    return Card(
        figures, tuple(replace(each, values=unknown | dict(each.values)) for each in (*judged, *others))
    )


def _rival_notes(replay: Replay) -> list[str]:
    if refusals(replay.fitted, replay.plant, replay.tick_s):
        return [_ALONE]
    return [_AIM, _NO_FAULTS] if replay.faults else [_AIM]


def details_of(replay: Replay, ran: ReplayResult, said: str = "") -> dict[str, Any]:
    """Return facts for `report.json` that are not figures. `said` is the note on the choice of engine."""
    return {
        "fleet": replay.policy.fleet,
        "policy_file": str(replay.policy_file),
        "policy_in_words": replay.in_words,
        "promised_served": replay.policy.objective.served if replay.policy.objective else None,
        "trace": replay.trace.name,
        "begin": describe_time(replay.begin_s),
        "end": describe_time(replay.begin_s + len(ran.rows) * replay.tick_s),
        "asked_s": replay.ticks * replay.tick_s,
        "span_s": len(ran.rows) * replay.tick_s,
        "not_scored_s": replay.warm_up_ticks * replay.tick_s,
        "partial": not ran.whole,
        "tick_s": replay.tick_s,
        "vms": replay.plant.vms,
        "vm_capacity_per_s": replay.policy.vm.capacity_per_s,
        "engine": ran.engine,
        "decisions": ran.decisions,
        "notes": [*replay.notes, *_rival_notes(replay), *([said] if said else [])],
        "cautions": list(replay.cautions),
    }


def same_span(runs: Mapping[str, tuple[Replay, ReplayResult]]) -> dict[str, tuple[Replay, ReplayResult]]:
    """Cut all runs to the ticks that all of them have, in case one was interrupted."""
    shortest = min(len(ran.rows) for _, ran in runs.values())
    if all(len(ran.rows) == shortest for _, ran in runs.values()):
        return dict(runs)
    return {name: (one, _cut(one, ran, shortest)) for name, (one, ran) in runs.items()}


def _cut(replay: Replay, ran: ReplayResult, ticks: int) -> ReplayResult:
    rows = ran.rows[:ticks]
    scored = rows[replay.warm_up_ticks :]
    sums = _sums_of(scored, replay)
    return ReplayResult(rows, scored, sums, _digest(rows), whole=False, engine=ran.engine, from_rows=True)
