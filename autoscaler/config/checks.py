"""Checks that involve two fields of a policy, with advice for each finding.

They are separate from the models because a finding must point at the line that the user wrote, which may be that of either
field, and because some findings only warn. An error is a policy that would do harm or nothing. A warning is a policy that
works, but probably not as intended.

Rules of this file: pure; one small function per subject; every finding has advice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from autoscaler.config.checks_pool import check_pool
from autoscaler.config.checks_signal import check_signal
from autoscaler.config.compiling import quantile_index
from autoscaler.config.compiling_objective import BILLING_FLOOR_S
from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.finding import Finding, check_time_zone
from autoscaler.config.finding import seconds_text as _s
from autoscaler.config.policy import Policy
from autoscaler.config.quantities import PERCENT, PRICE
from autoscaler.config.section import DAY_S
from autoscaler.config.wishes import StepRule
from autoscaler.core.types import QUANTILE_LEVELS
from autoscaler.ports.sources import ADDRESS


def check_policy(policy: Policy, tick_s: float, now_s: float | None = None) -> tuple[Finding, ...]:
    """Return all findings of one policy, in the order of its sections.

    Args:
        policy: The policy to check.
        tick_s: Length of a tick, seconds.
        now_s: Epoch seconds, to find events that are over; None if the policy may be run on the past.
    """
    return (
        *check_signal(policy, tick_s),
        *_check_kind(policy),
        *_check_learning(policy),
        *_check_readiness(policy),
        *_check_bounds(policy),
        *_check_proposals(policy),
        *_check_objective(policy),
        *_check_prices(policy),
        *_check_forecast(policy),
        *_check_steps(policy),
        *_check_schedule(policy),
        *_check_events(policy, now_s),
        *_check_guards(policy, tick_s),
        *_check_supply(policy),
        *check_pool(policy, tick_s),
    )


def _check_readiness(policy: Policy) -> Iterator[Finding]:
    ready = policy.readiness
    if ready.probe == "http" and (ready.url is None or ADDRESS not in ready.url):
        yield Finding(
            (("readiness", "url"), ("readiness", "probe")),
            "the http probe needs a `readiness.url` with {address}",
            "write for example http://{address}/health",
        )
    if ready.probe == "running" and ready.after_s >= policy.vm.start_time_s:
        yield Finding(
            (("readiness", "after"), ("vm", "start_time")),
            f"a VM counts as in service {_s(ready.after_s)} after it runs, but `vm.start_time`, which includes that, is {_s(policy.vm.start_time_s)}",
            "raise `vm.start_time` to the whole time from start request to in service",
            Severity.WARNING,
        )


def _check_bounds(policy: Policy) -> Iterator[Finding]:
    bounds = policy.bounds
    at: tuple[YamlPath, ...] = (("bounds", "minimum"), ("bounds", "maximum"))
    if bounds.minimum > bounds.maximum:
        yield Finding(
            at,
            f"`bounds.minimum` ({bounds.minimum}) is above `bounds.maximum` ({bounds.maximum})",
            "lower the one or raise the other",
        )
    if bounds.minimum or not policy.uses_signal or policy.signal.of_the_fleet:
        return
    only = f"its signal ({policy.signal.kind} per VM) comes from its own VMs only: with none there is nothing to wake it"
    if policy.schedule:
        yield Finding(
            at,
            f"the fleet may scale in to zero, and {only} but the schedule",
            "make sure that is meant",
            Severity.WARNING,
        )
    else:
        yield Finding(
            at,
            f"the fleet may scale in to zero, and {only}",
            "write `minimum: 1`, use a signal of kind total, or add a schedule",
        )


def _check_proposals(policy: Policy) -> Iterator[Finding]:
    if not (policy.uses_signal or policy.schedule):
        yield Finding(
            (("fleet",),),
            "nothing in this policy asks for VMs",
            "switch on at least one of reactive, forecast, steps and schedule (`reactive: {}` takes the defaults)",
        )


def _check_objective(policy: Policy) -> Iterator[Finding]:
    objective = policy.objective
    if objective is None:
        return
    at: tuple[YamlPath, ...] = (("objective",),)
    if (objective.served is None) == (objective.shortage_price_per_h is None):
        both = objective.served is not None
        yield Finding(
            at,
            "`objective` says both what must be served and what shortage costs"
            if both
            else "`objective` is empty",
            "write either `served: 99.9%` or `shortage_price: 9.6/h`",
        )
    if objective.shortage_price_per_h is None:
        return
    price_per_h = policy.prices.in_service_per_h
    paths: tuple[YamlPath, ...] = (("objective", "shortage_price"), ("prices", "in_service"))
    if price_per_h <= 0:
        yield Finding(
            paths,
            "`objective.shortage_price` can only be weighed against `prices.in_service`, which is 0",
            "write what a VM-hour costs, or an objective of the kind `served: 99.9%`",
        )
    elif objective.shortage_price_per_h <= price_per_h:
        yield Finding(
            paths,
            f"an hour of unserved work of one VM ({PRICE.write(objective.shortage_price_per_h)}) is worth no more than that "
            f"VM costs ({PRICE.write(price_per_h)}): nothing would ever be started",
            "write the loss if that work is not done, usually some hundred times the price of a VM",
        )


def _check_prices(policy: Policy) -> Iterator[Finding]:
    served, stopped = policy.prices.in_service_per_h, policy.prices.stopped_per_h
    if served > 0.0 and stopped >= served:
        yield Finding(
            (("prices", "stopped"), ("prices", "in_service")),
            f"a VM costs no less stopped ({PRICE.write(stopped)}) than in service ({PRICE.write(served)}), so that none is "
            "worth keeping stopped",
            "write what its disks cost per hour; a price per month divides by 730",
            Severity.WARNING,
        )


def _check_forecast(policy: Policy) -> Iterator[Finding]:
    forecast = policy.forecast
    if forecast is None:
        return
    if quantile_index(forecast.cover) < 0:
        yield Finding(
            (("forecast", "cover"),),
            f"`forecast.cover` of {PERCENT.write(forecast.cover)} is not one of the available quantiles",
            f"write {' or '.join(str(PERCENT.write(level)) for level in QUANTILE_LEVELS)}",
        )
    at: tuple[YamlPath, ...] = (("forecast", "half_life"), ("vm", "start_time"))
    if forecast.half_life_s < 10 * policy.vm.start_time_s:
        yield Finding(
            at,
            f"`forecast.half_life` of {_s(forecast.half_life_s)} forgets errors within few start times ({_s(policy.vm.start_time_s)}): the spread would be noise",
            f"write at least {_s(10 * policy.vm.start_time_s)}; hours are usual",
        )
    if forecast.half_life_s > 60 * DAY_S:
        yield Finding(
            at,
            f"`forecast.half_life` of {_s(forecast.half_life_s)} hardly ever forgets, so a change of traffic is not learned",
            "hours to days are usual",
            Severity.WARNING,
        )


# ── Step rules ──────────────────────────────────────────────────────────────────────────────────────────


def _edges(rule: StepRule) -> tuple[float, float]:
    return rule.above or 0.0, np.inf if rule.below is None else rule.below


def _edges_text(rule: StepRule) -> str:
    low = "" if rule.above is None else f"above {PERCENT.write(rule.above)}"
    high = "" if rule.below is None else f"below {PERCENT.write(rule.below)}"
    return " and ".join(part for part in (low, high) if part) or "always"


def _check_steps(policy: Policy) -> Iterator[Finding]:
    for at, rule in enumerate(policy.steps):
        low, high = _edges(rule)
        if rule.above is None and rule.below is None:
            yield Finding(
                (("steps", at),), f"step {at + 1} matches always", "give it `above` or `below`, or both"
            )
        elif low >= high:
            yield Finding(
                (("steps", at),),
                f"step {at + 1} ({_edges_text(rule)}) never matches",
                "`above` must be less than `below`",
            )
        for before, other in enumerate(policy.steps[:at]):
            if max(low, _edges(other)[0]) < min(high, _edges(other)[1]):
                yield Finding(
                    (("steps", at),),
                    f"step {at + 1} ({_edges_text(rule)}) overlaps step {before + 1} ({_edges_text(other)})",
                    "let one begin where the other ends",
                )
        yield from _check_hunting(policy, at)


def _check_hunting(policy: Policy, at: int) -> Iterator[Finding]:
    """Yield a finding if the demand that triggers this scale-out step afterwards triggers a scale-in step, which undoes it."""
    rule = policy.steps[at]
    if rule.change.vms <= 0 and rule.change.share <= 0:
        return
    low, high = _edges(rule)
    before = np.arange(max(1, policy.bounds.minimum), max(2, policy.bounds.maximum), dtype=np.float64)
    after = np.minimum(before + rule.change.vms + np.ceil(rule.change.share * before), policy.bounds.maximum)
    for other_at, other in enumerate(policy.steps):
        if other.change.vms >= 0 and other.change.share >= 0:
            continue
        other_low, other_high = _edges(other)
        hunted = (
            np.maximum(low * before, other_low * after) < np.minimum(high * before, other_high * after)
        ) & (after > before)
        if hunted.any():
            first = int(np.argmax(hunted))
            yield Finding(
                (("steps", at), ("steps", other_at)),
                f"steps {at + 1} and {other_at + 1} can undo each other forever: with {before[first]:g} VMs at "
                f"{PERCENT.write(max(low, other_low * after[first] / before[first]))} the first orders {after[first]:g}, "
                f"whose utilisation lies {_edges_text(other)}",
                "widen the gap between the two, or make the steps smaller",
                Severity.WARNING,
            )
            return


# ── Schedule ────────────────────────────────────────────────────────────────────────────────────────────


def _check_schedule(policy: Policy) -> Iterator[Finding]:
    for at, window in enumerate(policy.schedule):
        yield from check_time_zone(window.time_zone, ("schedule", at))
        if window.from_ is None or window.from_ == window.to:
            yield Finding(
                (("schedule", at, "from"),),
                f"window `{window.name}` begins where it ends, or at 24:00",
                'for whole days write from: "00:00" and to: "24:00"',
            )
        if window.at_least > policy.bounds.maximum:
            yield Finding(
                (("schedule", at, "at_least"), ("bounds", "maximum")),
                f"window `{window.name}` asks for {window.at_least} VMs, but `bounds.maximum` is {policy.bounds.maximum}",
                "raise `bounds.maximum` or lower `at_least`",
            )


def _check_events(policy: Policy, now_s: float | None) -> Iterator[Finding]:
    for at, event in enumerate(policy.events):
        if (event.begins is None) == (event.at is None):
            yield Finding(
                (("events", at, "begins"), ("events", at)),
                f"event `{event.name}` must either begin once or recur",
                'write `begins: 2026-03-01T08:00:00Z`, or `days: mon-fri` and `at: "08:00"`',
            )
        yield from check_time_zone(event.time_zone, ("events", at))
        if now_s is not None and event.begins is not None:
            end_s = event.begins.timestamp() + event.lasts_s
            if end_s <= now_s:
                yield Finding(
                    (("events", at, "begins"), ("events", at)),
                    f"event `{event.name}` was over at {datetime.fromtimestamp(end_s, UTC):%Y-%m-%d %H:%M} UTC and never "
                    "comes again",
                    "write when it comes next, or remove it",
                    Severity.WARNING,
                )
    if policy.events and not (policy.forecast or policy.objective):
        yield Finding(
            (("events",),),
            "events change forecasts, and nothing in this policy uses them",
            "switch on `forecast`, or give the fleet an `objective`",
            Severity.WARNING,
        )


# ── Guards and supply ───────────────────────────────────────────────────────────────────────────────────


def _check_guards(policy: Policy, tick_s: float) -> Iterator[Finding]:
    guards, start_s = policy.guards, policy.vm.start_time_s
    if guards.minimum_on_time_s < BILLING_FLOOR_S:
        yield Finding(
            (("guards", "minimum_on_time"),),
            f"`guards.minimum_on_time` of {_s(guards.minimum_on_time_s)} is below the {_s(BILLING_FLOOR_S)} that every start is billed for",
            f"write at least {_s(BILLING_FLOOR_S)}",
        )
    if 0 < guards.cooldown_out_s < start_s:
        yield Finding(
            (("guards", "cooldown_out"), ("vm", "start_time")),
            f"`guards.cooldown_out` of {_s(guards.cooldown_out_s)} ends before the VMs it waits for serve (`vm.start_time` {_s(start_s)})",
            f"write 0s for none, or at least {_s(start_s)}",
        )
    if policy.objective is None and guards.cooldown_in_s < start_s:
        yield Finding(
            (("guards", "cooldown_in"), ("vm", "start_time")),
            f"`guards.cooldown_in` of {_s(guards.cooldown_in_s)} is shorter than `vm.start_time` ({_s(start_s)}): VMs would be stopped on what was measured before others served",
            f"write at least {_s(start_s)}",
        )
    if policy.objective is None and guards.stabilisation_s < tick_s:
        yield Finding(
            (("guards", "stabilisation"),),
            f"`guards.stabilisation` of {_s(guards.stabilisation_s)} is shorter than a tick ({_s(tick_s)}) and has no effect",
            f"write some minutes, at least {_s(2 * tick_s)}",
            Severity.WARNING,
        )


def _check_supply(policy: Policy) -> Iterator[Finding]:
    warm, provision = policy.warm_pool, policy.provision
    if warm.maximum is not None and warm.minimum > warm.maximum:
        yield Finding(
            (("warm_pool", "minimum"), ("warm_pool", "maximum")),
            f"`warm_pool.minimum` ({warm.minimum}) is above `warm_pool.maximum` ({warm.maximum})",
            "lower the one or raise the other",
        )
    if provision and provision.maximum < policy.bounds.maximum:
        yield Finding(
            (("provision", "maximum"), ("bounds", "maximum")),
            f"`provision.maximum` ({provision.maximum}) is below `bounds.maximum` ({policy.bounds.maximum}), which can then never be reached",
            "raise the one or lower the other",
            Severity.WARNING,
        )


def _check_kind(policy: Policy) -> Iterator[Finding]:
    """Yield findings about fields that the kind of signal needs or excludes; also machine types that are listed twice."""
    signal = policy.signal
    if signal.kind == "concurrency" and signal.in_flight is None:
        yield Finding(
            (("signal", "kind"),),
            "kind concurrency needs `signal.in_flight`",
            "write how much a VM may have in flight while it meets its objective, for example `in_flight: 50`",
        )
    if signal.kind != "concurrency" and signal.in_flight is not None:
        yield Finding(
            (("signal", "in_flight"), ("signal", "kind")),
            f"`signal.in_flight` is for kind concurrency, but `signal.kind` is {signal.kind}",
            "remove it, or write `kind: concurrency`",
        )
    types = [each.type for each in policy.vm.weights]
    if twice := sorted({name for name in types if types.count(name) > 1}):
        yield Finding(
            (("vm", "weights"),), f"`vm.weights` gives type {twice[0]} twice", "leave one of the two"
        )
    if signal.kind in ("concurrency", "queue") and signal.source == "trace":
        yield Finding(
            (("signal", "source"), ("signal", "kind")),
            f"a trace holds work per second, and kind {signal.kind} is none",
            "write `kind: throughput` or `kind: total` to play a recording",
        )


def _check_learning(policy: Policy) -> Iterator[Finding]:
    """Yield findings about what cannot be learned from the policy's signal."""
    kind = policy.signal.kind
    if policy.vm.learn_capacity is not None and kind != "throughput":
        yield Finding(
            (("vm", "learn_capacity"), ("signal", "kind")),
            f"`vm.learn_capacity` needs the work of each VM, and `signal.kind` {kind} does not measure it",
            "remove `vm.learn_capacity`, or measure throughput",
        )
    learns = policy.vm.learn_capacity
    if learns is not None and ADDRESS not in learns.url:
        yield Finding(
            (("vm", "learn_capacity", "url"), ("vm", "learn_capacity")),
            "utilisation is read from every VM, but `vm.learn_capacity.url` has no {address}",
            "write for example http://{address}:9100/metrics",
        )
