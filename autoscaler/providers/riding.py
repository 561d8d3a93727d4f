"""Combines calls that wait for the API budget: the next call in turn includes the VMs of the others that wait.

Why: EC2 allows an account five start calls at once and two a second, however many VMs each call names. If three hundred fleets open
in the same minute, separate calls per fleet and zone take seven minutes, although a dozen calls could name all VMs.

Rules of this file: a call that need not wait is made alone. If the provider refuses a combined call, the refusal cannot be
attributed: each fleet then calls for itself, and for a while no calls are combined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from autoscaler.ports import Clock, Outcome, OutcomeKind
from autoscaler.providers.budget import CallBudget, Priority

MOST_VMS = 200
"""Most VMs in one combined call."""
ALONE_S = 20.0
"""How long calls are made alone after the provider refused a combined call, in seconds."""
_ABOUT_ONE = frozenset({OutcomeKind.REFUSED, OutcomeKind.NO_CAPACITY, OutcomeKind.DENIED})
"""Outcomes of a call that are caused by one of its VMs, or by their place."""

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]
Sent: TypeAlias = tuple[Sequence[str], tuple[Outcome, ...]]
"""The VMs that a call was made for, and their outcomes."""


@dataclass(slots=True, eq=False)
class _WaitingRequest:
    """A request that waits for the budget.

    Attributes:
        vm_ids: Its VMs.
        turn: How many of them the budget admits, once it is this request's own turn.
        said: The outcomes, if another request's call included these VMs; None if they must be requested separately.
        aboard: Whether another request's call included them.
    """

    vm_ids: Sequence[str]
    turn: asyncio.Task[int]
    said: asyncio.Future[tuple[Outcome, ...] | BaseException | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    aboard: bool = False


class CallCombiner:
    """The requests that wait for one action of one account, with the same priority and options.

    Args:
        action: EC2's name of the action.
        priority: Priority among all requests that wait for the action.
        budget: The account's budget.
        clock: Clock for time limits.
    """

    def __init__(self, action: str, priority: Priority, budget: CallBudget, clock: Clock) -> None:
        self._action, self._priority = action, priority
        self._budget, self._clock = budget, clock
        self._waiting: list[_WaitingRequest] = []
        self._alone_until_s = float("-inf")

    async def send(self, call: Call, vm_ids: Sequence[str], until_s: float) -> Sent:
        """Make the call once the budget admits it, if possible combined with other waiting calls.

        Args:
            call: The provider's method for the action.
            vm_ids: VMs to name; at least one.
            until_s: Time on the Clock at which to give up waiting.

        Returns:
            The VMs that the call was made for, and their outcomes. VMs without room in the budget are missing.
        """
        granted = self._budget.admit_now(self._action, len(vm_ids))
        if granted is None:
            me = _WaitingRequest(vm_ids, asyncio.create_task(self._admit(vm_ids, until_s)))
            either: set[asyncio.Future[Any]] = {me.turn, me.said}
            self._waiting.append(me)
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if me.aboard:
                    said = await me.said
                    if isinstance(said, BaseException):
                        raise said
                    return await self._by_itself(call, vm_ids, until_s) if said is None else (vm_ids, said)
                granted = me.turn.result()
            finally:
                me.turn.cancel()
                if me in self._waiting:
                    self._waiting.remove(me)
        riders = self._taken_along(granted) if granted == len(vm_ids) else []
        if not riders:
            return await self._sent(call, vm_ids[:granted])
        return await self._together(call, vm_ids, riders, until_s)

    async def _admit(self, vm_ids: Sequence[str], until_s: float) -> int:
        left_s = max(until_s - self._clock.now(), 0.0)
        return await self._budget.admit(self._action, len(vm_ids), self._priority, left_s)

    async def _by_itself(self, call: Call, vm_ids: Sequence[str], until_s: float) -> Sent:
        return await self._sent(call, vm_ids[: await self._admit(vm_ids, until_s)])

    async def _sent(self, call: Call, vm_ids: Sequence[str]) -> Sent:
        if not vm_ids:
            return (), ()
        outcomes = await call(vm_ids)
        tell_budget(self._budget, self._action, outcomes, len(vm_ids))
        return vm_ids, outcomes

    def _taken_along(self, vms: int) -> list[_WaitingRequest]:
        """The waiting requests whose VMs fit into a call that already names `vms` VMs."""
        if self._clock.now() < self._alone_until_s:
            return []
        found = []
        for rider in sorted(self._waiting, key=lambda each: -len(each.vm_ids)):
            more = len(rider.vm_ids)
            if rider.turn.done() or vms + more > MOST_VMS or not self._budget.more(self._action, more):
                continue
            vms += more
            rider.aboard = True
            rider.turn.cancel()
            self._waiting.remove(rider)
            found.append(rider)
        return found

    async def _together(
        self, call: Call, vm_ids: Sequence[str], riders: Sequence[_WaitingRequest], until_s: float
    ) -> Sent:
        everybody = [*vm_ids, *(vm_id for rider in riders for vm_id in rider.vm_ids)]
        said: tuple[Outcome, ...] | BaseException = TimeoutError()
        try:
            _, said = await self._sent(call, everybody)
        except Exception as error:
            said = error
            raise
        finally:
            # If this call is abandoned, its outcome is unknown to the other requests, too.
            against = not isinstance(said, BaseException) and any(o.kind in _ABOUT_ONE for o in said)
            if against:
                self._alone_until_s = self._clock.now() + ALONE_S
            for rider in riders:
                if not rider.said.done():
                    rider.said.set_result(
                        said if isinstance(said, BaseException) else _part(said, rider.vm_ids)
                    )
        mine = _part(said, vm_ids)
        return await self._by_itself(call, vm_ids, until_s) if mine is None else (vm_ids, mine)


def tell_budget(budget: CallBudget, action: str, outcomes: Sequence[Outcome], vms: int) -> None:
    """Tell the budget whether the provider refused a call as a whole because of its own limits."""
    refused = bool(outcomes) and all(o.kind is OutcomeKind.THROTTLED and o.code for o in outcomes)
    budget.heard(action, refused=refused, vms=vms)


def _part(said: Sequence[Outcome], vm_ids: Sequence[str]) -> tuple[Outcome, ...] | None:
    """The outcomes of some VMs of a combined call; None if they must be requested separately."""
    own = set(vm_ids)
    part = tuple(outcome for outcome in said if outcome.vm_id in own)
    return None if any(outcome.kind in _ABOUT_ONE for outcome in part) else part
