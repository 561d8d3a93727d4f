"""A provider whose calls all go through the API budget: one caller per account and region.

Rules of this file: a call that the budget does not admit in time is not made, and its outcome is BUDGET_SPENT. A call for
more VMs than the budget admits is made for those that fit; the others get BUDGET_SPENT, and the caller may request them
again at once. Starts and stops that wait are combined, and a provision that waits is not sent if another just found no room
there (`call_combining`). A call that the provider throttled did nothing, and is repeated here, with full jitter, until its time is
over; nothing else is repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import numpy as np
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential

from autoscaler.at_once import answers_at_once
from autoscaler.errors import InvariantError
from autoscaler.ports import (
    BUDGET_SPENT,
    Clock,
    LaunchSpec,
    Listing,
    Outcome,
    OutcomeKind,
    Provider,
    ProvisionSpec,
    TemplateReader,
    UnreadableTemplate,
)
from autoscaler.providers.budget import CallBudget, Priority
from autoscaler.providers.call_combining import Call, CallCombiner, Place, Sent, tell_budget
from autoscaler.providers.ec2.classify import says_throttled
from autoscaler.providers.vm_places import VmPlaces

WAIT_S = 9.0
"""Longest time for one call, including waits and retries, in seconds of the Clock: it must end before the next tick."""
LISTING_WAIT_S = 2.0
"""Longest wait of a read, in seconds of the Clock; shorter, because the tick waits for it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0
_PAGE_VMS, _CHECKED_VMS = 1000, 100


class BudgetedProvider:
    """Makes another provider's calls within an API budget; implements the Provider port.

    Args:
        provider: The provider that makes the calls. Closed together with this one.
        budget: The API budget of the provider's account and region.
        clock: Clock to wait on.
        seed: Seed of the jitter between retries.
    """

    def __init__(
        self, provider: Provider, budget: CallBudget, clock: Clock, *, seed: int | None = None
    ) -> None:
        self._provider = provider
        self.budget = budget
        self._clock = clock
        self._demand = Priority.DEMAND
        self._riding: dict[tuple[object, ...], CallCombiner] = {}
        self._places = VmPlaces()
        self._random = np.random.default_rng(seed)
        self.answers_at_once = answers_at_once(provider)

    def for_refills(self) -> BudgetedProvider:
        """Return this provider for orders that can wait: its provisions and starts come after all orders for demand."""
        other = BudgetedProvider(self._provider, self.budget, self._clock)
        other._demand = Priority.REFILL
        # A provider of its own for each order must not mean a queue of its own.
        other._riding, other._places = self._riding, self._places
        return other

    async def list_vms(self) -> Listing:
        """See `Provider.list_vms`; the listing is empty and incomplete if the budget has no room for it."""
        asked_s = self._clock.now()
        if not await self.budget.admit("DescribeInstances", 1, Priority.DESCRIBE, LISTING_WAIT_S):
            text = f"the API budget left no room for a listing within {LISTING_WAIT_S:g} s"
            return Listing(
                (), complete=False, requested_at_s=asked_s, received_at_s=self._clock.now(), error=text
            )
        listing = await self._provider.list_vms()
        self.budget.heard("DescribeInstances", refused=says_throttled(listing.error))
        self.budget.spent("DescribeInstances", len(listing.vms) // _PAGE_VMS)
        self._places.listed(listing)
        return listing

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """See `Provider.checked`; empty if the budget has no room for it."""
        if not await self.budget.admit("DescribeInstanceStatus", 1, Priority.DESCRIBE, LISTING_WAIT_S):
            return frozenset()
        self.budget.spent("DescribeInstanceStatus", max(len(vm_ids) - 1, 0) // _CHECKED_VMS)
        return await self._provider.checked(vm_ids)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """See `Provider.start`."""
        return await self._together(
            "StartInstances", self._demand, self._provider.start, vm_ids, self._places.place_of(vm_ids)
        )

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """See `Provider.stop`."""
        call: Call = self._provider.stop
        if force or hibernate:
            call = partial(self._provider.stop, force=force, hibernate=hibernate)
        # Stops need no room anywhere, so they are combined as if all VMs were in one place.
        return await self._together(
            "StopInstances", Priority.STOP, call, vm_ids, ("", ""), force=force, hibernate=hibernate
        )

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """See `Provider.terminate`."""
        return await self._alone("TerminateInstances", Priority.STOP, self._provider.terminate, vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """See `Provider.tag`."""
        call = partial(self._provider.tag, tags=tags)
        return await self._alone("CreateTags", Priority.TAG, call, vm_ids)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """See `Provider.retype`."""
        call = partial(self._provider.retype, vm_type=vm_type)
        outcomes: list[Outcome] = []
        for vm_id in vm_ids:
            outcomes += await self._alone("ModifyInstanceAttribute", self._demand, call, [vm_id])
            if outcomes[-1].kind is OutcomeKind.ACCEPTED:
                self._places.retyped(vm_id, vm_type)
        return tuple(outcomes)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """See `Provider.provision`. The call is never split, so a count beyond the account's budget never fits.

        Raises:
            InvariantError: The count is less than 1.
        """
        if count < 1:
            raise InvariantError(f"provision needs a count of 1 or more, got {count}")

        async def call(_: Sequence[str]) -> tuple[Outcome, ...]:
            return await self._provider.provision(spec, count, token)

        return await self._together("RunInstances", self._demand, call, ("",), spec.place, vms=count)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate | None:
        """See `TemplateReader.launch_spec`; `UnreadableTemplate` if the budget has no room for it."""
        provider = self._provider
        if not isinstance(provider, TemplateReader):
            return None
        action = "DescribeLaunchTemplateVersions"
        if not await self.budget.admit(action, 1, Priority.DESCRIBE, LISTING_WAIT_S):
            return UnreadableTemplate("the account's budget of API calls has had no room for it")
        return await provider.launch_spec(spec)

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._provider.close()

    async def _together(
        self,
        action: str,
        priority: Priority,
        call: Call,
        vm_ids: Sequence[str],
        place: Place | None,
        *,
        vms: int | None = None,
        **how: bool,
    ) -> tuple[Outcome, ...]:
        """Make a call in the queue in which calls of this action, priority and options wait, and may be combined."""
        key: tuple[str | int, ...] = (action, priority, *(name for name, given in how.items() if given))
        if key not in self._riding:
            self._riding[key] = CallCombiner(
                action, priority, self.budget, self._clock, whole=vms is not None
            )
        queue = self._riding[key]
        return await self._within(
            action, vm_ids, lambda until_s: queue.send(call, vm_ids, until_s, place, vms)
        )

    async def _alone(
        self, action: str, priority: Priority, call: Call, vm_ids: Sequence[str]
    ) -> tuple[Outcome, ...]:
        """Make a call of an action whose calls are never combined."""

        async def send(until_s: float) -> Sent:
            left_s = max(until_s - self._clock.now(), 0.0)
            sent = vm_ids[: await self.budget.admit(action, len(vm_ids), priority, left_s)]
            outcomes = await call(sent) if sent else ()
            tell_budget(self.budget, action, outcomes, len(sent))
            return sent, outcomes

        return await self._within(action, vm_ids, send)

    async def _within(
        self, action: str, vm_ids: Sequence[str], send: Callable[[float], Awaitable[Sent]]
    ) -> tuple[Outcome, ...]:
        """Make a call once the budget admits it, and repeat it while it is throttled, for at most WAIT_S."""
        if not vm_ids:
            return ()
        until_s = self._clock.now() + WAIT_S

        async def attempt() -> tuple[Outcome, ...]:
            sent, outcomes = await send(until_s)
            rest = [vm_id for vm_id in vm_ids if vm_id not in set(sent)]
            return (*outcomes, *(_left_out(vm_id, action) for vm_id in rest))

        def too_late(state: RetryCallState) -> bool:
            return self._clock.now() + state.upcoming_sleep >= until_s

        async def pause(seconds: float) -> None:
            # Full jitter: calls that were refused together must not return together.
            await self._clock.sleep_until(self._clock.monotonic() + seconds * self._random.random())

        retrying = AsyncRetrying(
            sleep=pause,
            stop=too_late,
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_result(_refused_as_a_whole),
            retry_error_callback=_last_result,
        )
        result: tuple[Outcome, ...] = await retrying(attempt)
        return result


def _refused_as_a_whole(outcomes: tuple[Outcome, ...]) -> bool:
    """Whether the provider throttled the whole call, so that nothing was done."""
    return any(o.code != BUDGET_SPENT for o in outcomes) and all(
        o.kind is OutcomeKind.THROTTLED for o in outcomes
    )


def _last_result(state: RetryCallState) -> tuple[Outcome, ...]:
    assert state.outcome is not None
    result: tuple[Outcome, ...] = state.outcome.result()
    return result


def _left_out(vm_id: str, action: str) -> Outcome:
    return Outcome(
        vm_id, OutcomeKind.THROTTLED, BUDGET_SPENT, f"our share of the budget for {action} is spent"
    )
