"""The world's meter: what the provider would put on the bill.

Rules: a VM is billed from running until stopping begins (until stopped, when it hibernates), per second and at
least 60 s per start, also while that first minute still runs. Pending and stopping are free. Storage is billed
from provisioning to termination, and with it, where a VM may hibernate, the room that its memory takes there. A memory
that is held may have a price of its own, from when it is saved until its VM runs again. Seconds are not rounded. Time is
an argument; prices multiply at the end only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Row: TypeAlias = tuple[float, float, int, float, float]
"""Seconds billed as running, seconds provisioned, starts, seconds provisioned with room for the memory, seconds held."""

MINIMUM_BILLED_S = 60.0
"""Each start costs at least this long."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Money in one currency; the defaults cost nothing.

    Attributes:
        running_per_h: Per VM-hour billed as running.
        storage_per_h: Per VM-hour provisioned, whatever the state.
        per_start: Once for every start that reached running.
        memory_per_h: Per VM-hour provisioned of a VM that may hibernate: the room for its memory on its volume.
        held_per_h: Per VM-hour that a saved memory is held.
    """

    running_per_h: float = 0.0
    storage_per_h: float = 0.0
    per_start: float = 0.0
    memory_per_h: float = 0.0
    held_per_h: float = 0.0


@dataclass(frozen=True, slots=True)
class Bill:
    """What has been used up to a moment.

    Attributes:
        running_s: VM-seconds billed as running.
        storage_s: VM-seconds provisioned.
        starts: Starts and launches that reached running.
        money: All at the world's prices.
        memory_s: VM-seconds provisioned with room for the memory.
        held_s: VM-seconds that memories were held.
    """

    running_s: float
    storage_s: float
    starts: int
    money: float
    memory_s: float = 0.0
    held_s: float = 0.0


@dataclass(slots=True)
class Account:
    """The meter of one VM."""

    fleet: str
    provisioned_at_s: float
    billed_s: float = 0.0
    starts: int = 0
    running_since_s: float | None = None
    ended_at_s: float | None = None
    memory: bool = False
    kept_s: float = 0.0
    held_since_s: float | None = None

    def held_s(self, now_s: float) -> float:
        """VM-seconds that its memory was held up to now."""
        return self.kept_s + (0.0 if self.held_since_s is None else now_s - self.held_since_s)

    def running_s(self, now_s: float) -> float:
        """VM-seconds billed as running up to now."""
        if self.running_since_s is None:
            return self.billed_s
        return self.billed_s + max(MINIMUM_BILLED_S, now_s - self.running_since_s)

    def storage_s(self, now_s: float) -> float:
        """VM-seconds provisioned up to now."""
        return (now_s if self.ended_at_s is None else self.ended_at_s) - self.provisioned_at_s


class Meter:
    """Accounts of all VMs, by the world's VM number."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self._accounts: dict[int, Account] = {}
        self._closed: dict[str, list[float]] = {}

    def open(self, vm: int, fleet: str, now_s: float, *, memory: bool = False) -> None:
        """A VM was provisioned, with room for its memory where it may hibernate."""
        self._accounts[vm] = Account(fleet, now_s, memory=memory)

    def run(self, vm: int, now_s: float) -> None:
        """It reached running."""
        account = self._accounts[vm]
        account.running_since_s = now_s
        account.starts += 1

    def halt(self, vm: int, now_s: float) -> None:
        """It is not billed as running from now; nothing to do where it was not."""
        account = self._accounts[vm]
        account.billed_s = account.running_s(now_s)
        account.running_since_s = None

    def hold(self, vm: int, now_s: float) -> None:
        """Its memory is saved, and held from now."""
        self._accounts[vm].held_since_s = now_s

    def release(self, vm: int, now_s: float) -> None:
        """Its memory is not held any more; nothing to do where none was."""
        account = self._accounts[vm]
        account.kept_s = account.held_s(now_s)
        account.held_since_s = None

    def end(self, vm: int, now_s: float) -> None:
        """It is terminated: storage ends."""
        self.halt(vm, now_s)
        self.release(vm, now_s)
        self._accounts[vm].ended_at_s = now_s

    def move(self, vm: int, fleet: str) -> None:
        """It belongs to another fleet; all that it ever cost goes with it."""
        self._accounts[vm].fleet = fleet

    def forget(self, vm: int) -> None:
        """It left the listings; its cost stays with its fleet."""
        account = self._accounts.pop(vm)
        end_s = account.ended_at_s if account.ended_at_s is not None else account.provisioned_at_s
        closed = self._closed.setdefault(account.fleet, [0.0] * 5)
        closed[0] += account.billed_s
        closed[1] += account.storage_s(end_s)
        closed[2] += account.starts
        closed[3] += account.storage_s(end_s) if account.memory else 0.0
        closed[4] += account.held_s(end_s)

    def bills(self, now_s: float) -> dict[str, Bill]:
        """The bill of every fleet that ever owned a VM, by name in order.

        The empty name stands for VMs without the ownership tag.
        """
        rows = {fleet: [_closed_row(closed)] for fleet, closed in self._closed.items()}
        for account in self._accounts.values():
            rows.setdefault(account.fleet, []).append(_row(account, now_s))
        return {fleet: self._sum(rows[fleet]) for fleet in sorted(rows)}

    def bill(self, now_s: float, fleet: str | None = None) -> Bill:
        """Bill of one fleet, or of all."""
        rows = [_row(a, now_s) for a in self._accounts.values() if fleet is None or a.fleet == fleet]
        rows += [_closed_row(c) for name, c in self._closed.items() if fleet is None or name == fleet]
        return self._sum(rows)

    def _sum(self, rows: Iterable[Row]) -> Bill:
        running_s = storage_s = memory_s = held_s = 0.0
        starts = 0
        for row in rows:
            running_s += row[0]
            storage_s += row[1]
            starts += row[2]
            memory_s += row[3]
            held_s += row[4]
        prices = self.prices
        money = (
            running_s / 3600 * prices.running_per_h
            + storage_s / 3600 * prices.storage_per_h
            + starts * prices.per_start
            + memory_s / 3600 * prices.memory_per_h
            + held_s / 3600 * prices.held_per_h
        )
        return Bill(running_s, storage_s, starts, money, memory_s, held_s)


def _row(account: Account, now_s: float) -> Row:
    storage_s = account.storage_s(now_s)
    room_s = storage_s if account.memory else 0.0
    return account.running_s(now_s), storage_s, account.starts, room_s, account.held_s(now_s)


def _closed_row(closed: list[float]) -> Row:
    return closed[0], closed[1], int(closed[2]), closed[3], closed[4]
