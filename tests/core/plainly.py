"""The rules of a decision again, for one lane, in plain Python: one `if` after the other, nothing precomputed.

Tests compare core's arrays with it. Python's numbers round like numpy's, so equal means equal to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from autoscaler.core.types import MOST_VMS, NO_CEILING, QUANTILE_LEVELS, Freshness, Reason, Stage
from autoscaler.core.windows import SLOTS

LONG_AGO_S = -1e18


@dataclass
class Memory:
    """The state of one lane."""

    wishes: list[tuple[int, int]] = field(default_factory=list)
    desired: list[tuple[int, int]] = field(default_factory=list)
    last_out_s: float = LONG_AGO_S
    last_in_s: float = LONG_AGO_S
    last_starting_s: float = LONG_AGO_S
    refilled_s: float = LONG_AGO_S
    tokens_out: float = math.inf
    tokens_in: float = math.inf
    good: int = -1
    lost_s: float | None = None
    work: float = 0.0
    gone_s: float | None = None
    returned_s: float = -math.inf


def lane_of(values, lane):
    """The fields of a dataclass of arrays for one lane: Python numbers, or lists along the other axis."""
    got = {f.name: getattr(values, f.name) for f in fields(values)}
    return {
        name: np.asarray(value)[..., lane].tolist() if isinstance(value, np.ndarray) else value
        for name, value in got.items()
    }


def vms(work_per_s, capacity):
    if math.isnan(work_per_s):
        return 0
    return int(min(max(math.ceil(work_per_s / capacity - 1e-9), 0), MOST_VMS))


def highest_of(notes, tick, window):
    """Highest value of the notes (tick, value) in the window's buckets, or 0. A window of one tick is the last note."""
    if window <= 1:
        return notes[-1][1] if notes else 0
    length = window
    per_bucket = 1 if length <= SLOTS else math.ceil(length / (SLOTS - 1))
    buckets = length if length <= SLOTS else math.ceil(length / per_bucket) + 1
    return max((v for t, v in notes if t // per_bucket > tick // per_bucket - buckets), default=0)


def decide_plainly(p, memory, s, at_lead, peak):
    """Decide for one lane.

    Args:
        p, s: Parameters and snapshot, from `lane_of`.
        memory: State of the lane, which is updated.
        at_lead, peak: The Outlook's quantiles for the lane's series.
    """
    now = s["in_service"] + s["starting"]
    values, reasons = [], []
    wish = 0

    def stage(value, reason):
        nonlocal wish
        wish = value
        values.append(value)
        reasons.append(int(reason))

    def propose(proposal, reason):
        stage(*((proposal, reason) if proposal > wish else (wish, Reason.NONE)))

    propose(*reactive(p, s, now))
    propose(*steps(p, s, now))
    propose(max([0, *open_floors(p, s)]), Reason.SCHEDULE)
    propose(*cover(p, s, now, at_lead, peak))
    assert not p["economic"], "objectives have a twin of their own"
    stage(wish, Reason.NONE)
    asked = wish

    known = not p["uses_signal"] or s["freshness"] == Freshness.FRESH
    memory.wishes.append((s["tick"], wish if known else max(memory.good, 0)))
    window = p["stabilisation_ticks"]
    highest = highest_of(memory.wishes, s["tick"], window) if window > 1 and known else 0
    propose(min(highest, now), Reason.STABILISATION)

    stage(*trusted(p, s, memory, wish, now, at_lead))

    if wish > now and s["now_s"] < memory.last_out_s + p["cooldown_out_s"]:
        stage(now, Reason.COOLDOWN_OUT)
    elif wish < now and s["now_s"] < max(memory.last_in_s, memory.last_starting_s) + p["cooldown_in_s"]:
        stage(now, Reason.COOLDOWN_IN)
    else:
        stage(wish, Reason.NONE)

    stage(*bounds(p, s, wish))
    refill(p, s, memory)
    if math.isfinite(p["rate_out_vms"]) and wish > now + int(memory.tokens_out):
        stage(now + int(memory.tokens_out), Reason.RATE_LIMIT_OUT)
    elif math.isfinite(p["rate_in_vms"]) and wish < now - int(memory.tokens_in):
        stage(now - int(memory.tokens_in), Reason.RATE_LIMIT_IN)
    else:
        stage(wish, Reason.NONE)

    propose(min(max(s["in_service"] - s["stoppable"], 0), now), Reason.MINIMUM_ON_TIME)

    if wish < now and not s["may_stop"]:
        stage(now, Reason.PAUSED_STOP)
    elif wish > now and not s["may_start"] and not s["may_provision"]:
        stage(now, Reason.PAUSED_START)
    else:
        stage(wish, Reason.NONE)

    assert p["group"] < 0, "what lanes share has a twin of its own"
    stage(wish, Reason.NONE)
    desired = wish
    start, provision, why = supply(p, s, max(desired - now, 0))
    stage(now + start + provision if desired > now else desired, why)
    stop = min(max(s["in_service"] - desired, 0), s["stoppable"])
    remember(p, s, memory, start + provision, stop)
    memory.desired.append((s["tick"], min(desired, p["maximum"])))
    kept = math.ceil(
        highest_of(memory.desired, s["tick"], p["warm_memory_ticks"]) * (1 + p["warm_spare"]) - 1e-9
    )
    return {
        "wish": asked,
        "desired": desired,
        "start": start,
        "provision": provision,
        "stop": stop,
        "warm_target": min(max(kept - desired, p["warm_minimum"]), p["warm_maximum"]),
        "forecast": at_lead[QUANTILE_LEVELS.index(0.5)],
        "forecast_hi": at_lead[QUANTILE_LEVELS.index(0.95)],
        "reason": reasons,
        "value": values,
    }


def reactive(p, s, now):
    if not p["reactive"] or math.isnan(s["demand"]):
        return 0, Reason.NONE
    demand = s["demand"] * (p["censored_growth"] if s["censored"] else 1.0)
    need = vms(demand * (1.0 + p["headroom"]), p["vm_capacity"])
    half_left = demand * (1.0 + 0.5 * p["headroom"]) <= (now + 1e-9) * p["vm_capacity"]
    if need != now and abs(need - now) <= p["tolerance"] * now and half_left:
        return now, Reason.TOLERANCE
    return need, Reason.CENSORED if s["censored"] else Reason.DEMAND


def steps(p, s, now):
    if not p["steps"] or math.isnan(s["demand"]) or now == 0:
        return 0, Reason.NONE
    utilisation = s["demand"] / (now * p["vm_capacity"])
    changes = []
    rules = zip(p["step_lower"], p["step_upper"], p["step_vms"], p["step_share"], strict=True)
    for lower, upper, add, share in rules:
        if lower <= utilisation < upper:
            by_share = math.ceil(share * now - 1e-9)
            changes.append(add + (min(by_share, -1) if share < 0 else by_share))
    return (max(now + max(changes), 0), Reason.STEP_RULE) if changes else (now, Reason.TOLERANCE)


def open_floors(p, s):
    windows = zip(p["window_start_s"], p["window_end_s"], p["window_floor"], strict=True)
    return [floor for start, end, floor in windows if p["schedule"] and start <= s["now_s"] < end]


def cover(p, s, now, at_lead, peak):
    if not p["cover"] or s["freshness"] != Freshness.FRESH or math.isnan(at_lead[p["cover_quantile"]]):
        return 0, Reason.NONE
    low = vms(at_lead[p["cover_quantile"]], p["vm_capacity"])
    high = max(vms(peak[p["cover_quantile"]], p["vm_capacity"]), low)
    return min(max(now, low), high), Reason.FORECAST_COVER if low >= now else Reason.FORECAST_KEEP


def trusted(p, s, memory, wish, now, at_lead):
    if s["demand"] > 0:
        memory.work, memory.gone_s = s["demand"], None
    elif s["demand"] == 0 and memory.gone_s is None and p["zero_hold_s"] >= 0:
        memory.gone_s = s["now_s"] if memory.work > 0.5 * p["vm_capacity"] else -math.inf
    vanished = (
        s["demand"] == 0 and memory.gone_s is not None and memory.gone_s + p["zero_hold_s"] > s["now_s"]
    )
    blind = p["uses_signal"] and s["freshness"] != Freshness.FRESH
    if (
        not blind
        and memory.lost_s is not None
        and memory.good >= 0
        and memory.lost_s < s["now_s"] - 1.5 * p["tick_s"]
    ):
        until_s = s["now_s"] + min(s["now_s"] - memory.lost_s, 300.0)
        memory.returned_s = max(memory.returned_s, until_s)
    memory.lost_s = (s["now_s"] if memory.lost_s is None else memory.lost_s) if blind else None
    why = doubt(p, s, vanished)
    if not why and not blind and s["now_s"] < memory.returned_s:
        why = Reason.DATA_RETURNED
    if not why:
        memory.good = wish
    elif why == Reason.DATA_RETURNED:
        memory.good = max(memory.good, wish)
    elif blind and s["listed"] and memory.lost_s + p["loss_hold_s"] <= s["now_s"] and memory.good >= 0:
        expected = vms(at_lead[p["cover_quantile"]], p["vm_capacity"]) if p["cover"] else 0
        safe = max(memory.good, expected, wish)
        return safe, Reason.DATA_FALLBACK if safe != wish else Reason.NONE
    return (now, why) if why and wish < now else (wish, Reason.NONE)


def doubt(p, s, vanished):
    if not s["listed"]:
        return Reason.LISTING_INCOMPLETE
    if not p["uses_signal"]:
        return Reason.NONE
    if vanished:
        return Reason.DEMAND_VANISHED
    if s["freshness"] == Freshness.FRESH:
        return Reason.LOW_COVERAGE if s["coverage"] < p["min_coverage"] else Reason.NONE
    return {
        Freshness.STALE: Reason.DATA_STALE,
        Freshness.INVALID: Reason.DATA_INVALID,
        Freshness.ABSENT: Reason.DATA_ABSENT,
    }[s["freshness"]]


def bounds(p, s, wish):
    capped = s["ceiling"] != NO_CEILING
    most = s["ceiling"] if capped else p["maximum"]
    if s["floor"] > most:
        return s["floor"], Reason.OVERRIDE_FLOOR if wish != s["floor"] else Reason.NONE
    least = max(p["minimum"], s["floor"])
    if least > most:
        return most, Reason.OVERRIDE_CEILING if wish != most else Reason.NONE
    if wish < least:
        return least, Reason.OVERRIDE_FLOOR if s["floor"] > p["minimum"] else Reason.MINIMUM
    if wish > most:
        return most, Reason.OVERRIDE_CEILING if capped else Reason.MAXIMUM
    return wish, Reason.NONE


def refill(p, s, memory):
    passed_s = max(s["now_s"] - memory.refilled_s, 0.0)
    memory.refilled_s = s["now_s"]
    for way in ("out", "in"):
        full, period_s = p[f"rate_{way}_vms"], p[f"rate_{way}_period_s"]
        if math.isfinite(full):
            tokens = min(getattr(memory, f"tokens_{way}"), full)
            setattr(memory, f"tokens_{way}", min(tokens + passed_s * full / period_s, full))


def supply(p, s, need):
    if not need:
        return 0, 0, Reason.NONE
    start = min(need, s["stopped"]) if s["may_start"] else 0
    room = max(p["max_provisioned"] - s["provisioned"], 0) if p["provision"] else 0
    provision = min(need - start, room) if s["may_provision"] else 0
    if not s["may_start"] and s["stopped"]:
        return start, provision, Reason.PAUSED_START
    if start + provision < need:
        paused = room and not s["may_provision"]
        return start, provision, Reason.PAUSED_PROVISION if paused else Reason.WARM_POOL_EMPTY
    return start, provision, Reason.PROVISION if provision else Reason.NONE


def remember(p, s, memory, out, stop):
    memory.tokens_out -= out
    memory.tokens_in -= stop
    if out:
        memory.last_out_s = s["now_s"]
    if stop:
        memory.last_in_s = s["now_s"]
    if s["starting"] + out:
        memory.last_starting_s = s["now_s"]


assert len(Stage) == 14, "a new stage needs its place here"
