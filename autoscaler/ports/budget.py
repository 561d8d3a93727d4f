"""A read-only view of the API budget: what is left, and how long a burst of orders would take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoscaler.ports.provider import name_of


@dataclass(frozen=True, slots=True)
class BucketState:
    """The estimated state of one of the provider's token buckets.

    Attributes:
        name: What the bucket limits, for example `StartInstances VMs`.
        left: Tokens left.
        refill_per_s: Tokens added per second.
    """

    name: str
    left: float
    refill_per_s: float


@runtime_checkable
class Budget(Protocol):
    """The API budget of one account and region."""

    refusals: int
    """Number of calls that the provider throttled although this budget had allowed them."""

    def state(self) -> tuple[BucketState, ...]:
        """State of every bucket that has been used, sorted by name."""
        ...

    def burst_s(self, vms: int, calls: int = 1) -> float:
        """Seconds until the last of `vms` starts could be ordered, in `calls` calls, if ordering began now."""
        ...


def budget_of(provider: object) -> Budget | None:
    """The budget that a provider keeps, or None."""
    found = getattr(provider, "budget", None)
    # An isinstance check of None against a protocol takes as long as the rest of a quiet tick's accounting.
    return found if found is not None and isinstance(found, Budget) else None


def budgets_among(providers: Iterable[object]) -> list[tuple[str, Budget]]:
    """Every distinct budget that these providers keep, with the name of its provider."""
    found = {id(kept): (name_of(each), kept) for each in providers if (kept := budget_of(each)) is not None}
    return [*found.values()]
