"""Operators on virtual time: their commands, when they give them, and the answers."""

from __future__ import annotations

import asyncio

from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.errors import AutoscalerError
from autoscaler.ports import ALL_FLEETS, PAUSABLE, Verb
from tests.daemon.builders import ORIGIN_S

STOP, START, PROVISION = (Verb.STOP,), (Verb.START,), (Verb.PROVISION,)
EVERYTHING = PAUSABLE
EVERYWHERE = (ALL_FLEETS,)


def asked(fleets=("web",), *, who="alice", reason="migration", until_s=None):
    """Build a request; `until_s` counts from the origin."""
    names = (fleets,) if isinstance(fleets, str) and fleets != ALL_FLEETS else tuple(fleets) or EVERYWHERE
    return ChangeRequest(names, who, reason, None if until_s is None else ORIGIN_S + until_s)


class Commands:
    """Gives commands to a bench's daemon at given seconds. Answers and refusals are kept in the order in which they came."""

    def __init__(self, bench):
        self.bench = bench
        self.said: list[tuple[float, object]] = []
        self.given = []

    def at(self, second, name, *arguments):
        """Give a command later; `name` is a method of Operators. The event loop must be running."""
        loop = asyncio.get_running_loop()
        loop.call_later(second, lambda: self.given.append(asyncio.ensure_future(self._give(name, arguments))))
        return self

    async def _give(self, name, arguments):
        try:
            found = await getattr(self.bench.daemon.operators, name)(*arguments)
        except AutoscalerError as error:
            found = error
        self.said.append((self.bench.clock.now() - ORIGIN_S, found))

    def words(self):
        """The answers, one text per command."""
        return [str(s) if isinstance(s, Exception) else " ".join(s.sentences) for _, s in self.said]


def metric(bench, name, **labels):
    return bench.telemetry.registry.get_sample_value(f"autoscaler_{name}", labels)
