"""The demo's summary: the run's cost and service compared with simpler policies on the same demand and prices.

The total cost exists because one policy leaves less work unserved while another costs less; a price of shortage makes the two
comparable. A policy without such a price is compared by both numbers.

Not here: the run (`demo_run`) and the printing (`demo_screen`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from autoscaler.cli.demo_run import WARM_UP_S, Finished
from autoscaler.config.policy import Policy
from autoscaler.ports import Learned
from autoscaler.simulator.judging.baselines import always_on, describe, plain_reactive
from autoscaler.simulator.judging.recovery import recoveries
from autoscaler.simulator.replay.identity import identity_of
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.replay.timeline import (
    REPORT_NAME,
    TIMELINE_NAME,
    TimelineRow,
    Totals,
    report_of,
    totals,
    write_document,
    write_timeline,
)
from autoscaler.traces.trace import describe_time

OURS, VIRTUAL = "this policy", "same, on virtual time"
REACTIVE, ALWAYS_ON = "plain reactive", "always on at peak"
"""Names of the compared policies in the report."""


def summarise(finished: Finished, progress: Callable[[str], None]) -> dict[str, Any]:
    """Compare the run with the baselines, and write the files if an output folder was named.

    Returns:
        The report as in report.json, but with NaN where the file has null.

    Raises:
        ConfigError: The output cannot be written.
    """
    prepared, options = finished.prepared, finished.prepared.options
    scored = _scored(finished.rows)
    run_totals = totals(scored, options.tick_s)
    baselines: dict[str, Totals] = {}
    if scored:
        progress("replaying the baselines on the same traffic …")
        baselines[ALWAYS_ON] = totals(always_on(scored, prepared.policy, options.tick_s), options.tick_s)
        for name, policy, learned in (
            (REACTIVE, plain_reactive(prepared.policy), ()),
            (VIRTUAL, prepared.policy, prepared.learned),
        ):
            baselines[name] = totals(_scored(_replayed(finished, policy, learned)), options.tick_s)
    identity = identity_of(prepared.policy, prepared.trace, asdict(prepared.cloud), options.seed)
    details = _details(finished, scored) | {
        "total_cost": {
            name: _total(each, prepared.policy) for name, each in {OURS: run_totals, **baselines}.items()
        }
    }
    document = report_of(identity, run_totals, baselines, details)
    if options.out is not None:
        write_timeline(options.out / TIMELINE_NAME, finished.rows)
        write_document(options.out / REPORT_NAME, document)
    return document


def _replayed(finished: Finished, policy: Policy, learned: tuple[Learned, ...]) -> tuple[TimelineRow, ...]:
    """Return the same span under a policy on virtual time: same traffic and cloud, without the delays of this machine."""
    prepared, options = finished.prepared, finished.prepared.options
    return run_loop(
        LoopRun(
            policy,
            prepared.trace,
            prepared.cloud,
            prepared.begin_s,
            finished.ended_at_s - finished.started_at_s,
            options.tick_s,
            options.seed,
            learned=learned,
        )
    ).rows


def _total(of: Totals, policy: Policy) -> float | None:
    """Return the cost of VMs plus that of unserved work at the policy's price of shortage; None if the policy has no such price."""
    if policy.objective is None or policy.objective.shortage_price_per_h is None:
        return None
    vm_hours = of.unserved_work / policy.vm.capacity_per_s / 3600.0
    return of.cost + policy.objective.shortage_price_per_h * vm_hours


def _scored(rows: tuple[TimelineRow, ...]) -> tuple[TimelineRow, ...]:
    return tuple(row for row in rows if row.timestamp_s >= rows[0].timestamp_s + WARM_UP_S)


def _details(finished: Finished, scored: tuple[TimelineRow, ...]) -> dict[str, Any]:
    """Return facts that accompany the totals: the cloud's own bill, calls, recoveries."""
    prepared, options = finished.prepared, finished.prepared.options
    times = sorted(finished.start_times_s)
    start_p95_s = times[math.ceil(0.95 * len(times)) - 1] if times else math.nan
    limit_s = finished.signal_age_s + start_p95_s + 2.0 * options.tick_s
    found = recoveries(scored, prepared.policy.vm.capacity_per_s, options.tick_s)
    return {
        "policy_file": str(prepared.policy_file),
        "policy_in_words": describe(prepared.policy),
        "reactive_in_words": describe(plain_reactive(prepared.policy)),
        "remembers": bool(prepared.learned),
        "trace": prepared.trace.name,
        "begin": describe_time(prepared.begin_s),
        "clock_ahead_of_trace_s": finished.started_at_s - prepared.begin_s,
        "span_s": finished.ended_at_s - finished.started_at_s,
        "not_scored_s": WARM_UP_S,
        "speed": finished.speed,
        "tick_s": options.tick_s,
        "ticks_skipped": finished.ticks_skipped,
        "machine_ms_per_tick": 1e3 * finished.tick_cost_s,
        "starts_measured": len(times),
        "start_p95_s": start_p95_s,
        "signal_age_max_s": finished.signal_age_s,
        "recovery_limit_s": limit_s,
        "recoveries": [
            {
                "start": describe_time(r.episode.start_s),
                "end": describe_time(r.episode.end_s),
                "unserved_work": r.episode.unserved_work,
                "last_rise": describe_time(r.last_rise_s),
                "took_s": r.took_s,
                "within_limit": None if math.isnan(limit_s) else r.took_s <= limit_s,
            }
            for r in found
        ],
        "bill_of_the_cloud": finished.billed,
        "bill_of_the_journal": finished.journal_cost,
        "calls": finished.calls["accepted"],
        "calls_refused": finished.calls["refused"],
        "vms_by_call": finished.calls["vms"],
    }
