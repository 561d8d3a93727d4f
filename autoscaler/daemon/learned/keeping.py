"""When what was learned is written to the journal, and how it is taken up again.

Rules of this file: a journal that fails costs what was learned since it was last kept, and nothing else.
"""

from __future__ import annotations

from autoscaler.daemon.learned.learning import Learning
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import JournalError

KEEP_EVERY_S = 600.0
"""What has changed is kept so often, and at the end; the rest is learned anew."""


class Keeping:
    """Keeps what is learned over restarts.

    Args:
        recorder: The journal.
        telemetry: Told what cannot be read.
    """

    def __init__(self, recorder: Recorder, telemetry: Telemetry) -> None:
        self._recorder = recorder
        self._telemetry = telemetry
        self._kept_at_s: float | None = None

    async def load(self, learning: Learning) -> None:
        """Take up what earlier runs learned."""
        try:
            learned = await self._recorder.learned()
        except JournalError as error:
            self._telemetry.log.warning("journal_failed", text=f"{error}; what was learned is learned anew")
            return
        for text in learning.take_up(learned):
            self._telemetry.log.warning("journal_failed", text=text)
        self._publish(learning)

    async def keep(self, learning: Learning, now_s: float, *, at_once: bool = False) -> None:
        """Write what has changed, if it is time."""
        if self._kept_at_s is None:
            self._kept_at_s = now_s
        if not at_once and abs(now_s - self._kept_at_s) < KEEP_EVERY_S:
            return
        self._kept_at_s = now_s
        self._publish(learning)
        changed = learning.to_keep()
        if changed and await self._recorder.keep_learned(now_s, changed):
            learning.kept()

    def _publish(self, learning: Learning) -> None:
        for fleet, source, seconds in learning.start_times():
            self._telemetry.learned_start.labels(fleet, source.name.lower()).set(seconds)
