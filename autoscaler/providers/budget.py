"""The API budget of one account and region, tracked on our side: who may call when, and for how many VMs.

Why: EC2 allows an account five start calls at once and two a second, whoever makes them. A burst of unrestrained calls
is refused as a whole, and callers that retry starve each other. So all calls of one account pass through here, within
token buckets of EC2's published sizes less a margin; calls that must wait do so by priority. Other programs spend from
the same buckets unseen: if EC2 throttles a call all the same, the estimate of that bucket is cut at once and recovers
slowly.

Rules of this file: bucket arithmetic is pure, with time as an argument; waiting is on the Clock and bounded. A throttled
call did nothing, and is repeated within its time; no other call is.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from enum import IntEnum

from autoscaler.cloud.buckets import PUBLISHED, Limit, Limits
from autoscaler.ports import Clock
from autoscaler.ports.budget import BucketState

MARGIN_SIZE, MARGIN_REFILL = 0.99, 0.95
"""Of the published sizes and refills, what we spend at most."""
CUT, LOWEST = 0.5, 1 / 32
"""What a refused call leaves of the refill that is believed in, and the least that is."""
RECOVERY_PER_S = 1 / 120
"""Share of the whole refill that is believed in again, per second without a refusal."""
SHORTEST_S = 1e-3
"""Nobody waits for less."""
FEW_S = 2.0
"""A call for VMs beyond the budget waits until it can be for what flows back in so long, rather than for each VM."""


class Priority(IntEnum):
    """Who goes first where calls wait for the same bucket."""

    DEMAND = 0
    STOP = 1
    DESCRIBE = 2
    REFILL = 3
    TAG = 4


@dataclass(slots=True)
class Bucket:
    """What is believed of one token bucket of the provider.

    Attributes:
        limit: As published.
        at_s: Time of `tokens`.
        tokens: Left at that time.
        trust: Of the refill, the share that is believed to be ours.
    """

    limit: Limit
    at_s: float
    tokens: float = field(init=False)
    trust: float = 1.0

    def __post_init__(self) -> None:
        self.tokens = self.size

    @property
    def size(self) -> float:
        """Tokens of a full bucket; at least one, or nothing could ever be taken."""
        return max(MARGIN_SIZE * self.limit.size, 1.0)

    @property
    def refill_per_s(self) -> float:
        """Tokens that come back per second, as believed now."""
        return MARGIN_REFILL * self.limit.refill_per_s * self.trust

    def left(self, now_s: float) -> float:
        """Tokens left now."""
        elapsed_s = max(now_s - self.at_s, 0.0)
        self.tokens = min(self.size, self.tokens + elapsed_s * self.refill_per_s)
        self.trust = min(1.0, self.trust + elapsed_s * RECOVERY_PER_S)
        self.at_s = max(self.at_s, now_s)
        return self.tokens

    def wait_s(self, count: float, now_s: float) -> float:
        """Seconds until so many tokens are there, at the refill believed in now; never for more than it holds."""
        lacking = min(count, self.size) - self.left(now_s)
        # Sums of fractions must still give the whole tokens that a person computes.
        return 0.0 if lacking <= 1e-9 else lacking / self.refill_per_s

    def take(self, count: float, now_s: float) -> None:
        """Spend tokens; below zero where more was spent than believed to be there."""
        self.tokens = self.left(now_s) - count

    def refused(self, now_s: float, at_most: float) -> None:
        """The provider had less than was asked for, since others spend too: so much is left at most."""
        self.tokens = min(self.left(now_s), at_most)
        self.trust = max(CUT * self.trust, LOWEST)


@dataclass(slots=True, eq=False)
class _Waiter:
    priority: Priority
    vms: int
    number: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Worth first, then what brings most at once, then who came first."""
        return self.priority, -self.vms, self.number


class _Queue:
    """Those who wait for one bucket of requests, and a bell that tells them that something has changed."""

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.changed = asyncio.Event()

    def ring(self) -> None:
        """Let everybody look again."""
        self.changed.set()
        self.changed = asyncio.Event()


class CallBudget:
    """The buckets of one account and region.

    Args:
        clock: Time.
        limits: As published.
    """

    def __init__(self, clock: Clock, limits: Limits = PUBLISHED) -> None:
        self._clock = clock
        self._limits = limits
        self._requests: dict[str, Bucket] = {}
        self._vms: dict[str, Bucket] = {}
        self._queues: dict[str, _Queue] = {}
        self._numbers = 0
        self.refusals = 0
        """Calls that the provider refused for the budget all the same."""

    async def admit(
        self, action: str, vms: int, priority: Priority, wait_s: float, *, whole: bool = False
    ) -> int:
        """Wait for room for one call; for how many of its VMs there is, 0 where there was none in time.

        Args:
            action: EC2's name of the call.
            vms: VMs that it would name, or make; at least 1.
            priority: Where it stands among those who wait.
            wait_s: Longest wait, in seconds of the Clock.
            whole: Whether the call cannot be made for a part of its VMs.
        """
        if (granted := self.admit_now(action, vms, whole=whole)) is not None:
            return granted
        queue = self._queue(action)
        until_s = self._clock.now() + wait_s
        self._numbers += 1
        me = _Waiter(priority, vms, self._numbers)
        queue.waiters.append(me)
        queue.waiters.sort(key=lambda waiter: waiter.rank)
        try:
            while True:
                now_s = self._clock.now()
                first = queue.waiters[0] is me
                wait_s = self._wait_s(action, vms, now_s, whole=whole) if first else math.inf
                if wait_s <= 0.0:
                    return self._spent_now(action, vms, whole=whole)
                if now_s >= until_s:
                    return 0
                # Epoch seconds as floats tell apart a quarter of a microsecond: waiting for less would not end.
                await self._until(min(now_s + max(wait_s, SHORTEST_S), until_s), queue)
        finally:
            queue.waiters.remove(me)
            queue.ring()

    def admit_now(self, action: str, vms: int, *, whole: bool = False) -> int | None:
        """As `admit`, if nobody has to wait; otherwise None."""
        if self._queue(action).waiters or self._wait_s(action, vms, self._clock.now(), whole=whole) > 0.0:
            return None
        return self._spent_now(action, vms, whole=whole)

    def more(self, action: str, vms: int) -> bool:
        """Whether an admitted call may name this many more VMs; if so, they are counted."""
        now_s, bucket = self._clock.now(), self._vm_bucket(action)
        if bucket is not None and bucket.left(now_s) < vms:
            return False
        if bucket is not None:
            bucket.take(float(vms), now_s)
        return True

    def heard(self, action: str, *, refused: bool, vms: int = 0) -> None:
        """What the provider said to a call that was admitted.

        Args:
            action: EC2's name of the call.
            refused: Whether it was refused for the budget.
            vms: VMs that it named.
        """
        if not refused:
            return
        now_s = self._clock.now()
        self.refusals += 1
        requests, bucket = self._request_bucket(action), self._vm_bucket(action)
        calls_left = requests.left(now_s) + 1.0
        # EC2 does not say which bucket was empty: the one that had less to spare, before this call, is suspected.
        spare = math.inf if bucket is None or not vms else (bucket.left(now_s) + vms) / vms
        if calls_left <= spare or bucket is None:
            requests.refused(now_s, 0.0)
        if bucket is None:
            return
        # What was refused was not spent.
        bucket.take(float(-vms), now_s)
        if spare <= calls_left:
            bucket.refused(now_s, CUT * vms if vms > 1 else 0.0)

    def spent(self, action: str, calls: int) -> None:
        """So many calls were made beside those that were admitted: the further pages of a listing."""
        if calls:
            self._request_bucket(action).take(calls, self._clock.now())

    def state(self) -> tuple[BucketState, ...]:
        """What is left in every bucket that has been used, by name."""
        now_s = self._clock.now()
        named = [(f"{name} calls", bucket) for name, bucket in self._requests.items()]
        named += [(f"{name} VMs", bucket) for name, bucket in self._vms.items()]
        return tuple(
            BucketState(name, bucket.left(now_s), bucket.refill_per_s) for name, bucket in sorted(named)
        )

    def burst_s(self, vms: int, calls: int = 1) -> float:
        """Seconds until the last of so many starts could be ordered, begun now and in so many calls."""
        now_s = self._clock.now()
        waits = [self._bucket_wait_s(self._request_bucket("StartInstances"), calls, now_s)]
        bucket = self._vm_bucket("StartInstances")
        if bucket is not None:
            waits.append(self._bucket_wait_s(bucket, vms, now_s))
        return max(waits)

    @staticmethod
    def _bucket_wait_s(bucket: Bucket, count: int, now_s: float) -> float:
        return max(count - bucket.left(now_s), 0.0) / bucket.refill_per_s

    # ── buckets ────────────────────────────────────────────────────────────────────────────────────────

    def _wait_s(self, action: str, vms: int, now_s: float, *, whole: bool) -> float:
        """Seconds until a call can be made, unless `whole` perhaps for a part of its VMs."""
        wait_s = self._request_bucket(action).wait_s(1.0, now_s)
        bucket = self._vm_bucket(action)
        if bucket is None:
            return wait_s
        few = math.inf if whole else max(1.0, math.ceil(FEW_S * bucket.refill_per_s))
        return max(wait_s, bucket.wait_s(min(float(vms), few), now_s))

    def _spent_now(self, action: str, vms: int, *, whole: bool) -> int:
        """Count a call as made; for how many of its VMs."""
        now_s, bucket = self._clock.now(), self._vm_bucket(action)
        self._request_bucket(action).take(1.0, now_s)
        if bucket is None:
            return vms
        granted = vms if whole else min(vms, math.floor(bucket.left(now_s) + 1e-9))
        bucket.take(float(granted), now_s)
        return granted

    def _name(self, action: str) -> str:
        if action in self._limits.requests:
            return action
        return "describes" if action.startswith(("Describe", "Get")) else "other changes"

    def _request_bucket(self, action: str) -> Bucket:
        name = self._name(action)
        bucket = self._requests.get(name)
        if bucket is None:
            other = self._limits.other_reads if name == "describes" else self._limits.other_changes
            limit = self._limits.requests.get(action, other)
            bucket = self._requests[name] = Bucket(limit, self._clock.now())
        return bucket

    def _vm_bucket(self, action: str) -> Bucket | None:
        limit = self._limits.vms.get(action)
        if limit is None:
            return None
        bucket = self._vms.get(action)
        if bucket is None:
            bucket = self._vms[action] = Bucket(limit, self._clock.now())
        return bucket

    def _queue(self, action: str) -> _Queue:
        return self._queues.setdefault(self._name(action), _Queue())

    async def _until(self, at_s: float, queue: _Queue) -> None:
        """Return at a time of the Clock, or when somebody else has left the queue."""
        sleep = asyncio.ensure_future(
            self._clock.sleep_until(self._clock.monotonic() + max(at_s - self._clock.now(), 0.0))
        )
        bell = asyncio.ensure_future(queue.changed.wait())
        try:
            await asyncio.wait({sleep, bell}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            bell.cancel()
