"""Explains decisions: the one sentence per fleet and tick in the log, the journal, tables and `explain`.

Every sentence begins with what is done, then gives the reasons of the stages that shaped the number, in their order. A reason
without wording here fails a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from string import Formatter
from typing import NamedTuple

from autoscaler.core.types import Freshness, Reason, Stage, TierReason
from autoscaler.ports import DueBurst, Earnings, FleetTick, Memories, SharedHold
from autoscaler.words import counted


class SentenceInputs(NamedTuple):
    """Every number that a sentence reads, named as in `FleetTick`; equal numbers give the same sentence."""

    stages: tuple[int, ...]
    reasons: tuple[int, ...]
    in_service: int
    starting: int
    start: int
    provision: int
    stop: int
    desired: int
    freshness: int
    coverage: float
    demand: float
    forecast_hi: float
    earnings: Earnings | None = None
    shared: SharedHold | None = None
    burst: DueBurst | None = None


def sentence(tick: SentenceInputs | FleetTick) -> str:
    """Say what this tick does for the fleet and why, without the fleet's name."""
    return f"{_action(tick)}: {'; '.join(phrases(tick)) or _steady(tick)}{_burst(tick.burst)}"


def phrases(tick: SentenceInputs | FleetTick) -> Iterator[str]:
    """Yield one phrase per stage that shaped the number; proposals that a later stage overruled are left out."""
    shaped = [
        (stage, _REASONS[reason], value)
        for stage, (reason, value) in enumerate(zip(tick.reasons, tick.stages, strict=True))
        if reason
    ]
    last_proposal = max([stage for stage, _, _ in shaped if stage <= _PROPOSALS_TO], default=-1)
    for stage, reason, value in shaped:
        overruled = stage < last_proposal
        if not overruled:
            yield phrase(reason, value, tick)


def phrase(reason: Reason, value: int, tick: SentenceInputs | FleetTick) -> str:
    """Put one reason into words, with the numbers that it rests on."""
    return _WORDS[reason].format_map({name: _TOLD[name](reason, value, tick) for name in _NAMES[reason]})


def waiting(memories: Memories) -> str:
    """Say how VMs that may hibernate should wait, and why."""
    if memories.hibernated is None:
        why = _NOT_WEIGHED.get(
            memories.reason, "holding a memory costs nothing, and a faster start is worth saving it"
        )
        return f"all that may hibernate, since {why}"
    if memories.least is None or memories.least > 1.0:
        return "none hibernated: the faster start is not worth what a memory costs"
    shares = [
        f"{whose} {share:.0%}"
        for whose, share in (
            ("the last of them", memories.last if memories.hibernated else None),
            ("the next", memories.following),
        )
        if share is not None
    ]
    first = (
        f"the first {memories.hibernated} to start hibernated" if memories.hibernated else "none hibernated"
    )
    told = f"within the refill horizon {' and '.join(shares)} of its work is expected, and "
    return f"{first}: {told if shares else ''}a memory pays off from {memories.least:.0%}"


def _earned(value: int, earnings: Earnings | None) -> str:
    """Say what the last VM earns, and what one more would."""
    if earnings is None:
        return ""
    told = [
        f"VM {vm} earns {_times(times)}"
        for vm, times in ((value, earnings.last), (value + 1, earnings.following))
        if times is not None and vm > 0
    ]
    return f" ({', '.join(told)})" if told else ""


def _dearer(earnings: Earnings | None) -> str:
    """Say if the driving model values unserved work at more than its price, since the figures of VMs rest on that; else empty."""
    _, _, price = ("", "", "") if earnings is None else earnings.model.rpartition(_PRICED_AT)
    return f"shortage at {price}, which would recently have cost least" if price not in ("", _PLAIN) else ""


def _burst(due: DueBurst | None) -> str:
    """Say how likely a burst is by the time a start serves; empty if none is due."""
    if due is None:
        return ""
    moment = datetime.fromtimestamp(due.at_s, UTC)
    when = moment.strftime(":%M" if due.period_s <= _HOUR_S else "%H:%M UTC")
    return f"; the odds of a burst at {when} are {due.odds:g}"


def _shared(reason: Reason, value: int, held: SharedHold | None) -> str:
    """Say which limit of a group leaves how many VMs, and what the rival fleet's next VM earns."""
    if held is None:
        return f"{_NO_MORE.get(reason, '')}, which leaves {value}"
    may = {
        "vms": f"may run {held.most:,.0f} VMs",
        "money": f"may cost {held.most:,.6g}/h",
        "starts": f"may start {held.most:,.0f} VMs in {held.per_s:g} s",
    }[held.limit]
    earned = [
        f"VM {vm}{whose} {_earns(worth, priced=priced)}"
        for vm, whose, worth, priced in (
            (value + 1, "", held.worth, held.priced),
            (held.rival_vm, f" of {held.rival}", held.rival_worth, held.rival_priced),
        )
        if worth is not None
    ]
    more = f" ({', '.join(earned)})" if earned else ""
    return f"{may}, which leaves {value} of {held.wanted}{more}"


def _earns(worth: float, *, priced: bool) -> str:
    return f"earns {_times(worth)}" if priced else f"would be {worth:.0%} busy"


def _times(times: float) -> str:
    if times >= 99.5:
        return f"{times:,.0f} times its cost"
    # What is less than the cost must not read as the cost.
    return f"{min(times, 0.99) if times < 1.0 else times:.2g} times its cost"


def _action(tick: SentenceInputs | FleetTick) -> str:
    ordered = tick.in_service + tick.starting
    if tick.start or tick.provision:
        new = tick.start + tick.provision
        return f"starting {new} ({ordered} to {ordered + new})"
    if tick.stop:
        return f"stopping {tick.stop} ({ordered} to {ordered - tick.stop})"
    return f"holding {ordered}"


def _steady(tick: SentenceInputs | FleetTick) -> str:
    if tick.freshness == Freshness.FRESH:
        return f"demand {work(tick.demand)} is served"
    return "no fresh metrics, and nothing to hold"


def work(value: float) -> str:
    """Format work per second with few digits."""
    return f"{value:,.0f}/s" if value >= 10 else f"{value:,.2g}/s"


_NO_MORE = {
    Reason.SHARED_VMS: "may run no more VMs",
    Reason.SHARED_MONEY: "may cost no more",
    Reason.SHARED_STARTS: "may start no more VMs for now",
}
_NOT_WEIGHED = {
    TierReason.UNPRICED.name.lower(): "the fleet has no objective that would say what a slower start costs",
    TierReason.NO_FORECAST.name.lower(): "there is no forecast yet",
    TierReason.UNMEASURED.name.lower(): "it is not yet known how much sooner hibernated VMs serve",
}
_HOUR_S = 3600.0
_PRICED_AT, _PLAIN = ", shortage at ", "its price"
"""How a model's name ends if it values unserved work (`models.Model`), and what follows if it does so at the plain price."""
_PROPOSALS_TO = int(Stage.ECONOMIC)
_REASONS = {int(reason): reason for reason in Reason}
_WORDS: dict[Reason, str] = {
    Reason.DEMAND: "demand {demand} with headroom needs {vms}",
    Reason.TOLERANCE: "demand {demand} is within tolerance of {vms}",
    Reason.CENSORED: "VMs are saturated at {demand}, which hides further demand: plan for {vms}",
    Reason.STEP_RULE: "a step rule on utilisation asks for {vms}",
    Reason.SCHEDULE: "the schedule asks for at least {vms}",
    Reason.FORECAST_COVER: "by the time a start serves, demand may reach {high}, which needs {vms}",
    Reason.FORECAST_KEEP: "{stay}, since demand may rise before a stopped VM could serve again",
    Reason.WORTH_START: "by the time a start serves, demand is below {high} with 95 % probability; {prices} it pays to have {vms}{earned}",
    Reason.WORTH_KEEP: "{stay}: worth keeping by forecast and prices{dearer}{earned}",
    Reason.WORTH_UNKNOWN: "no forecast yet: demand {demand} with headroom needs {vms}",
    Reason.MODEL_DEMAND: "demand {demand} with headroom needs {vms}; this model would recently have cost least ({model})",
    Reason.MODEL_PEAK: "{stay}, since the highest recent demand needed as many; this model would recently have cost least ({model})",
    Reason.MODEL_USUAL: "the usual need is {vms}; this model would recently have cost least ({model})",
    Reason.MODEL_YESTERDAY: "this time on earlier days needed {vms}; this model would recently have cost least ({model})",
    Reason.FALL_DOUBTED: "demand fell suddenly to {demand}, which is rare and may be an outage, so {stay} for a while",
    Reason.STABILISATION: "{stay}, since as many were needed recently",
    Reason.DATA_ABSENT: "no metrics arrive, so {stay}",
    Reason.DATA_STALE: "metrics are too old, so {stay}",
    Reason.DATA_INVALID: "metrics have impossible values, so {stay}",
    Reason.LOW_COVERAGE: "only {coverage:.0%} of VMs report, so {stay}",
    Reason.DEMAND_VANISHED: "demand vanished at all VMs at once, which may be an outage, so {stay}",
    Reason.DATA_RETURNED: "metrics have only just come back, perhaps not all of them, so {stay} for a while",
    Reason.DATA_FALLBACK: "no metrics for a long time: {value} is the largest of the last good wish, schedule and forecast",
    Reason.LISTING_INCOMPLETE: "the list of VMs is incomplete, so {stay}",
    Reason.COOLDOWN_OUT: "cooldown after the last scale-out holds {value}",
    Reason.COOLDOWN_IN: "cooldown before scale-in holds {value}",
    Reason.OVERRIDE_FLOOR: "an operator's floor is {value}",
    Reason.OVERRIDE_CEILING: "an operator's ceiling is {value}",
    Reason.MINIMUM: "the policy's minimum is {value}",
    Reason.MAXIMUM: "the policy's maximum is {value}",
    Reason.RATE_LIMIT_OUT: "the rate limit allows {value} for now",
    Reason.RATE_LIMIT_IN: "the rate limit keeps {value} for now",
    Reason.MINIMUM_ON_TIME: "{stay}: on for less than the minimum time, or protected",
    Reason.PAUSED_STOP: "an operator has paused stops, so {stay}",
    Reason.PAUSED_START: "an operator has paused starts, which leaves {value}",
    Reason.PAUSED_PROVISION: "an operator has paused provisioning, and the warm pool leaves {value}",
    Reason.WARM_POOL_EMPTY: "the warm pool is short: only {value} of {desired} are available",
    Reason.SHARED_VMS: "the group {group} {shared}",
    Reason.SHARED_MONEY: "the group {group} {shared}",
    Reason.SHARED_STARTS: "the group {group} {shared}",
    Reason.PROVISION: "the warm pool is empty, so {provision} are provisioned from nothing",
}
"""Each reason in words; the names in braces are keys of `_TOLD`."""
_TOLD: dict[str, Callable[[Reason, int, SentenceInputs | FleetTick], object]] = {
    "value": lambda _, value, __: value,
    "vms": lambda _, value, __: counted(value, "VM"),
    "stay": lambda _, value, __: counted(value, "VM stays", "VMs stay"),
    "demand": lambda _, __, tick: work(tick.demand),
    "high": lambda _, __, tick: work(tick.forecast_hi),
    "coverage": lambda _, __, tick: tick.coverage,
    "desired": lambda _, __, tick: tick.desired,
    "provision": lambda _, __, tick: tick.provision,
    "group": lambda _, __, tick: "that shares limits" if tick.shared is None else tick.shared.group,
    "shared": lambda reason, value, tick: _shared(reason, value, tick.shared),
    "prices": lambda _, __, tick: f"with {of}," if (of := _dearer(tick.earnings)) else "at these prices",
    "dearer": lambda _, __, tick: f", with {of}" if (of := _dearer(tick.earnings)) else "",
    "earned": lambda _, value, tick: _earned(value, tick.earnings),
    "model": lambda _, __, tick: "another model" if tick.earnings is None else tick.earnings.model,
}
"""How to get each value that a wording may use: from the reason, the wish after its stage, and the tick."""
_NAMES = {
    reason: tuple({name: None for _, name, _, _ in Formatter().parse(words) if name})
    for reason, words in _WORDS.items()
}
"""The names that each reason's wording uses."""
