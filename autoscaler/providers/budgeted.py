"""A provider whose calls all go through the API budget: one caller per account and region.

Rules of this file: a call that the budget does not admit in time is not made, and its outcome is BUDGET_SPENT. A call for
more VMs than the budget admits is made for those that fit; the others get BUDGET_SPENT, and the caller may request them
again at once. Starts and stops that wait are combined (`riding`). A call that the provider throttled did nothing, and is
repeated here, with full jitter, until its time is over; nothing else is repeated.
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
    Unread,
)
from autoscaler.providers.budget import CallBudget, Priority
from autoscaler.providers.ec2.classify import says_throttled
from autoscaler.providers.riding import Riding, tell_budget

WAIT_S = 9.0
"""Longest wait of one call for its turn and for another try, in seconds of the Clock: not into the next tick."""
LISTING_WAIT_S = 2.0
"""The same for reads, which a tick waits for."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0
_PAGE_VMS = 1000

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]


class BudgetedProvider:
    """The Provider port within a budget. Contract in `ports.Provider`.

    Args:
        provider: Makes the calls; closed with this one.
        budget: Of its account and region.
        clock: For waiting.
        seed: Of the jitter.
    """

    def __init__(
        self, provider: Provider, budget: CallBudget, clock: Clock, *, seed: int | None = None
    ) -> None:
        self._provider = provider
        self.budget = budget
        self._clock = clock
        self._demand = Priority.DEMAND
        self._riding: dict[tuple[str, ...], Riding] = {}
        self._random = np.random.default_rng(seed)
        self.answers_at_once = answers_at_once(provider)

    def for_refills(self) -> BudgetedProvider:
        """The same provider for what can wait: its provisions and starts come after everybody's demand."""
        other = BudgetedProvider(self._provider, self.budget, self._clock)
        other._demand = Priority.REFILL
        return other

    async def list_vms(self) -> Listing:
        """As in the Provider port; incomplete where the budget has no room for it."""
        asked_s = self._clock.now()
        if not await self.budget.admit("DescribeInstances", 1, Priority.DESCRIBE, LISTING_WAIT_S):
            text = f"the API budget left no room for a listing within {LISTING_WAIT_S:g} s"
            return Listing(
                (), complete=False, requested_at_s=asked_s, received_at_s=self._clock.now(), error=text
            )
        listing = await self._provider.list_vms()
        self.budget.heard("DescribeInstances", refused=says_throttled(listing.error))
        self.budget.spent("DescribeInstances", len(listing.vms) // _PAGE_VMS)
        return listing

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port; empty where the budget has no room for it."""
        if not await self.budget.admit("DescribeInstanceStatus", 1, Priority.DESCRIBE, LISTING_WAIT_S):
            return frozenset()
        return await self._provider.checked(vm_ids)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        together = self._together("StartInstances", self._demand)
        return await self._within(
            "StartInstances", self._demand, self._provider.start, vm_ids, together=together
        )

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        call: Call = self._provider.stop
        if force or hibernate:
            call = partial(self._provider.stop, force=force, hibernate=hibernate)
        together = self._together("StopInstances", Priority.STOP, force=force, hibernate=hibernate)
        return await self._within("StopInstances", Priority.STOP, call, vm_ids, together=together)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._within("TerminateInstances", Priority.STOP, self._provider.terminate, vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        call = partial(self._provider.tag, tags=tags)
        return await self._within("CreateTags", Priority.TAG, call, vm_ids)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        call = partial(self._provider.retype, vm_type=vm_type)
        outcomes: list[Outcome] = []
        for vm_id in vm_ids:
            outcomes += await self._within("ModifyInstanceAttribute", self._demand, call, [vm_id])
        return tuple(outcomes)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """As in the Provider port: all or none, so a count beyond the budget of the account never fits.

        Raises:
            InvariantError: There is nothing to make.
        """
        if count < 1:
            raise InvariantError(f"provision needs a count of 1 or more, got {count}")

        async def call(_: Sequence[str]) -> tuple[Outcome, ...]:
            return await self._provider.provision(spec, count, token)

        return await self._within("RunInstances", self._demand, call, ("",), vms=count)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | Unread | None:
        """As in the TemplateReader port; unread where the budget has no room for it."""
        provider = self._provider
        if not isinstance(provider, TemplateReader):
            return None
        action = "DescribeLaunchTemplateVersions"
        if not await self.budget.admit(action, 1, Priority.DESCRIBE, LISTING_WAIT_S):
            return Unread("the account's budget of API calls has had no room for it")
        return await provider.launch_spec(spec)

    async def close(self) -> None:
        """As in the Provider port."""
        await self._provider.close()

    def _together(self, action: str, priority: Priority, **how: bool) -> Riding:
        """The requests that wait for this action with the same options."""
        key = (action, *(name for name, given in how.items() if given))
        if key not in self._riding:
            self._riding[key] = Riding(action, priority, self.budget, self._clock)
        return self._riding[key]

    async def _within(
        self,
        action: str,
        priority: Priority,
        call: Call,
        vm_ids: Sequence[str],
        *,
        vms: int | None = None,
        together: Riding | None = None,
    ) -> tuple[Outcome, ...]:
        """Make a call once there is room for it, again where it was refused for the budget, within its time."""
        if not vm_ids:
            return ()
        until_s = self._clock.now() + WAIT_S

        async def attempt() -> tuple[Outcome, ...]:
            if together is not None:
                sent, outcomes = await together.send(call, vm_ids, until_s)
            else:
                asked = len(vm_ids) if vms is None else vms
                left_s = max(until_s - self._clock.now(), 0.0)
                granted = await self.budget.admit(action, asked, priority, left_s, whole=vms is not None)
                sent = vm_ids[:granted] if vms is None or not granted else vm_ids
                outcomes = await call(sent) if sent else ()
                tell_budget(self.budget, action, outcomes, asked if vms is not None else len(sent))
            rest = [vm_id for vm_id in vm_ids if vm_id not in set(sent)]
            return (*outcomes, *(_left_out(vm_id, action) for vm_id in rest))

        def over(state: RetryCallState) -> bool:
            return self._clock.now() + state.upcoming_sleep >= until_s

        async def pause(seconds: float) -> None:
            # Full jitter: those who were refused together do not come back together.
            await self._clock.sleep_until(self._clock.monotonic() + seconds * self._random.random())

        retrying = AsyncRetrying(
            sleep=pause,
            stop=over,
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_result(_refused_as_a_whole),
            retry_error_callback=_last_result,
        )
        result: tuple[Outcome, ...] = await retrying(attempt)
        return result


def _refused_as_a_whole(outcomes: tuple[Outcome, ...]) -> bool:
    """Whether nothing was done, since the provider's own budget was spent."""
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
