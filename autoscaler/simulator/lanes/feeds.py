"""Which forecast feed a run of lanes needs (`outlooks`), and whether the run can be cut into segments."""

from __future__ import annotations

import numpy as np

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.metrics import LaneMetrics, depends_on_vms, pipeline_of
from autoscaler.simulator.lanes.outlooks import (
    MOST_KEPT_BYTES,
    MOST_PAGED,
    Ahead,
    Blind,
    Feed,
    Lockstep,
    OutlookCache,
    Streamed,
    Table,
    distinct_series,
    kept_bytes,
    taken,
)
from autoscaler.simulator.lanes.run import LaneRun


def why_not_cut(run: LaneRun) -> str:
    """Return why a run cannot be cut into segments, in words; empty if it can."""
    if run.blind:
        return ""
    if any(policy.objective for policy in run.policies):
        return "the models of a fleet with an objective are compared by their costs over days"
    if not run.forecasts and not any(policy.forecast for policy in run.policies):
        return ""
    if any(depends_on_vms(policy, plant) for policy, plant in zip(run.policies, run.plants, strict=True)):
        return (
            "measurements depend on the VMs in service (saturated VMs hide demand, and a fleet without VMs "
            "measures none), so its forecasts are made in step with the plant"
        )
    compiled = compile_params(run.policies, run.ticks.tick_s, run.ticks.start_s, run.reach * run.ticks.tick_s)
    pipelines = map(pipeline_of, run.policies, run.plants)
    keys = [(trace.digest, pipeline) for trace, pipeline in zip(run.traces, pipelines, strict=True)]
    series = len(distinct_series(keys, compiled.series))
    if kept_bytes(series, run.ticks.count, laws=bool(compiled.series.laws.any())) > MOST_KEPT_BYTES:
        return f"it has {series} different forecasts, too many to keep for {run.ticks.count:,} ticks"
    return ""


def feed_of(
    run: LaneRun, compiled: CompiledPolicies, metrics: LaneMetrics, cache: OutlookCache, *, forecasts: bool
) -> Feed:
    """Return the cheapest feed that gives every lane the Outlook that the daemon would have."""
    wanted = forecasts or compiled.lanes.cover.any() or compiled.series.laws.any()
    if run.blind or not wanted:
        return Blind(len(run.policies))
    if metrics.watches:
        if run.shifts:
            raise ValueError(f"a run cannot be cut into segments: {why_not_cut(run)}")
        return Lockstep(compiled.series)
    reach = Ticks(run.ticks.first, min(run.reach, run.until or run.reach), run.ticks.tick_s)
    groups = distinct_series(metrics.keys, compiled.series)
    laws = bool(compiled.series.laws.any())
    if not run.shifts and kept_bytes(len(groups), reach.count, laws=laws) > MOST_KEPT_BYTES:
        first = [lanes[0] for lanes in groups.values()]
        series = np.empty(len(run.policies), np.int64)
        for at, lanes in enumerate(groups.values()):
            series[lanes] = at
        kind = Ahead if len(first) <= MOST_PAGED else Streamed
        seen = [metrics.seen(metrics.keys[lane], reach) for lane in first]
        return kind(seen, taken(compiled.series, first), series, reach)
    outlooks, series = cache.table(metrics.keys, metrics.seen, compiled.series, reach)
    return Table(outlooks, series, np.array(run.shifts) if run.shifts else None, run.ticks.first)
