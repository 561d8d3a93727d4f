"""A read-only view of the API budget: what is left, and how long a burst of orders would take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoscaler.ports.provider import name_of


@dataclass(frozen=True, slots=True)
class BucketState:
    """What is believed of one token bucket of the provider.

    Attributes:
        name: What it is for, for example `StartInstances VMs`.
        left: Tokens left.
        refill_per_s: Tokens that come back per second.
    """

    name: str
    left: float
    refill_per_s: float


@runtime_checkable
class Budget(Protocol):
    """The budget of one account and region."""

    refusals: int
    """Calls that the provider refused for the budget all the same."""

    def state(self) -> tuple[BucketState, ...]:
        """What is left in every bucket that has been used, by name."""
        ...

    def burst_s(self, vms: int, calls: int = 1) -> float:
        """Seconds until the last of so many starts could be ordered, begun now and in so many calls."""
        ...


def budget_of(provider: object) -> Budget | None:
    """The budget that a provider keeps; None where it keeps none."""
    found = getattr(provider, "budget", None)
    # Asking a protocol about None takes as long as the rest of a quiet tick's accounting.
    return found if found is not None and isinstance(found, Budget) else None


def budgets_among(providers: Iterable[object]) -> list[tuple[str, Budget]]:
    """Every budget that these providers keep, once, with the name of its provider."""
    found = {id(kept): (name_of(each), kept) for each in providers if (kept := budget_of(each)) is not None}
    return [*found.values()]
