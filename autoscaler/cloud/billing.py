"""The world's meter: what the provider would put on the bill.

Rules: a VM is billed from running until stopping begins (until stopped, if it hibernates), per second and for at
least 60 s per start, even while that first minute is not over. Pending and stopping are free. Storage is billed from
provisioning to termination; for a VM that may hibernate, so is the room for its memory on its volume. A saved memory
may have a price of its own, from when it is saved until its VM runs again. Seconds are not rounded. Time is an
argument. Prices are multiplied only at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Row: TypeAlias = tuple[float, float, int, float, float]
"""Seconds billed as running, seconds provisioned, starts, seconds with room for memory, seconds with saved memory."""

MINIMUM_BILLED_S = 60.0
"""Shortest time billed for a start, in seconds."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in one currency. By default everything is free.

    Attributes:
        running_per_h: Price per VM-hour billed as running.
        storage_per_h: Price per VM-hour provisioned, in any state.
        per_start: Price of each start that reached running.
        memory_per_h: Price per VM-hour of a provisioned VM that may hibernate, for the room for its memory on its volume.
        held_per_h: Price per VM-hour for which a saved memory is held.
    """

    running_per_h: float = 0.0
    storage_per_h: float = 0.0
    per_start: float = 0.0
    memory_per_h: float = 0.0
    held_per_h: float = 0.0


@dataclass(frozen=True, slots=True)
class Bill:
    """Usage and cost up to a moment.

    Attributes:
        running_s: VM-seconds billed as running.
        storage_s: VM-seconds provisioned.
        starts: Starts and launches that reached running.
        money: Total cost at the world's prices.
        memory_s: VM-seconds provisioned with room for memory.
        held_s: VM-seconds for which saved memory was held.
    """

    running_s: float
    storage_s: float
    starts: int
    money: float
    memory_s: float = 0.0
    held_s: float = 0.0


@dataclass(slots=True)
class Account:
    """Usage of one VM."""

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
        """VM-seconds up to now for which its saved memory was held."""
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
    """Meters the usage of all VMs, by the world's VM number."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self._accounts: dict[int, Account] = {}
        self._closed: dict[str, list[float]] = {}

    def open(self, vm: int, fleet: str, now_s: float, *, memory: bool = False) -> None:
        """Begin to bill a new VM for storage and, with `memory`, for the room for its memory."""
        self._accounts[vm] = Account(fleet, now_s, memory=memory)

    def run(self, vm: int, now_s: float) -> None:
        """Count a start, and begin to bill the VM as running."""
        account = self._accounts[vm]
        account.running_since_s = now_s
        account.starts += 1

    def halt(self, vm: int, now_s: float) -> None:
        """Cease to bill the VM as running, if it was."""
        account = self._accounts[vm]
        account.billed_s = account.running_s(now_s)
        account.running_since_s = None

    def hold(self, vm: int, now_s: float) -> None:
        """Begin to bill the VM for its saved memory."""
        self._accounts[vm].held_since_s = now_s

    def release(self, vm: int, now_s: float) -> None:
        """Cease to bill the VM for a saved memory, if it had one."""
        account = self._accounts[vm]
        account.kept_s = account.held_s(now_s)
        account.held_since_s = None

    def end(self, vm: int, now_s: float) -> None:
        """End all billing of a terminated VM."""
        self.halt(vm, now_s)
        self.release(vm, now_s)
        self._accounts[vm].ended_at_s = now_s

    def move(self, vm: int, fleet: str) -> None:
        """Assign the VM and all its past usage to another fleet."""
        self._accounts[vm].fleet = fleet

    def forget(self, vm: int) -> None:
        """Drop a VM that has left the listings. Its usage stays with its fleet."""
        account = self._accounts.pop(vm)
        end_s = account.ended_at_s if account.ended_at_s is not None else account.provisioned_at_s
        closed = self._closed.setdefault(account.fleet, [0.0] * 5)
        closed[0] += account.billed_s
        closed[1] += account.storage_s(end_s)
        closed[2] += account.starts
        closed[3] += account.storage_s(end_s) if account.memory else 0.0
        closed[4] += account.held_s(end_s)

    def bills(self, now_s: float) -> dict[str, Bill]:
        """The bill of every fleet that ever owned a VM, sorted by name.

        The empty name stands for VMs without the ownership tag.
        """
        rows = {fleet: [_closed_row(closed)] for fleet, closed in self._closed.items()}
        for account in self._accounts.values():
            rows.setdefault(account.fleet, []).append(_row(account, now_s))
        return {fleet: self._sum(rows[fleet]) for fleet in sorted(rows)}

    def bill(self, now_s: float, fleet: str | None = None) -> Bill:
        """The bill of one fleet, or of all fleets together."""
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
