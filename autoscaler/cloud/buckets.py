"""The API budget of an account in one region: token buckets for calls, and for the VMs that calls name.

Rules: time is an argument. A bucket never goes below zero and never above its size. The sizes are EC2's published
ones. There is one bucket per action, shared by all callers. What an empty bucket means is up to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limit:
    """Size and refill of a token bucket.

    Attributes:
        size: Tokens in a full bucket.
        refill_per_s: Tokens that come back per second.
    """

    size: float
    refill_per_s: float


@dataclass(slots=True)
class TokenBucket:
    """A token bucket, which starts full."""

    limit: Limit
    updated_at_s: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.limit.size

    def take(self, count: float, now_s: float) -> bool:
        """Take all `count` tokens or none, and return whether they were taken."""
        self._refill(now_s)
        # Rounding over a thousand refills must not leave a whole token just out of reach.
        if self.tokens + 1e-9 < count:
            return False
        self.tokens = max(0.0, self.tokens - count)
        return True

    def _refill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self.updated_at_s)
        self.tokens = min(self.limit.size, self.tokens + elapsed_s * self.limit.refill_per_s)
        self.updated_at_s = max(self.updated_at_s, now_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """All API limits of an account in one region.

    Attributes:
        requests: Limits of calls, by action. Other actions fall under `other_reads` or `other_changes`.
        vms: Limits of the VMs that accepted calls name, by action.
        plain_listing: Limit of describes without filters, ids or paging.
        other_reads: Limit of any other describe.
        other_changes: Limit of any other change.
    """

    requests: Mapping[str, Limit]
    vms: Mapping[str, Limit]
    plain_listing: Limit
    other_reads: Limit
    other_changes: Limit


PUBLISHED = Limits(
    requests={
        "StartInstances": Limit(5, 2),
        "RunInstances": Limit(5, 2),
        "TerminateInstances": Limit(100, 5),
        "CreateTags": Limit(100, 10),
        "DeleteTags": Limit(100, 10),
    },
    vms={
        "StartInstances": Limit(1000, 2),
        "RunInstances": Limit(1000, 2),
        "StopInstances": Limit(1000, 20),
        "TerminateInstances": Limit(1000, 20),
    },
    plain_listing=Limit(50, 10),
    other_reads=Limit(100, 20),
    other_changes=Limit(50, 5),
)
"""EC2's published defaults."""


class ApiBudget:
    """The token buckets of one account. Without limits, every call is allowed."""

    def __init__(self, limits: Limits | None, start_s: float) -> None:
        self._limits = limits
        self._start_s = start_s
        self._requests: dict[tuple[str, bool], TokenBucket] = {}
        self._vms: dict[str, TokenBucket] = {}

    def take_request(self, action: str, now_s: float, *, plain: bool = False) -> bool:
        """Spend one call of `action`, and return whether the budget allowed it.

        `plain` marks a describe without filters, ids and paging.
        """
        if self._limits is None:
            return True
        bucket = self._requests.get((action, plain))
        if bucket is None:
            bucket = TokenBucket(self._request_limit(self._limits, action, plain=plain), self._start_s)
            self._requests[action, plain] = bucket
        return bucket.take(1, now_s)

    def take_vms(self, action: str, count: int, now_s: float) -> bool:
        """Spend tokens for `count` VMs of `action`, all or none, and return whether the budget allowed it."""
        if self._limits is None or action not in self._limits.vms:
            return True
        bucket = self._vms.get(action)
        if bucket is None:
            bucket = self._vms[action] = TokenBucket(self._limits.vms[action], self._start_s)
        return bucket.take(count, now_s)

    @staticmethod
    def _request_limit(limits: Limits, action: str, *, plain: bool) -> Limit:
        if action in limits.requests:
            return limits.requests[action]
        if plain:
            return limits.plain_listing
        return limits.other_reads if action.startswith(("Describe", "Get")) else limits.other_changes
