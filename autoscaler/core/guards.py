"""The guards: rules that may change a wish, in the fixed order of `types.Stage`.

Rules of this file: same shape of function as in `sizing`. Each guard protects from one kind of harm and says
so by a reason. Guards that protect running VMs come last and so win: nothing here starts or stops anything,
and no guard may push a lane further from its bounds than it was. Reasons reach numpy as plain ints (`int(…)`),
since converting an enum costs it three times as much as the operation itself.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core import windows
from autoscaler.core.params import LaneParams
from autoscaler.core.sizing import ordered
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Bool, Freshness, Int, Outlook, Reason, Snapshot

_REASON_OF_FRESHNESS = np.zeros(len(Freshness), np.int64)
_REASON_OF_FRESHNESS[Freshness.STALE] = Reason.DATA_STALE
_REASON_OF_FRESHNESS[Freshness.INVALID] = Reason.DATA_INVALID
_REASON_OF_FRESHNESS[Freshness.ABSENT] = Reason.DATA_ABSENT


def has_data(params: LaneParams, snapshot: Snapshot) -> Bool:
    """Where the lane's own signal is good enough to decide on, or none is needed: bool (L,)."""
    good: Bool = ~params.uses_signal | (snapshot.freshness == Freshness.FRESH)
    return good


def stabilisation(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """Scale in only to the highest wish of the window (the Kubernetes horizontal autoscaler's rule)."""
    del outlook
    highest = windows.push_and_max(
        state.wishes,
        state.wish_bucket,
        tick=snapshot.tick,
        grid=state.wish_grid,
        value=wish,
        known=has_data(params, snapshot),
    )
    return _raise_to(wish, np.minimum(highest, ordered(snapshot)), Reason.STABILISATION)


def data(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """No scale-in on data that is absent, stale, invalid, or from too few VMs, nor on a partial listing."""
    del state, outlook
    sparse = (snapshot.freshness == Freshness.FRESH) & (snapshot.coverage < params.min_coverage)
    why = np.where(sparse, int(Reason.LOW_COVERAGE), _REASON_OF_FRESHNESS[snapshot.freshness])
    why = np.where(params.uses_signal, why, 0)
    why = np.where(snapshot.listed, why, int(Reason.LISTING_INCOMPLETE))
    now = ordered(snapshot)
    held = (why != 0) & (wish < now)
    return np.where(held, now, wish), np.where(held, why, 0)


def cooldown(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """One pause per direction; the one before a scale-in runs from the moment ordered VMs are in service."""
    del outlook
    now = ordered(snapshot)
    out = (wish > now) & (snapshot.now_s < state.last_out_s + params.cooldown_out_s)
    last_s = np.maximum(state.last_in_s, state.last_starting_s)
    inward = (wish < now) & (snapshot.now_s < last_s + params.cooldown_in_s)
    why = np.where(out, int(Reason.COOLDOWN_OUT), np.where(inward, int(Reason.COOLDOWN_IN), 0))
    return np.where(out | inward, now, wish), why


def bounds(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """The policy's minimum and maximum, or what an operator has put in their place.

    An operator's ceiling wins over the policy's minimum, and an operator's floor over every maximum.
    """
    del state, outlook
    capped = snapshot.ceiling < NO_CEILING
    most = np.where(capped, snapshot.ceiling, params.maximum)
    bounded = np.maximum(wish, np.maximum(params.minimum, snapshot.floor))
    bounded = np.minimum(bounded, np.maximum(most, snapshot.floor))
    raised = bounded > wish
    by_floor = (snapshot.floor > most) | (raised & (snapshot.floor > params.minimum))
    by_ceiling = capped & (~raised | (params.minimum > snapshot.ceiling))
    why = np.where(raised, int(Reason.MINIMUM), int(Reason.MAXIMUM))
    why = np.where(by_ceiling, int(Reason.OVERRIDE_CEILING), why)
    why = np.where(by_floor, int(Reason.OVERRIDE_FLOOR), why)
    return bounded, np.where(bounded != wish, why, 0)


def rate(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """So many VMs per period and direction, as token buckets."""
    del outlook
    elapsed_s = np.maximum(snapshot.now_s - state.refilled_s, 0.0)
    state.tokens_out = np.minimum(
        state.tokens_out + elapsed_s * params.rate_out_vms / params.rate_out_period_s, params.rate_out_vms
    )
    state.tokens_in = np.minimum(
        state.tokens_in + elapsed_s * params.rate_in_vms / params.rate_in_period_s, params.rate_in_vms
    )
    state.refilled_s.fill(snapshot.now_s)
    now = ordered(snapshot)
    highest = now + state.tokens_out.astype(np.int64)
    lowest = now - state.tokens_in.astype(np.int64)
    why = np.where(
        wish > highest,
        int(Reason.RATE_LIMIT_OUT),
        np.where(wish < lowest, int(Reason.RATE_LIMIT_IN), 0),
    )
    return np.minimum(np.maximum(wish, lowest), highest), why


def on_time(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """VMs in service that have not been on for their minimum time stay (also: protected ones)."""
    del params, state, outlook
    kept = np.maximum(snapshot.in_service - snapshot.stoppable, 0)
    return _raise_to(wish, np.minimum(kept, ordered(snapshot)), Reason.MINIMUM_ON_TIME)


def pause(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """What an operator has paused does not happen.

    Where only one of starting and provisioning is paused the wish stays: the other may still serve it.
    """
    del params, state, outlook
    now = ordered(snapshot)
    kept = ~snapshot.may_stop & (wish < now)
    closed = ~(snapshot.may_start | snapshot.may_provision) & (wish > now)
    why = np.where(kept, int(Reason.PAUSED_STOP), np.where(closed, int(Reason.PAUSED_START), 0))
    return np.where(kept | closed, now, wish), why


def supply(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """What the warm pool and, where allowed, new VMs can give."""
    del state, outlook
    now = ordered(snapshot)
    need = np.maximum(wish - now, 0)
    start = startable(snapshot, wish)
    room = np.maximum(params.max_provisioned - snapshot.provisioned, 0)
    provision = np.where(params.provision & snapshot.may_provision, np.minimum(need - start, room), 0)
    given = start + provision
    why = np.where(provision > 0, int(Reason.PROVISION), 0)
    short = given < need
    why = np.where(short, int(Reason.WARM_POOL_EMPTY), why)
    why = np.where(
        short & params.provision & (room > 0) & ~snapshot.may_provision, int(Reason.PAUSED_PROVISION), why
    )
    paused = ~snapshot.may_start & (need > 0) & (snapshot.stopped > 0)
    return np.where(need > 0, now + given, wish), np.where(paused, int(Reason.PAUSED_START), why)


def startable(snapshot: Snapshot, wish: Int) -> Int:
    """Stopped VMs to start for this wish: int64 (L,)."""
    need = np.maximum(wish - ordered(snapshot), 0)
    start: Int = np.minimum(need, snapshot.stopped) * snapshot.may_start
    return start


def _raise_to(wish: Int, floor: Int, reason: Reason) -> tuple[Int, Int]:
    raised = floor > wish
    return np.where(raised, floor, wish), np.where(raised, int(reason), 0)
