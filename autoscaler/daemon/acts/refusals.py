"""Refusals by a balancer: how long stops are suspended after one, and what was already reported.

Why: a balancer that refuses to release VMs will still refuse ten seconds later. Asking at every tick would fill the journal
with identical drains and events.

Rules of this file: times come in as arguments, and a clock that was set back prolongs no suspension.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.ports import Verb

RETRY_S = 60.0
"""Where no VM could be cordoned, none leaves for this long; and a draining one that could not be put back is not tried again."""
OTHERS_FIRST_S = 2.0 * RETRY_S
"""A VM that could not be cordoned serves on for this long, so that others have their turn before it."""


class Refusals:
    """Those of one fleet's balancer."""

    def __init__(self) -> None:
        self._at_s = float("-inf")
        self._said = ""
        self._told: set[tuple[Verb, str]] = set()

    def cordoned(self, said: str, now_s: float, *, none: bool) -> None:
        """The balancer was asked to let VMs go.

        Args:
            said: What it said of those that it did not; empty where it did.
            now_s: The clock.
            none: Whether it let none go.
        """
        self._at_s, self._said = (now_s, said) if none else (float("-inf"), "")

    def stays(self, now_s: float) -> bool:
        """Whether it let no VM go just now, so that none leaves for a while."""
        return 0.0 <= now_s - self._at_s < RETRY_S

    def trouble(self, now_s: float) -> str:
        """What it said then, until the next attempt has shown how it is."""
        return self._said if 0.0 <= now_s - self._at_s < OTHERS_FIRST_S else ""

    def news_of(self, verb: Verb, failed: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Of the VMs that failed, by what was said of them, those of which that has not been told.

        All of it may be told anew once all of one request was done.
        """
        if not failed:
            self._told = {each for each in self._told if each[0] is not verb}
        news = {why: ids for why, ids in failed.items() if (verb, why) not in self._told}
        self._told |= {(verb, why) for why in news}
        return news
