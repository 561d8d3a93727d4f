"""Combines calls that wait for the API budget: the next call in turn includes the VMs of the others that wait.

Why: EC2 allows an account five start calls at once and two a second, however many VMs each call names. If three hundred fleets open
in the same minute, separate calls per fleet and zone take seven minutes, although a dozen calls could name all VMs. But EC2 carries
out a call for all of its VMs or for none, and when many fleets start, some place (a machine type in a zone) may have no room. That
must not delay the fleets that start elsewhere.

Rules of this file: a call that need not wait is made alone. Others name one place each, or several if more places wait than the
budget soon has calls. When a combined call is refused, nobody is told what may be due to another:

- VMs that the provider names: only their own requests are told, and all others are called again.
- A lack of room in several places: each place is called for separately, for a while.
- A lack of room in one place: the next call there is for one request alone. If that fits, combined calls there become smaller. If
  not even that fits, the others that want as many VMs or more there are told so, without calls of their own.
- Anything else, also a lack of room in a reservation or on a dedicated host, is due to one VM or one request: the requests are
  called for in halves until it is found.

Calls that make VMs are never combined, because each has a token of its own. Such a call makes as many VMs as fit, so once one
made fewer than it should, all that wait for the same place are told that there is no room.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from autoscaler.ports import (
    BATCH_REFUSED,
    RESERVED_ROOM,
    ROOM_FOR_FEWER,
    ROOM_REFUSED,
    Clock,
    Outcome,
    OutcomeKind,
)
from autoscaler.providers.budget import CallBudget, Priority

MOST_VMS = 200
"""Most VMs in one combined call."""
APART_S = 20.0
"""How long a place that had no room, or was in a call that was refused for lack of room, is called for separately, in seconds."""
SMALLER = 4
"""How many times smaller calls in a place become after one that had no room there. With halves, too many calls would be made until
the last room is found, while the fleets could start elsewhere."""
_ABOUT_ONE = frozenset({OutcomeKind.REFUSED, OutcomeKind.NO_CAPACITY, OutcomeKind.DENIED})
"""Outcomes of a call that are caused by one of its VMs, or by their place."""
_FULL = frozenset({ROOM_FOR_FEWER, "InsufficientInstanceCapacity"})
"""Codes that mean, for a call that makes as many VMs as fit, that not even one more fits. Quotas may count calls as a whole."""

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]
Place: TypeAlias = tuple[str, str]
"""A machine type and a zone."""
Sent: TypeAlias = tuple[Sequence[str], tuple[Outcome, ...]]
"""The VMs that a call was made for, and their outcomes."""


@dataclass(slots=True, eq=False)
class _Request:
    """A request for some VMs.

    Attributes:
        vm_ids: Its VMs.
        vms: How many they are, or how many VMs are to be made.
        place: Where they are.
        turn: While it waits for the budget: how many of its VMs the budget admits, once it is this request's own turn.
        said: The answer, or an exception; None if the call must be made again.
        answered: Whether another request's call includes these VMs, or tells the answer.
        part: The part of a refused call that it belongs to. Only requests of the same part are combined.
    """

    vm_ids: Sequence[str]
    vms: int
    place: Place
    turn: asyncio.Task[int] | None = None
    said: asyncio.Future[Sent | BaseException | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    answered: bool = False
    part: object = None


@dataclass(slots=True)
class _Scarce:
    """A place that had no room for some call, or may have caused the refusal of one.

    Attributes:
        until_s: Until when it is called for separately.
        most: Most VMs in a combined call.
        fits: Whether a call for this place alone has been accepted since.
        refused: Fewest VMs for which such a call was refused since the last one that was accepted.
    """

    until_s: float
    most: int = MOST_VMS
    fits: bool = False
    refused: float = math.inf

    @property
    def most_now(self) -> int:
        """Most VMs in the next combined call: none until a request alone has shown that anything fits."""
        return self.most if self.fits or self.refused == math.inf else 0


class CallCombiner:
    """The requests that wait for one action of one account, with the same priority and options.

    Args:
        action: EC2's name of the action.
        priority: Priority among all requests that wait for the action.
        budget: The account's budget.
        clock: Clock for time limits.
        whole: Whether each request is a call of its own, which is made for all of its VMs.
    """

    def __init__(
        self,
        action: str,
        priority: Priority,
        budget: CallBudget,
        clock: Clock,
        *,
        whole: bool,
    ) -> None:
        self._action, self._priority = action, priority
        self._budget, self._clock, self._whole = budget, clock, whole
        self._waiting: list[_Request] = []
        self._scarce: dict[Place, _Scarce] = {}

    async def send(
        self, call: Call, vm_ids: Sequence[str], until_s: float, place: Place | None, vms: int | None = None
    ) -> Sent:
        """Make the call once the budget admits it, if possible combined with other waiting calls.

        Args:
            call: The provider's method for the action.
            vm_ids: VMs to name; at least one.
            until_s: Time on the Clock at which to give up waiting.
            place: The place that all of these VMs share; None if they do not, or it is unknown.
            vms: Number of VMs, if not that of `vm_ids`.

        Returns:
            The VMs that the call was made for, and their outcomes. VMs without room in the budget are missing.
        """
        # A request whose place is unknown has a place of its own.
        me = _Request(vm_ids, len(vm_ids) if vms is None else vms, place or ("", vm_ids[0]))
        granted = self._budget.admit_now(self._action, me.vms, whole=self._whole)
        while True:
            if granted is None:
                granted = await self._turn_of(me, until_s)
            if granted == 0:
                return (), ()
            if granted is not None:
                riders = self._taken_along(me) if granted == me.vms and not self._whole else []
                await self._make(call, granted, [me, *riders])
            said = me.said.result()
            if isinstance(said, BaseException):
                raise said
            if said is not None:
                return said
            me.said, me.answered, granted = asyncio.get_running_loop().create_future(), False, None

    async def _turn_of(self, me: _Request, until_s: float) -> int | None:
        """Wait until the budget admits a request, and return for how many VMs; None once another call has answered it."""
        left_s = max(until_s - self._clock.now(), 0.0)
        me.turn = asyncio.create_task(
            self._budget.admit(self._action, me.vms, self._priority, left_s, whole=self._whole)
        )
        self._waiting.append(me)
        try:
            await asyncio.wait({me.turn})
            if me.answered:
                await asyncio.wait({me.said})
                return None
            return me.turn.result()
        finally:
            me.turn.cancel()
            if me in self._waiting:
                self._waiting.remove(me)

    def _taken_along(self, me: _Request) -> list[_Request]:
        """Take the waiting requests that fit into the call of this one."""
        scarce = self._scarce_in(me.place)
        most = MOST_VMS if scarce is None else scarce.most_now
        mates = [each for each in self._waiting if each.part is me.part and not _has_turn(each)]
        order = {place: n for n, place in enumerate(self._places_of_call(me, mates))}
        mates = [each for each in mates if each.place in order]
        vms = me.vms
        found: list[_Request] = []
        for rider in sorted(mates, key=lambda each: (order[each.place], -each.vms)):
            if vms + rider.vms <= most and self._budget.more(self._action, rider.vms):
                vms += rider.vms
                self._take_out(rider)
                found.append(rider)
        return found

    def _places_of_call(self, me: _Request, mates: Sequence[_Request]) -> list[Place]:
        """Return the places that the call of this request may name, its own first, then those with most VMs."""
        if self._scarce_in(me.place) is not None:
            return [me.place]
        vms: Counter[Place] = Counter()
        for each in mates:
            vms[each.place] += each.vms
        others = [p for p, _ in vms.most_common() if p != me.place and self._scarce_in(p) is None]
        share = -(-(1 + len(others)) // self._budget.calls_soon(self._action))
        return [me.place, *others[: share - 1]]

    def _take_out(self, request: _Request) -> None:
        """Take a request out of the queue; whoever does so answers it."""
        assert request.turn is not None
        request.answered = True
        request.turn.cancel()
        self._waiting.remove(request)

    async def _make(self, call: Call, granted: int, requests: Sequence[_Request]) -> None:
        """Make one call for so many VMs of the first request and all VMs of the others, and answer them all."""
        own = requests[0].vm_ids[:granted]
        vm_ids = [*own, *(vm_id for each in requests[1:] for vm_id in each.vm_ids)]
        vms = granted + sum(each.vms for each in requests[1:])
        # If this call is abandoned, its outcome is unknown to the other requests, too.
        said: tuple[Outcome, ...] | Exception = TimeoutError()
        try:
            said = await call(vm_ids)
            tell_budget(self._budget, self._action, said, vms)
        except Exception as error:  # noqa: BLE001  each request raises it
            said = error
        finally:
            again = () if isinstance(said, Exception) else self._unclear(requests, vms, said)
            for each in requests:
                if not each.said.done():
                    ids = own if each is requests[0] else each.vm_ids
                    part = said if isinstance(said, Exception) or not requests[1:] else _part(said, ids)
                    answer = part if isinstance(part, Exception) else (ids, part)
                    each.said.set_result(None if each in again else answer)

    # ── refusals ───────────────────────────────────────────────────────────────────────────────────────

    def _unclear(
        self, requests: Sequence[_Request], vms: int, outcomes: Sequence[Outcome]
    ) -> Sequence[_Request]:
        """Learn from the answer to a call for so many VMs; return the requests that it says nothing about."""
        against = [outcome for outcome in outcomes if outcome.kind in _ABOUT_ONE]
        if not against:
            scarce = self._scarce_in(requests[0].place)
            if scarce is not None and any(o.kind is OutcomeKind.ACCEPTED for o in outcomes):
                scarce.fits, scarce.refused = True, math.inf
            return ()
        refused = {outcome.vm_id for outcome in against}
        blamed = {outcome.vm_id for outcome in against if outcome.code != BATCH_REFUSED}
        met = [each for each in requests if not refused.isdisjoint(each.vm_ids)]
        if blamed < refused:
            return [each for each in met if blamed.isdisjoint(each.vm_ids)]
        if against[0].kind is OutcomeKind.NO_CAPACITY and against[0].code not in RESERVED_ROOM:
            return self._without_room(met, vms, against[0])
        if len(met) < 2:
            return ()
        for half in (met[: len(met) // 2], met[len(met) // 2 :]):
            part = object()
            for each in half:
                each.part = part
        return met

    def _without_room(self, requests: Sequence[_Request], vms: int, said: Outcome) -> Sequence[_Request]:
        """Note that a call for so many VMs was refused for lack of room; return the requests to call for again."""
        now_s = self._clock.now()
        until_s = now_s + APART_S
        self._scarce = {place: each for place, each in self._scarce.items() if each.until_s > now_s}
        places = {each.place for each in requests}
        if len(places) > 1:
            for shared in places:
                self._scarce.setdefault(shared, _Scarce(until_s)).until_s = until_s
            return requests
        place = requests[0].place
        known = self._scarce_in(place)
        vms = 1 if self._whole and said.code in _FULL else vms
        fewest = vms if known is None else min(vms, known.refused)
        fits = known is not None and known.fits
        self._scarce[place] = _Scarce(until_s, vms // SMALLER, fits, fewest)
        waiting = [each for each in self._waiting if each.place == place and not _has_turn(each)]
        for each in waiting:
            if each.vms >= fewest:
                self._take_out(each)
                each.said.set_result(_told(each, said))
        if len(requests) == 1:
            return ()
        for each in requests:
            if each.vms >= fewest and not each.said.done():
                each.said.set_result(_told(each, said))
        return requests

    def _scarce_in(self, place: Place) -> _Scarce | None:
        """Return what is known of a place without room; None if it is like any other."""
        known = self._scarce.get(place)
        # A clock that was set back must not prolong this.
        if known is not None and not 0.0 < known.until_s - self._clock.now() <= APART_S:
            del self._scarce[place]
            return None
        return known


def _told(request: _Request, said: Outcome) -> Sent:
    """The answer to a request in whose place a call for no more VMs was refused like this."""
    why = f"another call just found no room for as many VMs in this place: {said.code} {said.message}"
    return request.vm_ids, tuple(Outcome(vm_id, said.kind, ROOM_REFUSED, why) for vm_id in request.vm_ids)


def _has_turn(request: _Request) -> bool:
    return request.turn is None or request.turn.done()


def tell_budget(budget: CallBudget, action: str, outcomes: Sequence[Outcome], vms: int) -> None:
    """Tell the budget whether the provider refused a call as a whole because of its own limits."""
    refused = bool(outcomes) and all(o.kind is OutcomeKind.THROTTLED and o.code for o in outcomes)
    budget.heard(action, refused=refused, vms=vms)


def _part(said: Sequence[Outcome], vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
    """The outcomes of some VMs of a combined call."""
    own = set(vm_ids)
    return tuple(outcome for outcome in said if outcome.vm_id in own)
