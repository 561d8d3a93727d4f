"""The warm pools of all fleets: which there are, what a listing says of them, what is done for them in a tick.

Rules of this file: providers are asked for all fleets at the same time. A pool goes on when the policy of its fleet
changes, and begins anew where the fleet does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from autoscaler.clock import give_way
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.rows import Turns
from autoscaler.daemon.warm.warm_pool import WarmPool
from autoscaler.ports import Clock, Note


class WarmPools:
    """One `WarmPool` per fleet.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.by_name: dict[str, WarmPool] = {}
        self._acts: dict[str, bool] = {}

    def govern(self, fleets: Mapping[str, Fleet], *, anew: bool = False) -> None:
        """From now on these are the fleets; with `anew` nothing is known of their pools."""
        now_s = self._clock.now()
        known = {} if anew else self.by_name
        # Between acting and shadow the VMs are not the same.
        same = {name for name, fleet in fleets.items() if self._acts.get(name) is fleet.policy.act}
        self.by_name = {
            name: known[name] if name in known and name in same else WarmPool(now_s) for name in fleets
        }
        self._acts = {name: fleet.policy.act for name, fleet in fleets.items()}

    async def follow(self, fleets: Iterable[Fleet], timeout_s: float) -> list[Note]:
        """After the listings: what deserves an event.

        Args:
            fleets: All.
            timeout_s: Longest wait for one question, in seconds of the event loop.
        """
        now_s = self._clock.now()
        notes: list[Note] = []
        asking = []
        turns = Turns()
        for fleet in fleets:
            own = self.by_name[fleet.name]
            for vms in own.taking_in(fleet, now_s, notes):
                if turns.spent(vms):
                    await give_way()
            if fleet.arrivals is not None:
                notes += fleet.arrivals.take_news()
            if own.has_questions(fleet, now_s):
                asking.append(own.ask(fleet, now_s, timeout_s))
        for found in await asyncio.gather(*asking) if asking else ():
            notes += found
        return notes
