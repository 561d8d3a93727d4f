"""A task that advances virtual time itself has the same effects as one that sleeps."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual

# Tenths are no exact floats, so the last bit of every time counts.
WAITS = st.lists(st.integers(1, 40).map(lambda tenths: tenths / 10.0), min_size=1, max_size=12)


async def _jumped(clock, until_s):
    if not clock.jumps_to(until_s):
        await clock.sleep_until(until_s)


async def _slept(clock, until_s):
    await clock.sleep_until(until_s)


async def _lived(sleep, waits, begin_s, others):
    clock = VirtualClock(1_790_000_000.1)
    await clock.sleep_until(begin_s)
    seen = []

    async def live(name, sleep, waits):
        for wait_s in waits:
            await sleep(clock, clock.monotonic() + wait_s)
            seen.append((name, clock.now()))
            asyncio.get_running_loop().call_soon(seen.append, (f"after {name}", clock.now()))

    first = asyncio.create_task(live("first", sleep, waits))
    rest = [asyncio.create_task(live(f"other {at}", _slept, each)) for at, each in enumerate(others)]
    await asyncio.gather(first, *rest)
    return seen


@given(WAITS, st.sampled_from([0.0, 1.7, 2.0**24 + 0.3]), st.lists(WAITS, max_size=3))
@settings(deadline=None)
def test_a_jump_is_a_sleep(waits, begin_s, others):
    jumped = run_virtual(lambda: _lived(_jumped, waits, begin_s, others))
    slept = run_virtual(lambda: _lived(_slept, waits, begin_s, others))
    assert [time_s.hex() for _, time_s in jumped] == [time_s.hex() for _, time_s in slept]
    assert jumped == slept


async def _moved():
    clock = VirtualClock()
    assert clock.jumps_to(10.0)
    assert clock.monotonic() == 10.0
    assert not clock.jumps_to(10.0)
    assert not clock.jumps_to(5.0)
    assert clock.monotonic() == 10.0


def test_time_moves_where_nobody_else_waits_and_never_back():
    run_virtual(_moved)


@pytest.mark.parametrize("wait_s", [10.0, 9.5])
def test_time_does_not_move_beyond_what_another_waits_for(wait_s):
    async def main():
        clock = VirtualClock()
        asyncio.get_running_loop().call_later(wait_s, lambda: None)
        assert not clock.jumps_to(10.0)
        assert clock.jumps_to(9.0)

    run_virtual(main)


def test_who_was_cancelled_hears_of_it():
    async def main():
        clock = VirtualClock()
        task = asyncio.current_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await _jumped(clock, 10.0)
        task.uncancel()
        return clock.monotonic()

    assert run_virtual(main) == 0.0


def test_whoever_jumps_for_ever_keeps_nobody_from_what_a_thread_brings():
    async def main():
        clock, loop, heard = VirtualClock(), asyncio.get_running_loop(), asyncio.Event()

        async def jump_for_ever():
            while True:
                await _jumped(clock, clock.monotonic() + 1.0)

        jumping = asyncio.create_task(jump_for_ever())
        threading.Thread(target=lambda: loop.call_soon_threadsafe(heard.set)).start()
        await heard.wait()
        jumping.cancel()

    run_virtual(main)


def test_a_run_ends_though_one_of_its_tasks_jumps_for_ever():
    async def main():
        clock = VirtualClock()

        async def jump_for_ever():
            while True:
                await _jumped(clock, clock.monotonic() + 1.0)

        asyncio.get_running_loop().forever = asyncio.create_task(jump_for_ever())
        await clock.sleep_until(100.0)
        return clock.monotonic()

    assert run_virtual(main) == 100.0
