"""Combines calls that wait for the API budget: the next call in turn includes the VMs of the others that wait.

Why: EC2 gives an account five starts at once and two a second, however many VMs each names. Three hundred fleets that open in the
same minute would order for seven minutes, one fleet and zone after the other, what fits into a dozen calls.

Rules of this file: a call that need not wait goes alone. What the provider says against a call that was for several is about
nobody in particular: each then asks for itself, and for a while nobody is taken along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from autoscaler.ports import Clock, Outcome, OutcomeKind
from autoscaler.providers.budget import CallBudget, Priority

MOST_VMS = 200
"""VMs of one call that others were taken along in, at most."""
ALONE_S = 20.0
"""After a call for several that the provider did not take, everybody goes alone for so long."""
_ABOUT_ONE = frozenset({OutcomeKind.REFUSED, OutcomeKind.NO_CAPACITY, OutcomeKind.DENIED})
"""What is said of a call because of one of its VMs, or of their place."""

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]
Sent: TypeAlias = tuple[Sequence[str], tuple[Outcome, ...]]
"""The VMs that a call was made for, and what was said of them."""


@dataclass(slots=True, eq=False)
class _Rider:
    """One who waits for the budget.

    Attributes:
        vm_ids: What for.
        turn: For how many of them there is room, once it is their own turn.
        said: What came of a call of somebody else that they were taken along in; None where they are to ask for themselves.
        aboard: Whether they were.
    """

    vm_ids: Sequence[str]
    turn: asyncio.Task[int]
    said: asyncio.Future[tuple[Outcome, ...] | BaseException | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    aboard: bool = False


class Riding:
    """Those who wait for one action of one account, with the same priority and in the same way.

    Args:
        action: EC2's name of it.
        priority: Among all who wait for the action.
        budget: Of the account.
        clock: Time.
    """

    def __init__(self, action: str, priority: Priority, budget: CallBudget, clock: Clock) -> None:
        self._action, self._priority = action, priority
        self._budget, self._clock = budget, clock
        self._waiting: list[_Rider] = []
        self._alone_until_s = float("-inf")

    async def send(self, call: Call, vm_ids: Sequence[str], until_s: float) -> Sent:
        """Make the call once there is room for it, perhaps together with others.

        Args:
            call: The provider's.
            vm_ids: At least one.
            until_s: When to give up waiting.
        """
        granted = self._budget.admit_now(self._action, len(vm_ids))
        if granted is None:
            me = _Rider(vm_ids, asyncio.create_task(self._admit(vm_ids, until_s)))
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
        refused = bool(outcomes) and all(o.kind is OutcomeKind.THROTTLED and o.code for o in outcomes)
        self._budget.heard(self._action, refused=refused, vms=len(vm_ids))
        return vm_ids, outcomes

    def _taken_along(self, vms: int) -> list[_Rider]:
        """Those who wait and for whose VMs there is room in a call for so many others."""
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
        self, call: Call, vm_ids: Sequence[str], riders: Sequence[_Rider], until_s: float
    ) -> Sent:
        everybody = [*vm_ids, *(vm_id for rider in riders for vm_id in rider.vm_ids)]
        said: tuple[Outcome, ...] | BaseException = TimeoutError()
        try:
            _, said = await self._sent(call, everybody)
        except Exception as error:
            said = error
            raise
        finally:
            # Where this one is given up, the others do not know either what became of it.
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


def _part(said: Sequence[Outcome], vm_ids: Sequence[str]) -> tuple[Outcome, ...] | None:
    """What was said of some VMs of a call for several; None where they are to be asked for by themselves."""
    own = set(vm_ids)
    part = tuple(outcome for outcome in said if outcome.vm_id in own)
    return None if any(outcome.kind in _ABOUT_ONE for outcome in part) else part
