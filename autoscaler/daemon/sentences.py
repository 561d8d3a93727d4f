"""Decisions in words: the one sentence per fleet and tick that log, journal, table and `explain` show.

Every sentence begins with what is done, then gives the reasons of the stages that shaped the number, in the
order in which they did. A reason without words here fails a test.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.core.types import Freshness, Reason, Stage
from autoscaler.ports import FleetTick


def sentence(tick: FleetTick) -> str:
    """What this tick does for the fleet and why, without the fleet's name."""
    return f"{_action(tick)}: {'; '.join(phrases(tick)) or _steady(tick)}"


def phrases(tick: FleetTick) -> Iterator[str]:
    """One phrase per stage that shaped the number; overruled proposals are left out."""
    shaped = [
        (stage, Reason(tick.reasons[stage]), tick.stages[stage])
        for stage in Stage
        if tick.reasons[stage] != Reason.NONE
    ]
    for stage, reason, value in shaped:
        overruled = stage <= Stage.COVER and any(s <= Stage.COVER and s > stage for s, _, _ in shaped)
        if not overruled:
            yield phrase(reason, value, tick)


def phrase(reason: Reason, value: int, tick: FleetTick) -> str:
    """One reason in words, with the numbers that it rests on."""
    words = {
        Reason.DEMAND: f"demand {_work(tick.demand)} with headroom needs {_vms(value)}",
        Reason.TOLERANCE: f"demand {_work(tick.demand)} is within tolerance of {_vms(value)}",
        Reason.CENSORED: f"VMs are saturated at {_work(tick.demand)}, so more is hidden: plan for {_vms(value)}",
        Reason.STEP_RULE: f"a step rule on utilisation asks for {_vms(value)}",
        Reason.SCHEDULE: f"the schedule asks for at least {_vms(value)}",
        Reason.FORECAST_COVER: (
            f"by the time a start serves, demand may reach {_work(tick.forecast_hi)}, which needs {_vms(value)}"
        ),
        Reason.FORECAST_KEEP: (
            f"{_vms(value)} stay, since demand may rise before a stopped VM could be had back"
        ),
        Reason.STABILISATION: f"{_vms(value)} stay, since lately as many were needed",
        Reason.DATA_ABSENT: f"no metrics arrive, so {_vms(value)} stay",
        Reason.DATA_STALE: f"metrics are too old, so {_vms(value)} stay",
        Reason.DATA_INVALID: f"metrics are not possible values, so {_vms(value)} stay",
        Reason.LOW_COVERAGE: f"only {tick.coverage:.0%} of VMs report, so {_vms(value)} stay",
        Reason.LISTING_INCOMPLETE: f"the list of VMs is incomplete, so {_vms(value)} stay",
        Reason.COOLDOWN_OUT: f"cooldown after the last scale-out holds {value}",
        Reason.COOLDOWN_IN: f"cooldown before scale-in holds {value}",
        Reason.OVERRIDE_FLOOR: f"an operator's floor is {value}",
        Reason.OVERRIDE_CEILING: f"an operator's ceiling is {value}",
        Reason.MINIMUM: f"the policy's minimum is {value}",
        Reason.MAXIMUM: f"the policy's maximum is {value}",
        Reason.RATE_LIMIT_OUT: f"the rate limit allows {value} for now",
        Reason.RATE_LIMIT_IN: f"the rate limit keeps {value} for now",
        Reason.MINIMUM_ON_TIME: f"{_vms(value)} stay: on for less than the minimum, or protected",
        Reason.PAUSED_STOP: f"an operator has paused stops, so {_vms(value)} stay",
        Reason.PAUSED_START: f"an operator has paused starts, which leaves {value}",
        Reason.PAUSED_PROVISION: f"an operator has paused provisioning, and the warm pool leaves {value}",
        Reason.WARM_POOL_EMPTY: f"the warm pool is short: only {value} of {tick.desired} can be had",
        Reason.PROVISION: f"the warm pool is empty: {tick.provision} are provisioned from nothing",
    }
    return words[reason]


def _action(tick: FleetTick) -> str:
    ordered = tick.in_service + tick.starting
    if tick.start or tick.provision:
        new = tick.start + tick.provision
        return f"starting {new} ({ordered} to {ordered + new})"
    if tick.stop:
        return f"stopping {tick.stop} ({ordered} to {ordered - tick.stop})"
    return f"holding {ordered}"


def _steady(tick: FleetTick) -> str:
    if tick.freshness == Freshness.FRESH:
        return f"demand {_work(tick.demand)} is served"
    return "no fresh metrics, and nothing to hold"


def _work(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 else f"{value:,.2g}/s"


def _vms(count: int) -> str:
    return "1 VM" if count == 1 else f"{count} VMs"
