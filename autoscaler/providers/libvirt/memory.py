"""How much memory a host has left for VMs.

Rules: a VM takes its memory page by page, but all of it counts as used from the moment of its start. For PROMISED_S it counts
in full, in addition to what the host reports as used; after that only the host's report counts.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from autoscaler.ports import Clock, OutcomeKind
from autoscaler.providers.libvirt.binding import error_of
from autoscaler.providers.libvirt.classify import NO_ROOM, RefusedError

PROMISED_S: Final = 60.0
RESERVE_MIB: Final = 256
"""MiB of memory that are kept for the host itself."""
_ALL_CELLS: Final = -1


def free_mib(connection: Any) -> int | None:
    """MiB of a host's memory that are free or hold only its disk cache; None if the host does not say."""
    try:
        stats = connection.getMemoryStats(_ALL_CELLS)
        return int(sum(stats.get(name, 0) for name in ("free", "buffers", "cached"))) // 1024
    except Exception as error:
        if error_of(error) is None:
            raise
    try:
        # A host that does not know reports 0.
        return int(connection.getFreeMemory()) >> 20 or None
    except Exception as error:
        if error_of(error) is None:
            raise
        return None


class Room:
    """Tracks how much memory one host has left for VMs.

    Args:
        clock: Clock that times promises.
        heeds: Whether memory is checked at all.
    """

    def __init__(self, clock: Clock, *, heeds: bool = True) -> None:
        self._clock = clock
        self._heeds = heeds
        self._lock = threading.Lock()
        self._promised: dict[str, tuple[float, int]] = {}

    def claim(self, connection: Any, vm_id: str, memory_mib: int) -> None:
        """Reserve memory for a VM that is about to be started.

        Raises:
            RefusedError: NO_CAPACITY; the host has not enough memory left.
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
        """Release the reservation of a VM that was not started after all."""
        with self._lock:
            self._promised.pop(vm_id, None)
