"""Upkeep of all warm pools: which exist, what listings say about them, and what is done in a tick.

Rules of this file: providers are queried for all fleets concurrently. One that answers slowly rests for a while (`slow_answers`),
because every decision waits for the answers. A pool continues when its fleet's policy changes, and starts afresh when the fleet
does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from autoscaler.clock import give_way
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.slow_answers import SlowAnswers
from autoscaler.daemon.vms.listing_rows import Turns
from autoscaler.daemon.warm import operator_requests
from autoscaler.daemon.warm.refill import preparing_timeout_s
from autoscaler.daemon.warm.resuming import InterruptedTrials
from autoscaler.daemon.warm.served import recognise
from autoscaler.daemon.warm.serving_instead import serve_kept_vms
from autoscaler.daemon.warm.warm_pool import WarmPool
from autoscaler.ports import Clock, Learned, Note

_NOTHING = operator_requests.PoolRequests().kept("").body


class WarmPools:
    """Keeps one `WarmPool` per fleet.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.by_name: dict[str, WarmPool] = {}
        self.left: dict[str, WarmPool] = {}
        """Pools dropped by the last change of fleets, because their fleet changed between acting and shadow or lost its
        policy.
        """
        self.resuming = InterruptedTrials()
        self._acts: dict[str, bool] = {}
        self._slow: dict[str, SlowAnswers] = {}
        self._kept: dict[str, bytes] = {}
        """By fleet, operators' requests as they are stored."""

    def govern(self, fleets: Mapping[str, Fleet], *, anew: bool = False) -> None:
        """Keep pools for these fleets from now on.

        With `anew`, pools start over, but keep hooks in progress and operators' requests.
        """
        now_s = self._clock.now()
        before = self.by_name
        known = {} if anew else before
        # Between acting and shadow the VMs differ.
        same = {name for name, fleet in fleets.items() if self._acts.get(name) is fleet.policy.act}
        self.by_name = {
            name: known[name] if name in known and name in same else WarmPool(now_s) for name in fleets
        }
        self.left = {} if anew else {name: pool for name, pool in before.items() if name not in same}
        self._slow = {name: self._slow.get(name) or SlowAnswers() for name in fleets}
        self._acts = {name: fleet.policy.act for name, fleet in fleets.items()}
        for name in same & before.keys():
            self.by_name[name].trials = before[name].trials
            self.by_name[name].asked = before[name].asked

    def to_keep(self) -> list[Learned]:
        """Return operators' requests that differ from what is stored. VMs in shadow are simulated, so theirs are not
        stored.
        """
        rows = [pool.asked.kept(name) for name, pool in self.by_name.items() if self._acts[name]]
        return [row for row in rows if self._kept.get(row.fleet, _NOTHING) != row.body]

    def kept(self, rows: Iterable[Learned]) -> None:
        """Note that these rows are stored; rows of another kind are ignored."""
        self._kept.update({row.fleet: row.body for row in rows if row.name == operator_requests.NAME})

    def take_up(self, learned: Iterable[Learned]) -> list[str]:
        """Restore the requests that an earlier run stored; return, for people, which of them cannot be read."""
        wrong = []
        for row in learned:
            if row.name != operator_requests.NAME or not self._acts.get(row.fleet, False):
                continue
            try:
                self.by_name[row.fleet].asked = operator_requests.pool_requests_of(row)
            except ValueError as error:
                wrong.append(f"what operators asked of the pool of {row.fleet} cannot be read: {error}")
            else:
                self.kept((row,))
        return wrong

    async def follow(self, fleets: Iterable[Fleet], timeout_s: float) -> list[Note]:
        """Apply the listings to all pools, ask what must be asked, and return what deserves an event.

        Args:
            fleets: All fleets.
            timeout_s: Longest wait for one request, in seconds of the event loop.
        """
        now_s = self._clock.now()
        notes: list[Note] = []
        asking = []
        turns = Turns()
        for fleet in fleets:
            own = self.by_name[fleet.name]
            notes += self.resuming.take_up(fleet, now_s)
            recognise(fleet, own.preparing, now_s)
            for vms in own.taking_in(fleet, now_s, notes):
                if turns.spent(vms):
                    await give_way()
            if own.preparing:
                notes += serve_kept_vms(fleet, own, preparing_timeout_s(fleet), now_s)
            if fleet.arrivals is not None:
                notes += fleet.arrivals.take_news()
            if own.has_questions(fleet, now_s) and not self._slow[fleet.name].rests():
                asking.append(self._asked(own, fleet, now_s, timeout_s))
        for found in await asyncio.gather(*asking) if asking else ():
            notes += found
        return notes

    async def _asked(self, pool: WarmPool, fleet: Fleet, now_s: float, timeout_s: float) -> list[Note]:
        with self._slow[fleet.name].timed(timeout_s):
            return await pool.ask(fleet, now_s, timeout_s)
