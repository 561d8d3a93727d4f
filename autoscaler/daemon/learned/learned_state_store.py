"""When learned state is written to the journal, and how it is restored.

State that changes rarely and matters at once (places without room, VMs that are left alone) is saved within half a minute;
everything else every ten minutes, and at shutdown.

Rules of this file: a failing journal costs only what was learned since the last save. If the journal does not outlive the
run, state that only a longer run could use is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from autoscaler.daemon.fleets import Fleets
from autoscaler.daemon.learned.learning import Learning
from autoscaler.daemon.learned.restoring import RestartStateStore
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.warm.upkeep import WarmPools
from autoscaler.errors import JournalError

KEEP_EVERY_S = 600.0
"""Time between two saves of what has changed, in seconds; it is also saved at shutdown."""
TROUBLES_EVERY_S = 30.0
"""Time between two looks at what is saved sooner (places without room, VMs that are left alone), in seconds."""


class LearnedStateStore:
    """Saves what is learned, and restores it after a restart.

    Args:
        recorder: The journal.
        telemetry: Where unreadable state is reported.
        warm_pools: The warm pools, whose requests from operators are saved too.
    """

    def __init__(self, recorder: Recorder, telemetry: Telemetry, warm_pools: WarmPools) -> None:
        self._recorder = recorder
        self._telemetry = telemetry
        self._warm_pools = warm_pools
        self._remembering = RestartStateStore() if recorder.outlives_the_run else None
        self._kept_at_s: float | None = None
        self._looked_at_s = float("-inf")
        self.loaded = asyncio.Event()
        """Set once `load` is done, whether or not the journal could be read."""

    async def load(self, fleets: Fleets, now_s: float) -> None:
        """Restore what earlier runs learned."""
        try:
            learned = await self._recorder.learned()
        except JournalError as error:
            self._telemetry.log.warning(
                "journal_failed", text=f"{error}; what was learned must be learned again"
            )
            self.loaded.set()
            return
        wrong = fleets.learning.take_up(learned)
        if self._remembering is not None:
            wrong += self._warm_pools.take_up(learned)
            wrong += self._remembering.take_up_troubles(fleets.all, learned, now_s)
            wrong += self._remembering.take_up_measures(fleets.all, learned, now_s)
            wrong += self._remembering.take_up_states(fleets, learned, now_s)
        for text in wrong:
            self._telemetry.log.warning("journal_failed", text=text)
        for name in sorted(fleets.remembered):
            text = "forecasts continue from what was saved at the end of the last run"
            self._telemetry.log.info("history_learned", fleet=name, text=text)
        self._publish(fleets.learning)
        self.loaded.set()

    async def before_reload(self, fleets: Fleets, names: Collection[str], now_s: float) -> None:
        """Save what was learned of fleets that a reload removes, if there are any; `names` are those that remain or come."""
        if not fleets.by_name.keys() <= set(names):
            await self.keep(fleets, now_s, at_once=True)

    async def after_reload(self, fleets: Fleets, before: Collection[str], now_s: float) -> None:
        """Restore what was learned of fleets that a reload has put back: start times, capacities, and what they measured.

        Forecasts, models and the pool learn from the journal instead (`backfill`).

        Args:
            fleets: The fleets now.
            before: The names of the fleets before the reload.
            now_s: The current time.
        """
        added = [fleet for fleet in fleets.all if fleet.name not in before]
        if not added:
            return
        try:
            learned = await self._recorder.learned(between_ticks=True)
        except JournalError as error:
            text = f"{error}; what was learned of {', '.join(fleet.name for fleet in added)} before must be learned again"
            self._telemetry.log.warning("journal_failed", text=text)
            return
        names = {fleet.name for fleet in added}
        rows = [row for row in learned if row.fleet in names]
        wrong = fleets.learning.take_up(rows)
        if self._remembering is not None:
            wrong += self._remembering.take_up_measures(added, rows, now_s)
        for text in wrong:
            self._telemetry.log.warning("journal_failed", text=text)
        fleets.plan_with_what_was_learned(now_s)

    async def keep(self, fleets: Fleets, now_s: float, *, at_once: bool = False) -> None:
        """Save what has changed, if it is time."""
        if self._kept_at_s is None:
            self._kept_at_s = now_s
        due = at_once or abs(now_s - self._kept_at_s) >= KEEP_EVERY_S
        if self._remembering is not None and (due or abs(now_s - self._looked_at_s) >= TROUBLES_EVERY_S):
            self._looked_at_s = now_s
            await self._remember(self._remembering, fleets, now_s, everything=due)
        if not due:
            return
        self._kept_at_s = now_s
        self._publish(fleets.learning)
        changed = fleets.learning.to_keep()
        if changed and await self._recorder.keep_learned(now_s, changed):
            fleets.learning.kept()

    async def keep_asked(self, now_s: float) -> bool:
        """Save operators' requests on warm pools if they have changed, and return False if that failed."""
        rows = self._warm_pools.to_keep() if self._remembering is not None else []
        if rows and not await self._recorder.keep_learned(now_s, rows):
            return False
        self._warm_pools.kept(rows)
        return True

    async def _remember(
        self, remembering: RestartStateStore, fleets: Fleets, now_s: float, *, everything: bool
    ) -> None:
        rows = remembering.troubles(fleets.all, now_s, odds=everything) + self._warm_pools.to_keep()
        rows += remembering.measures(fleets.all)
        if everything:
            rows += await remembering.states(fleets, now_s)
        if rows and await self._recorder.keep_learned(now_s, rows):
            remembering.kept(rows)
            self._warm_pools.kept(rows)

    def _publish(self, learning: Learning) -> None:
        for fleet, source, seconds in learning.start_times():
            self._telemetry.learned_start.labels(fleet, source.name.lower()).set(seconds)
