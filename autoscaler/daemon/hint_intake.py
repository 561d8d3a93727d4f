"""Hints from the cloud: news brings the next listing forward, and is never trusted by itself.

Rules of this file: hints about foreign VMs, and old hints, are counted and dropped. What only a person can act on (maintenance,
interruptions) becomes an event, once.
"""

from __future__ import annotations

from typing import NoReturn

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.waking import Cause
from autoscaler.ports import Note
from autoscaler.ports.hints import Hint, HintKind, HintSource

OLD_S = 600.0
"""Age above which a hint is ignored, in seconds: many listings have come since."""
SHORTEST_ROUND_S = 1.0
"""Shortest time between two requests if the source answers at once with nothing, in seconds."""
_MOST_TOLD = 10_000


class HintReader:
    """Reads hints from the cloud and acts on them.

    Args:
        daemon: The daemon whose VMs the hints may concern.
        source: Where hints come from.
    """

    def __init__(self, daemon: Daemon, source: HintSource) -> None:
        self._daemon = daemon
        self._source = source
        self._told: set[tuple[HintKind, str, str]] = set()

    async def watch(self) -> NoReturn:
        """Read hints for ever.

        Raises:
            ProviderError: The hints cannot be read.
        """
        clock = self._daemon.clock
        while True:
            began_s = clock.monotonic()
            hints = await self._source.next()
            # On a bad day hundreds come together: none must wait for the disk before the loop is woken.
            notes = [note for hint in hints if (note := self.heed(hint)) is not None]
            if notes:
                await self._daemon.recorder.events(notes, clock.now())
            if not hints:
                await clock.sleep_until(began_s + SHORTEST_ROUND_S)

    def heed(self, hint: Hint) -> Note | None:
        """Wake the loop for the fleet of the VM; log what people should know, and return it once, for the journal."""
        daemon = self._daemon
        fleet = next((f.name for f in daemon.fleets.all if hint.vm_id in f.inventory.vms), None)
        result = "heeded"
        if fleet is None:
            result = "foreign"
        elif daemon.clock.now() - hint.at_s > OLD_S:
            result = "old"
        daemon.telemetry.hints.labels(str(hint.kind), result).inc()
        if fleet is None or result == "old":
            return None
        daemon.waking.ask((fleet,), Cause.HINT)
        key = hint.kind, hint.vm_id, hint.text
        if hint.kind is HintKind.STATE or key in self._told:
            return None
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(key)
        text = f"{hint.vm_id}: {hint.text}"
        daemon.telemetry.log.warning("hint", fleet=fleet, text=text)
        return Note("hint", fleet, text)
