"""Refusals by a balancer: how long stops are suspended after one, and what was already reported.

Why: a balancer that refuses to release VMs will still refuse ten seconds later. Asking at every tick would fill the journal
with identical drains and events.

Rules of this file: times come in as arguments, and a clock that was set back prolongs no suspension.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.ports import Verb

RETRY_S = 60.0
"""How long no VM leaves if none could be cordoned, and how long a draining VM that could not be put back is not tried
again, in seconds.
"""
OTHERS_FIRST_S = 2.0 * RETRY_S
"""How long a VM that could not be cordoned stays in service, in seconds, so that others are tried before it."""


class Refusals:
    """The refusals of one fleet's balancer."""

    def __init__(self) -> None:
        self._at_s = float("-inf")
        self._message = ""
        self._reported: set[tuple[Verb, str]] = set()

    def cordoned(self, message: str, now_s: float, *, none: bool) -> None:
        """Note the result of a request to release VMs.

        Args:
            message: What the balancer said about VMs that it did not release; empty if it released all.
            now_s: The current time.
            none: Whether it released none.
        """
        self._at_s, self._message = (now_s, message) if none else (float("-inf"), "")

    def holds_all(self, now_s: float) -> bool:
        """Return whether no VM leaves for now, because the balancer recently released none."""
        return 0.0 <= now_s - self._at_s < RETRY_S

    def trouble(self, now_s: float) -> str:
        """Return what the balancer said when it last released none; empty once a later attempt succeeded or some time has
        passed.
        """
        return self._message if 0.0 <= now_s - self._at_s < OTHERS_FIRST_S else ""

    def news_of(self, verb: Verb, failed: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Return the failed VMs by reason, without reasons that were already reported.

        Reasons may be reported again once a whole request has succeeded.
        """
        if not failed:
            self._reported = {each for each in self._reported if each[0] is not verb}
        news = {why: ids for why, ids in failed.items() if (verb, why) not in self._reported}
        self._reported |= {(verb, why) for why in news}
        return news
