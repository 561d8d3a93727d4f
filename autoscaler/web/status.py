"""The daemon's state as JSON, for /api/v1/status, `status` and the pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from autoscaler.core.learned.lead_time import Span, StartSource
from autoscaler.core.types import NO_CEILING, Float, Freshness, Reason, Stage
from autoscaler.daemon.decision_sentences import waiting
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.learned.benefit import pool_benefit
from autoscaler.daemon.learned.condition import FleetCondition
from autoscaler.daemon.learned.learning import capacity_params
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.ports import FleetTick, Verb, name_of
from autoscaler.web.operations import operations


def status(daemon: Daemon) -> dict[str, Any]:
    """Return the daemon's current state; unknown numbers are null, never zero."""
    record = daemon.last_record
    rows = {row.fleet: row for row in record.fleets} if record else {}
    problems = daemon.unhealthy()
    learned = _learned(daemon)
    return {
        "at_s": daemon.clock.now(),
        "tick": record.tick if record else None,
        "tick_s": daemon.settings.tick_s,
        "healthy": not problems,
        "problems": problems,
        "policies": {
            "loaded_at_s": daemon.policies.loaded_at_s,
            "digest": daemon.policies.digest or None,
            "error": daemon.policies.error,
            "partial": daemon.policies.partial,
        },
        "journal": {"error": daemon.recorder.trouble},
        "ticks_skipped": daemon.ticks_skipped,
        "operations": operations(daemon),
        "providers": [
            {
                "provider": each.name,
                "listed_at_s": each.whole_at_s,
                "error": each.error,
                "sentence": each.sentence,
            }
            for each in daemon.unlisted.places(daemon.clock.now(), daemon.settings.tick_s)
        ],
        "fleets": [
            _fleet(daemon, fleet, rows.get(fleet.name), known)
            for fleet, known in zip(daemon.fleets.all, learned, strict=True)
        ],
    }


def _fleet(daemon: Daemon, fleet: Fleet, row: FleetTick | None, learned: dict[str, Any]) -> dict[str, Any]:
    now_s = daemon.clock.now()
    phases = dict.fromkeys((str(phase) for phase in Phase), 0)
    for tracked in fleet.inventory.vms.values():
        phases[str(tracked.phase)] += 1
    quarantined = {
        t.vm.id: t.quarantine_reason for t in fleet.inventory.vms.values() if t.quarantined_until_s > now_s
    }
    shown: dict[str, Any] = {
        "fleet": fleet.name,
        "act": fleet.policy.act,
        "provider": name_of(fleet.provider),
        "evaluated_at_s": fleet.evaluated_at_s,
        "vms": phases,
        "quarantined": quarantined,
        "unsettled_actions": sorted(fleet.inventory.unsettled_actions()),
        "shortage": None
        if (short := daemon.acting.shortages.of(fleet.name)) is None
        else {"missing": short.missing, "since_s": short.since_s, "why": short.why},
        "dry": [list(pair) for pair in fleet.inventory.dry(now_s)],
        "cost_total": fleet.meter.total.money,
        "start_time": _start_time(fleet),
        "missed_warm_starts_day": fleet.missed.in_day(now_s),
        "learned": learned,
        "condition": _condition(daemon.conditions.of(fleet.name)),
        "source_error": fleet.source_error,
        "listing_error": fleet.listing_error or fleet.inventory.vanished_words,
        "balancer_error": fleet.balancer_error,
        "leased_to": fleet.leased_to,
        "decision": row_json(row) if row else None,
    }
    return shown


def _condition(found: FleetCondition) -> dict[str, Any]:
    """Return the condition of the fleet's VMs."""
    return {
        "condition": found.condition.name.lower(),
        "judged": found.judged,
        "slow": list(found.slow),
        "replacing": list(found.replacing),
        "sentence": found.sentence(),
    }


def _start_time(fleet: Fleet) -> dict[str, float | int | None]:
    """Return measured start times: seconds from the order to start a VM until it serves."""
    times = sorted(fleet.start_times_s)
    if not times:
        return {"count": 0, "p50_s": None, "p95_s": None}
    return {
        "count": len(times),
        "p50_s": times[(len(times) - 1) // 2],
        "p95_s": times[math.ceil(0.95 * len(times)) - 1],
    }


def _learned(daemon: Daemon) -> list[dict[str, Any]]:
    """Return, by lane, what was learned over all runs about starts and capacity, and what the warm pool saves according to that.

    Computed for all fleets at once, because no decision is made meanwhile.
    """
    fleets, learning, now_s = daemon.fleets.all, daemon.fleets.learning, daemon.clock.now()
    times, capacities = learning.lead_times, learning.capacities
    starts = [
        _by_lane(
            {
                "evidence": times.evidence(Span.WHOLE, source),
                **{
                    f"{span.name.lower()}_p50_s": _numbers(times.quantile(0.5, span, source)) for span in Span
                },
                "whole_p90_s": _numbers(times.quantile(0.9, Span.WHOLE, source)),
            }
        )
        for source in StartSource
    ]
    capacity = _by_lane(
        {
            "planned_per_s": [fleet.capacity_per_s for fleet in fleets],
            "learned_per_s": _numbers(capacities.learned(capacity_params([each.policy for each in fleets]))),
            "evidence": capacities.evidence(),
            "spread": _numbers(capacities.spread()),
            "saturated_share": capacities.hidden_share(),
        }
    )
    found = []
    for lane, fleet in enumerate(fleets):
        stopped = fleet.inventory.counts(now_s, fleet.minimum_on_time_s).stopped
        per_h = learning.pool_starts_per_h(fleet.name, daemon.began_at_s, now_s)
        own = times.carried_over(np.array([lane]))
        benefit = pool_benefit(own, 0, fleet.meter.prices, stopped, per_h)
        found.append(
            {
                "capacity": capacity[lane],
                "planned_start_s": daemon.fleets.planned[lane].vm.start_time_s,
                "starts": {
                    source.name.lower(): of[lane] for source, of in zip(StartSource, starts, strict=True)
                },
                "warm_pool": {**asdict(benefit), "sentence": benefit.sentence()},
            }
        )
    return found


def _by_lane(columns: Mapping[str, Iterable[float | None]]) -> list[dict[str, float | None]]:
    """Turn columns over lanes into one row per lane."""
    plain = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def _numbers(values: Float) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def row_json(row: FleetTick) -> dict[str, Any]:
    """Return one fleet's row of a tick, with names instead of codes."""
    return {
        "demand": _number(row.demand),
        "observed_at_s": _number(row.observed_at_s),
        "freshness": Freshness(row.freshness).name.lower(),
        "coverage": row.coverage,
        "censored": row.censored,
        "forecast": _number(row.forecast),
        "forecast_hi": _number(row.forecast_hi),
        "wish": row.wish,
        "desired": row.desired,
        "in_service": row.in_service,
        "starting": row.starting,
        "draining": row.draining,
        "stopping": row.stopping,
        "stopped": row.stopped,
        "provisioned": row.provisioned,
        "stoppable": row.stoppable,
        "warm_target": row.warm_target,
        "capacity": row.capacity,
        "shortage": _number(row.shortage),
        "start": row.start,
        "stop": row.stop,
        "provision": row.provision,
        "paused": [str(verb) for verb in _paused(row)],
        "floor": row.floor or None,
        "ceiling": None if row.ceiling == NO_CEILING else row.ceiling,
        "cost": row.cost,
        "stages": [
            {
                "stage": stage.name.lower(),
                "vms": row.stages[stage],
                "reason": Reason(row.reasons[stage]).name.lower(),
            }
            for stage in Stage
            if stage < len(row.stages)
        ],
        "earnings": None if row.earnings is None else asdict(row.earnings),
        "burst": None if row.burst is None else asdict(row.burst),
        "shared": None if row.shared is None else asdict(row.shared),
        "memories": None
        if row.memories is None
        else asdict(row.memories) | {"sentence": waiting(row.memories)},
        "sentence": row.sentence,
        "source_error": row.source_error,
    }


def _paused(row: FleetTick) -> list[Verb]:
    """Return the verbs that operators had paused."""
    may = {Verb.START: row.may_start, Verb.STOP: row.may_stop, Verb.PROVISION: row.may_provision}
    return [verb for verb, allowed in may.items() if not allowed]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
