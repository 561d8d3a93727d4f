"""How much memory a host has left for VMs.

Rules: what a VM may use is taken to be gone from the moment that it is started, although it takes it page by page: for
PROMISED_S it counts in full beside what the host says is used, and from then on only as the host says.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from autoscaler.ports import Clock, OutcomeKind
from autoscaler.providers.libvirt.binding import error_of
from autoscaler.providers.libvirt.classify import NO_ROOM, RefusedError

PROMISED_S: Final = 60.0
RESERVE_MIB: Final = 256
"""Left to the host itself."""
_ALL_CELLS: Final = -1


def free_mib(connection: Any) -> int | None:
    """Memory of a host that nobody uses, or that is used for its disk cache alone, in MiB; None where it does not tell."""
    try:
        stats = connection.getMemoryStats(_ALL_CELLS)
        return int(sum(stats.get(name, 0) for name in ("free", "buffers", "cached"))) // 1024
    except Exception as error:
        if error_of(error) is None:
            raise
    try:
        # A host that cannot say says 0.
        return int(connection.getFreeMemory()) >> 20 or None
    except Exception as error:
        if error_of(error) is None:
            raise
        return None


class Room:
    """What is left of one host's memory.

    Args:
        clock: Says how long something was promised.
        heeds: Whether it matters at all.
    """

    def __init__(self, clock: Clock, *, heeds: bool = True) -> None:
        self._clock = clock
        self._heeds = heeds
        self._lock = threading.Lock()
        self._promised: dict[str, tuple[float, int]] = {}

    def claim(self, connection: Any, vm_id: str, memory_mib: int) -> None:
        """Take room for a VM that is to be started now.

        Raises:
            RefusedError: NO_CAPACITY; there is none.
        """
        free = free_mib(connection) if self._heeds and memory_mib else None
        if free is None:
            return
        with self._lock:
            now_s = self._clock.monotonic()
            self._promised = {i: p for i, p in self._promised.items() if p[0] > now_s and i != vm_id}
            promised = sum(mib for _, mib in self._promised.values())
            left = free - promised - RESERVE_MIB
            if memory_mib > left:
                text = (
                    f"{memory_mib} MiB are needed, and of {free} MiB free on the host {promised} are promised to VMs "
                    f"that have just started and {RESERVE_MIB} kept for itself"
                )
                raise RefusedError(OutcomeKind.NO_CAPACITY, NO_ROOM, text)
            self._promised[vm_id] = now_s + PROMISED_S, memory_mib

    def give_back(self, vm_id: str) -> None:
        """It was not started after all."""
        with self._lock:
            self._promised.pop(vm_id, None)
