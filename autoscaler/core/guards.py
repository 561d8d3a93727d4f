"""The guards: rules that may change the wished number of VMs, in the fixed order of `types.Stage`.

Rules of this file: stages as described in `rules`. Each guard protects against one kind of harm, and says so by a reason. Guards
that protect running VMs come last and therefore win: nothing here starts or stops anything, and no guard may move a lane further
from its bounds than it was.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import UNCHANGED, Rule, RuleInputs, Why, pair, within
from autoscaler.core.state import LaneState, full_buckets
from autoscaler.core.types import NO_CEILING, CountType, Decision, Float, Int, Reason, Snapshot

_EMPTY: Int = np.zeros(0, np.int64)


def stabilisation(params: LaneParams, counts: CountType) -> Rule | None:
    """Scale in only to the highest wish of the window (the Kubernetes horizontal autoscaler's rule).

    A lane that needs its signal has no wish in a tick without fresh demand. The data guard holds it then, and what counts in the window is
    its last good wish: otherwise a loss of data that is longer than the window would leave nothing to compare with, and the first
    reading afterwards, which may be of a part only, would stop VMs at once.
    """
    if (params.stabilisation_ticks <= 1).all():
        return None
    needs_none = None if params.uses_signal.all() else ~params.uses_signal

    reasons = pair(Reason.STABILISATION, Reason.NONE)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        known, noted = seen.fresh, wish
        if known is not None:
            if needs_none is not None:
                known = known | needs_none
            noted = np.where(known, wish, np.maximum(seen.state.trusted.good, 0))
        highest = seen.state.wishes.push_and_max(seen.snapshot.tick, noted)
        kept = np.minimum(highest, seen.ordered).astype(counts, copy=False)
        if known is not None:
            kept = kept * known
        return np.maximum(wish, kept), reasons

    return rule


def cooldown(params: LaneParams, counts: CountType) -> Rule | None:
    """Pause between orders in each direction; the pause before a scale-in starts when ordered VMs are in service."""
    del counts
    after_out, after_in = (params.cooldown_out_s > 0.0).any(), (params.cooldown_in_s > 0.0).any()
    if not after_out and not after_in:
        return None

    reasons = pair(Reason.COOLDOWN_IN, Reason.COOLDOWN_OUT)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        state, now_s, now = seen.state, seen.snapshot.now_s, seen.ordered
        value = wish
        # Only the lanes that want a change are looked at: of thousands, most stay.
        if after_in:
            fewer = (wish < now).nonzero()[0]
            if len(fewer):
                last_s = np.maximum(state.last_in_s[fewer], state.last_starting_s[fewer])
                fewer = fewer[last_s + params.cooldown_in_s[fewer] > now_s]
            if len(fewer):
                value = wish.copy()
                value[fewer] = now[fewer]
        if after_out:
            more = (wish > now).nonzero()[0]
            if len(more):
                more = more[state.last_out_s[more] + params.cooldown_out_s[more] > now_s]
            if len(more):
                value = wish.copy() if value is wish else value
                value[more] = now[more]
        return value, UNCHANGED if value is wish else reasons

    return rule


def bounds(params: LaneParams, counts: CountType) -> Rule:
    """Apply the policy's minimum and maximum, or an operator's overrides of them.

    An operator's ceiling wins over the policy's minimum, and an operator's floor over every maximum.
    """
    minimum, maximum = within(params.minimum, counts), within(params.maximum, counts)
    reasons = pair(Reason.MINIMUM, Reason.MAXIMUM)
    top = np.iinfo(counts).max

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        if not seen.operated:
            value = np.maximum(wish, minimum)
            return np.minimum(value, maximum, out=value), reasons
        capped = seen.snapshot.ceiling < NO_CEILING
        floor = np.minimum(seen.snapshot.floor, top).astype(counts, copy=False)
        ceiling = np.minimum(seen.snapshot.ceiling, top).astype(counts, copy=False)
        most = np.where(capped, ceiling, maximum)
        value = np.minimum(np.maximum(wish, np.maximum(minimum, floor)), np.maximum(most, floor))

        def why() -> Int:
            raised = value > wish
            by_floor = (floor > most) | (raised & (floor > minimum))
            by_ceiling = capped & (~raised | (minimum > ceiling))
            why = np.where(raised, int(Reason.MINIMUM), int(Reason.MAXIMUM))
            why = np.where(by_ceiling, int(Reason.OVERRIDE_CEILING), why)
            shown: Int = np.where(by_floor, int(Reason.OVERRIDE_FLOOR), why) * (value != wish)
            return shown

        return value, why

    return rule


def rate(params: LaneParams, counts: CountType) -> Rule | None:
    """Limit how many VMs may be started and stopped per period, by one token bucket for each direction."""
    del counts
    limits_out, limits_in = np.isfinite(params.rate_out_vms).any(), np.isfinite(params.rate_in_vms).any()
    if not limits_out and not limits_in:
        return None
    full_out, full_in = full_buckets(params)
    this = object()
    elapsed_s, refill_out, refill_in, at_once = -1.0, full_out, full_in, False
    least = min(
        (float(full.min()) for full, limits in ((full_in, limits_in), (full_out, limits_out)) if limits),
    )

    reasons = pair(Reason.RATE_LIMIT_IN, Reason.RATE_LIMIT_OUT)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        nonlocal elapsed_s, refill_out, refill_in, at_once
        state, now = seen.state, seen.ordered
        passed_s = max(seen.snapshot.now_s - state.refilled_s, 0.0)
        if passed_s != elapsed_s:
            elapsed_s = passed_s
            refill_out = passed_s * full_out / params.rate_out_period_s
            refill_in = passed_s * full_in / params.rate_in_period_s
            at_once = bool((refill_out >= full_out).all() and (refill_in >= full_in).all())
        state.refilled_s = seen.snapshot.now_s
        known = state.spent_by is this
        state.spent_by = this
        if limits_in:
            spent = state.spent_in if known else None
            state.spent_in = _refilled(state.tokens_in, spent, refill_in, full_in, at_once=at_once)
        if limits_out:
            spent = state.spent_out if known else None
            state.spent_out = _refilled(state.tokens_out, spent, refill_out, full_out, at_once=at_once)
        if wish is seen.settled:
            return wish, UNCHANGED
        moving = (wish != now).nonzero()[0] if seen.moving is None else seen.moving
        if not len(moving):
            return wish, reasons
        ordered = now.take(moving)
        change = wish.take(moving) - ordered
        if (
            not _any(state.spent_in)
            and not _any(state.spent_out)
            and np.maximum.reduce(np.abs(change)) <= least
        ):
            # All buckets are full, and no change exceeds the smallest.
            return wish, reasons
        allowed = _allowed(
            change,
            state.tokens_in.take(moving) if limits_in else None,
            state.tokens_out.take(moving) if limits_out else None,
        )
        if allowed is change:
            return wish, reasons
        held = (allowed != change).nonzero()[0]
        value = wish.copy()
        value[moving[held]] = (ordered + allowed)[held]
        return value, reasons

    return rule


def _any(spent: Int | None) -> bool:
    return spent is not None and len(spent) > 0


def _allowed(change: Int, tokens_in: Float | None, tokens_out: Float | None) -> Int:
    """The changes that whole tokens allow, (n,); if all are allowed, as in most ticks, the array `change` itself.

    Args:
        change: VMs to add; negative: to remove.
        tokens_in: Tokens for removing VMs; None if there is no limit.
        tokens_out: Tokens for adding VMs; None if there is no limit.
    """
    allowed = change
    for tokens, way in ((tokens_in, -1), (tokens_out, 1)):
        if tokens is None or not np.count_nonzero(over := change * way > tokens):
            continue
        # The tokens of these lanes are fewer than the VMs of a change, so they fit its dtype.
        whole = np.where(over, tokens, 0.0).astype(change.dtype) * way
        allowed = np.where(over, whole, allowed)
    return allowed


def _refilled(tokens: Float, spent: Int | None, refill: Float, full: Float, *, at_once: bool) -> Int:
    """Refill buckets in place, and return the lanes whose bucket is not full afterwards: int64 (n,).

    Args:
        tokens: float64 (L,), current tokens.
        spent: int64 (n,), lanes whose bucket is not full; a lane may occur more than once. None if not known.
        refill: float64 (L,), tokens to add since the last refill.
        full: float64 (L,), sizes of the buckets.
        at_once: Whether `refill` fills even an empty bucket in every lane.
    """
    if spent is None or len(spent) > len(tokens):
        np.minimum(np.add(tokens, refill, out=tokens), full, out=tokens)
        return (tokens < full).nonzero()[0]
    # Most buckets are full most of the time, and a full one stays full.
    if not len(spent):
        return spent
    most = full.take(spent)
    if at_once:
        tokens[spent] = most
        return spent[:0]
    left = np.minimum(tokens.take(spent) + refill.take(spent), most)
    tokens[spent] = left
    return spent[left < most]


def on_time(params: LaneParams, counts: CountType) -> Rule:
    """Keep VMs in service that have not been on for their minimum time or are protected."""
    del params, counts

    reasons = pair(Reason.MINIMUM_ON_TIME, Reason.NONE)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        view = seen.snapshot
        if view.stoppable is view.in_service or wish is seen.settled:
            return wish, UNCHANGED
        return np.maximum(wish, view.in_service - view.stoppable), reasons

    return rule


def pause(params: LaneParams, counts: CountType) -> Rule:
    """Suppress the actions that an operator has paused.

    If only one of starting and provisioning is paused, the wish stays, because the other may still serve it.
    """
    del params, counts
    reasons = pair(Reason.PAUSED_STOP, Reason.PAUSED_START)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        if not seen.operated:
            return wish, UNCHANGED
        view, now = seen.snapshot, seen.ordered
        value = np.where(view.may_stop, wish, np.maximum(wish, now))
        return np.where(view.may_start | view.may_provision, value, np.minimum(value, now)), reasons

    return rule


def supply(params: LaneParams, counts: CountType) -> Rule:
    """Limit the wish to what the warm pool and, if allowed, newly provisioned VMs can supply."""
    makes = bool(params.provision.any())
    most = within(np.where(params.provision, params.max_provisioned, 0), counts)
    none = np.zeros_like(most)
    reasons = pair(Reason.NONE, Reason.WARM_POOL_EMPTY)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        view = seen.snapshot
        if wish is seen.settled:
            return wish, UNCHANGED
        if not makes and not seen.operated:
            return np.minimum(wish, seen.ordered + view.stopped), reasons
        need = np.maximum(wish - seen.ordered, none)
        if not np.count_nonzero(need):
            return wish, UNCHANGED
        lacking = need - startable(seen, need)
        room = np.maximum(most - view.provisioned, none)
        provision = np.minimum(lacking, room)
        if seen.operated:
            provision *= view.may_provision
        lacking = lacking - provision

        def why() -> Int:
            short = lacking > 0
            why = np.where(short, int(Reason.WARM_POOL_EMPTY), (provision > 0) * int(Reason.PROVISION))
            if seen.operated:
                unmade = short & (room > 0) & ~view.may_provision
                why = np.where(unmade, int(Reason.PAUSED_PROVISION), why)
                unstarted = ~view.may_start & (need > 0) & (view.stopped > 0)
                why = np.where(unstarted, int(Reason.PAUSED_START), why)
            return why

        return wish - lacking, why

    return rule


def startable(seen: RuleInputs, need: Int) -> Int:
    """Stopped VMs to start, int (L,), if `need` VMs are wanted beyond what is ordered."""
    start = np.minimum(need, seen.snapshot.stopped)
    return start * seen.snapshot.may_start if seen.operated else start


class Note(Protocol):
    """A function that notes the orders of a tick for the guards that look back."""

    def __call__(
        self,
        state: LaneState,
        snapshot: Snapshot,
        out: Int = _EMPTY,
        vms_out: Int = _EMPTY,
        stop: Int = _EMPTY,
        vms_stop: Int = _EMPTY,
    ) -> None:
        """Note which lanes were scaled out and in.

        Args:
            state: Updated in place.
            snapshot: The snapshot of this tick.
            out: int64 (n,), lanes that start or provision VMs, each once.
            vms_out: int (n,), how many VMs each of them starts or provisions.
            stop: int64 (m,), lanes that stop VMs, each once.
            vms_stop: int (m,), how many VMs each of them stops.
        """
        ...


def notes(params: LaneParams) -> Note | None:
    """Return a function that notes orders for cooldowns and rate limits; None if no lane has either.

    Orders are not noted for a cooldown that no lane uses, so a cooldown that is switched on begins with the next order.
    """
    after_out, after_in = (params.cooldown_out_s > 0.0).any(), (params.cooldown_in_s > 0.0).any()
    limits_out, limits_in = np.isfinite(params.rate_out_vms).any(), np.isfinite(params.rate_in_vms).any()

    def note(
        state: LaneState,
        snapshot: Snapshot,
        out: Int = _EMPTY,
        vms_out: Int = _EMPTY,
        stop: Int = _EMPTY,
        vms_stop: Int = _EMPTY,
    ) -> None:
        now_s = snapshot.now_s
        if len(out):
            if limits_out:
                state.tokens_out[out] -= vms_out
                state.spent_out = _and_these(state.spent_out, out)
            if after_out:
                state.last_out_s[out] = now_s
        if len(stop) and limits_in:
            state.tokens_in[stop] -= vms_stop
            state.spent_in = _and_these(state.spent_in, stop)
        if after_in:
            if len(stop):
                state.last_in_s[stop] = now_s
            if len(out):
                state.last_starting_s[out] = now_s
            if np.count_nonzero(snapshot.starting):
                state.last_starting_s[(snapshot.starting > 0).nonzero()[0]] = now_s

    return note if after_out or after_in or limits_out or limits_in else None


class NotCarriedOut:
    """Undoes the notes of orders that nobody carries out: they start no cooldown and use up no rate limit.

    Args:
        state: As before the decision.
        lanes: int64 (m,), the lanes whose orders are not carried out.
    """

    def __init__(self, state: LaneState, lanes: Int) -> None:
        self._lanes = lanes
        self._last_out_s, self._last_in_s = state.last_out_s[lanes], state.last_in_s[lanes]
        self._last_starting_s = state.last_starting_s[lanes]

    def undo(self, params: LaneParams, state: LaneState, snapshot: Snapshot, decision: Decision) -> None:
        """Give back what the decision noted.

        Args:
            params: The policies.
            state: Updated in place.
            snapshot: What was decided on.
            decision: What was decided.
        """
        lanes = self._lanes
        if not len(lanes):
            return
        out, (full_out, full_in) = decision.start + decision.provision, full_buckets(params)
        state.last_out_s[lanes], state.last_in_s[lanes] = self._last_out_s, self._last_in_s
        idle = snapshot.starting[lanes] == 0
        state.last_starting_s[lanes[idle]] = self._last_starting_s[idle]
        state.tokens_out[lanes] = np.minimum(state.tokens_out + out, full_out)[lanes]
        state.tokens_in[lanes] = np.minimum(state.tokens_in + decision.stop, full_in)[lanes]
        for lane in lanes[(params.group[lanes] >= 0) & (out[lanes] > 0)]:
            state.shared.tokens[params.group == params.group[lane]] += out[lane]


def _and_these(spent: Int | None, lanes: Int) -> Int | None:
    if spent is None:
        return None
    return np.concatenate((spent, lanes)) if len(spent) else lanes
