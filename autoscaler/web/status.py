"""The daemon's state as JSON: what /api/v1/status, `status` and the pages show."""

from __future__ import annotations

import math
from typing import Any

from autoscaler.core.types import NO_CEILING, Freshness, Reason, Stage
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.inventory import Phase
from autoscaler.daemon.loop import Daemon
from autoscaler.ports import FleetTick, Verb
from autoscaler.web.operations import operations


def unhealthy(daemon: Daemon) -> list[str]:
    """For a person, one sentence per fleet that is not being decided on; empty when all is well."""
    return daemon.unhealthy()


def status(daemon: Daemon) -> dict[str, Any]:
    """Everything about now; unknown numbers are null, never zero."""
    record = daemon.last_record
    rows = {row.fleet: row for row in record.fleets} if record else {}
    problems = unhealthy(daemon)
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
        },
        "ticks_skipped": daemon.ticks_skipped,
        "operations": operations(daemon),
        "fleets": [_fleet(daemon, fleet, rows.get(fleet.name)) for fleet in daemon.fleets.all],
    }


def _fleet(daemon: Daemon, fleet: Fleet, row: FleetTick | None) -> dict[str, Any]:
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
        "evaluated_at_s": fleet.evaluated_at_s,
        "vms": phases,
        "quarantined": quarantined,
        "unsettled_actions": sorted(fleet.inventory.unsettled_actions()),
        "dry": [list(pair) for pair in fleet.inventory.dry(now_s)],
        "cost_total": fleet.meter.total.money,
        "start_time": _start_time(fleet),
        "source_error": fleet.source_error,
        "listing_error": fleet.listing_error,
        "decision": row_json(row) if row else None,
    }
    return shown


def _start_time(fleet: Fleet) -> dict[str, float | int | None]:
    """Measured seconds from the order to start a VM until it serves."""
    times = sorted(fleet.start_times_s)
    if not times:
        return {"count": 0, "p50_s": None, "p95_s": None}
    return {
        "count": len(times),
        "p50_s": times[(len(times) - 1) // 2],
        "p95_s": times[math.ceil(0.95 * len(times)) - 1],
    }


def row_json(row: FleetTick) -> dict[str, Any]:
    """One fleet's tick with names instead of codes."""
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
        "sentence": row.sentence,
        "source_error": row.source_error,
    }


def _paused(row: FleetTick) -> list[Verb]:
    """What operators had paused."""
    may = {Verb.START: row.may_start, Verb.STOP: row.may_stop, Verb.PROVISION: row.may_provision}
    return [verb for verb, allowed in may.items() if not allowed]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
