"""The event loop of a live process: short turns, shared fairly."""

from __future__ import annotations

import asyncio
import socket

import pytest

from autoscaler.daemon import event_loop

MANY = 500


class Heard(asyncio.Protocol):
    """Notes in which turn it was heard."""

    def __init__(self, turns: list[int], now: list[int]) -> None:
        self._turns, self._now = turns, now

    def data_received(self, data: bytes) -> None:
        assert data == b"here"
        self._turns.append(self._now[0])


async def heard() -> list[int]:
    """How many of many that speak at the same moment are heard in each turn."""
    loop = asyncio.get_running_loop()
    turns: list[int] = []
    now = [0]
    pairs = [socket.socketpair() for _ in range(MANY)]
    made = [await loop.create_connection(lambda: Heard(turns, now), sock=ours) for ours, _ in pairs]
    for _, theirs in pairs:
        theirs.sendall(b"here")

    def count() -> None:
        now[0] += 1
        if len(turns) < MANY and now[0] < MANY:
            loop.call_soon(count)
        else:
            over.set_result(None)

    over = loop.create_future()
    loop.call_soon(count)
    await over
    for (transport, _), (_, theirs) in zip(made, pairs, strict=True):
        transport.close()
        theirs.close()
    return [turns.count(number) for number in range(now[0] + 1)]


@pytest.mark.timeout(60)
def test_of_many_that_speak_at_once_a_few_are_heard_in_each_turn():
    counts = event_loop.run(heard())
    assert sum(counts) == MANY
    assert 0 < max(counts) <= event_loop.EVENTS_PER_TURN


def test_time_passes_and_threads_and_processes_are_heard():
    async def main() -> tuple[float, int, int]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        done, _ = await asyncio.wait({loop.create_future()}, timeout=0.02)
        waited_s = loop.time() - began_s
        added = await loop.run_in_executor(None, sum, (1, 2))
        process = await asyncio.create_subprocess_exec("true")
        assert not done
        return waited_s, added, await process.wait()

    waited_s, added, code = event_loop.run(main())
    assert 0.02 <= waited_s < 100.0
    assert (added, code) == (3, 0)
