"""The API budget of one account and region, tracked on our side: who may call when, and for how many VMs.

Why: EC2 allows an account five start calls at once and two a second, from all programs together. A burst of unrestrained
calls is refused as a whole, and callers that retry starve each other. So all calls of one account pass through here, within
token buckets of EC2's published sizes less a margin; calls that must wait do so by priority. Other programs spend from
the same buckets unseen: if EC2 throttles a call all the same, the estimate of that bucket is cut at once and recovers
slowly.

Buckets start full, also after a restart, and are not kept: EC2's own buckets of calls are full again before the service manager
restarts a daemon that crashed (10 s: five calls come back in 3 s, fifty in 10 s), so one that crashes again and again is not
throttled. Those of VMs take 500 s, which matters only if nearly a thousand VMs were started shortly before. Played with 900 VMs
started, a restart and 400 more, EC2 refuses 2 to 15 calls, which do nothing, and the last VM is ordered after 113 to 193 s
instead of 123 s. A record that is out of date, because other programs spent or did not, would cost as much.

Rules of this file: bucket arithmetic is pure, with time as an argument; waiting is on the Clock and bounded. A throttled
call did nothing and may be repeated within its time; no other call is repeated.
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
"""Largest share of the published size and refill that we spend."""
CUT, LOWEST = 0.5, 1 / 32
"""Factor applied to a bucket's `trust` when a call is refused, and the lowest value that `trust` can reach."""
RECOVERY_PER_S = 1 / 120
"""How much `trust` recovers per second without a refusal."""
SHORTEST_S = 1e-3
"""Shortest sleep of a waiting call, in seconds."""
FEW_S = 2.0
"""A call for more VMs than the budget allows waits until it can name as many VMs as are refilled in this time, in seconds.
Without this, it would be made again for every single VM."""

SOON_S = 2.0
"""Time in which starts that wait for the budget should all have been requested, in seconds."""


class Priority(IntEnum):
    """Order in which calls that wait for the same bucket are admitted; lower values first."""

    DEMAND = 0
    STOP = 1
    DESCRIBE = 2
    REFILL = 3
    TAG = 4


@dataclass(slots=True)
class Bucket:
    """Our estimate of one of the provider's token buckets.

    Attributes:
        limit: The published size and refill.
        at_s: Time at which `tokens` was computed.
        tokens: Tokens left at that time; negative if more was spent than the estimate held.
        trust: Share of the refill that we expect to get, from LOWEST to 1. Other programs use the rest.
    """

    limit: Limit
    at_s: float
    tokens: float = field(init=False)
    trust: float = 1.0

    def __post_init__(self) -> None:
        self.tokens = self.size

    @property
    def size(self) -> float:
        """Tokens in a full bucket, less our margin; at least one, so that a call can be admitted at all."""
        return max(MARGIN_SIZE * self.limit.size, 1.0)

    @property
    def refill_per_s(self) -> float:
        """Tokens that we currently expect to come back per second."""
        return MARGIN_REFILL * self.limit.refill_per_s * self.trust

    def refill_now_per_s(self, now_s: float) -> float:
        """Advance the estimate to the given time and return the refill expected then."""
        self.left(now_s)
        return self.refill_per_s

    def left(self, now_s: float) -> float:
        """Advance the estimate to the given time and return the tokens left."""
        elapsed_s = max(now_s - self.at_s, 0.0)
        self.tokens = min(self.size, self.tokens + elapsed_s * self.refill_per_s)
        self.trust = min(1.0, self.trust + elapsed_s * RECOVERY_PER_S)
        # If the clock was set back, tokens come back from now on, not only once it is as late again.
        self.at_s = now_s
        return self.tokens

    def wait_s(self, count: float, now_s: float) -> float:
        """Seconds until the bucket holds `count` tokens, or is full, at the refill expected now."""
        lacking = min(count, self.size) - self.left(now_s)
        # Rounding must not leave a whole token just out of reach.
        return 0.0 if lacking <= 1e-9 else lacking / self.refill_per_s

    def take(self, count: float, now_s: float) -> None:
        """Spend tokens. The balance may become negative."""
        self.tokens = self.left(now_s) - count

    def refused(self, now_s: float, at_most: float) -> None:
        """Lower the estimate after a refusal: at most `at_most` tokens are left, and others spend from this bucket too."""
        self.tokens = min(self.left(now_s), at_most)
        self.trust = max(CUT * self.trust, LOWEST)


@dataclass(slots=True, eq=False)
class _Waiter:
    priority: Priority
    vms: int
    number: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sort key: by priority, then the call with most VMs, then the earliest."""
        return self.priority, -self.vms, self.number


class _Queue:
    """The calls that wait for one bucket of requests, and an event that wakes them all."""

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.changed = asyncio.Event()

    def ring(self) -> None:
        """Wake all waiting calls, so that they check again whether it is their turn."""
        self.changed.set()
        self.changed = asyncio.Event()


class CallBudget:
    """Admits API calls within the token buckets of one account and region.

    Args:
        clock: Clock to wait on.
        limits: The published bucket sizes and refills.
    """

    def __init__(self, clock: Clock, limits: Limits = PUBLISHED) -> None:
        self._clock = clock
        self._limits = limits
        self._requests: dict[str, Bucket] = {}
        self._vms: dict[str, Bucket] = {}
        self._queues: dict[str, _Queue] = {}
        self._numbers = 0
        self.refusals = 0
        """Number of admitted calls that the provider throttled."""

    async def admit(
        self, action: str, vms: int, priority: Priority, wait_s: float, *, whole: bool = False
    ) -> int:
        """Wait until one call fits the budget, and count it as made.

        Args:
            action: EC2's name of the call.
            vms: Number of VMs that the call would name or create; at least 1.
            priority: Priority among the waiting calls.
            wait_s: Longest wait, in seconds of the Clock.
            whole: Whether the call must be made for all of its VMs or not at all.

        Returns:
            For how many of its VMs the call may be made; 0 if there was no room in time.
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
                # Epoch seconds as floats have a resolution of a quarter of a microsecond: a shorter wait would never end.
                await self._until(min(now_s + max(wait_s, SHORTEST_S), until_s), queue)
        finally:
            queue.waiters.remove(me)
            queue.ring()

    def admit_now(self, action: str, vms: int, *, whole: bool = False) -> int | None:
        """Admit a call like `admit` if it need not wait; otherwise return None."""
        if self._queue(action).waiters or self._wait_s(action, vms, self._clock.now(), whole=whole) > 0.0:
            return None
        return self._spent_now(action, vms, whole=whole)

    def more(self, action: str, vms: int) -> bool:
        """Return whether an already admitted call may name `vms` more VMs; if so, count them."""
        now_s, bucket = self._clock.now(), self._vm_bucket(action)
        if bucket is not None and bucket.left(now_s) < vms:
            return False
        if bucket is not None:
            bucket.take(float(vms), now_s)
        return True

    def calls_soon(self, action: str) -> int:
        """Return how many whole calls the budget gains in `SOON_S` at the refill expected now; at least 1.

        After a refusal the refill is expected to be half as fast, and then few calls matter more than small ones.
        """
        return max(1, math.floor(SOON_S * self._request_bucket(action).refill_now_per_s(self._clock.now())))

    def heard(self, action: str, *, refused: bool, vms: int = 0) -> None:
        """Update the buckets with the provider's answer to an admitted call.

        Args:
            action: EC2's name of the call.
            refused: Whether the provider throttled the call.
            vms: Number of VMs that the call named.
        """
        if not refused:
            return
        now_s = self._clock.now()
        self.refusals += 1
        requests, bucket = self._request_bucket(action), self._vm_bucket(action)
        calls_left = requests.left(now_s) + 1.0
        # EC2 does not say which bucket was empty. Assume the one that could have afforded fewer such calls.
        spare = math.inf if bucket is None or not vms else (bucket.left(now_s) + vms) / vms
        if calls_left <= spare or bucket is None:
            requests.refused(now_s, 0.0)
        if bucket is None:
            return
        # A refused call spent nothing.
        bucket.take(float(-vms), now_s)
        if spare <= calls_left:
            bucket.refused(now_s, CUT * vms if vms > 1 else 0.0)

    def spent(self, action: str, calls: int) -> None:
        """Count calls that were made without being admitted, such as the further pages of a listing."""
        if calls:
            self._request_bucket(action).take(calls, self._clock.now())

    def state(self) -> tuple[BucketState, ...]:
        """The state of every bucket that has been used, sorted by name."""
        now_s = self._clock.now()
        named = [(f"{name} calls", bucket) for name, bucket in self._requests.items()]
        named += [(f"{name} VMs", bucket) for name, bucket in self._vms.items()]
        return tuple(
            BucketState(name, bucket.left(now_s), bucket.refill_per_s) for name, bucket in sorted(named)
        )

    def burst_s(self, vms: int, calls: int = 1) -> float:
        """Seconds until the last of `vms` starts could be ordered, if they were requested now in `calls` calls."""
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
        """Seconds until the call can be made. Unless `whole`, it may then be for only some of its VMs."""
        wait_s = self._request_bucket(action).wait_s(1.0, now_s)
        bucket = self._vm_bucket(action)
        if bucket is None:
            return wait_s
        few = math.inf if whole else max(1.0, math.ceil(FEW_S * bucket.refill_per_s))
        return max(wait_s, bucket.wait_s(min(float(vms), few), now_s))

    def _spent_now(self, action: str, vms: int, *, whole: bool) -> int:
        """Count a call as made, and return for how many of its VMs."""
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
        """Sleep until a time of the Clock, or until the queue is woken."""
        sleep = asyncio.ensure_future(
            self._clock.sleep_until(self._clock.monotonic() + max(at_s - self._clock.now(), 0.0))
        )
        bell = asyncio.ensure_future(queue.changed.wait())
        try:
            await asyncio.wait({sleep, bell}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            bell.cancel()
