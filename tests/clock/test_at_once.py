"""Calls that begin in the caller's task: answered at once, failing, cancelled, or waiting after all."""

import asyncio

import pytest

from autoscaler.at_once import answers_at_once, begun
from autoscaler.clock import VirtualClock, run_virtual


def virtual(test):
    def run():
        return run_virtual(test)

    run.__name__ = test.__name__
    return run


async def answer():
    return 7


async def fail():
    raise KeyError("cpu")


async def cancelled():
    raise asyncio.CancelledError


@virtual
async def test_an_answer_at_hand_is_there_without_a_task():
    before = asyncio.all_tasks()
    call = begun(answer, at_once=True)
    assert call.done()
    assert call.result() == 7
    assert asyncio.all_tasks() == before


@virtual
async def test_a_failure_and_a_cancellation_are_kept_for_the_caller():
    with pytest.raises(KeyError):
        begun(fail, at_once=True).result()
    assert begun(cancelled, at_once=True).cancelled()


@virtual
async def test_a_call_that_waits_goes_on_in_a_task_of_its_own():
    clock = VirtualClock()
    met = []

    async def slow():
        for second in (3, 4):
            await clock.sleep_until(second)
            met.append((second, asyncio.current_task()))
        return "late"

    call = begun(slow, at_once=True)
    assert not call.done()
    assert await call == "late"
    assert clock.monotonic() == 4
    assert [second for second, _ in met] == [3, 4]
    assert all(task is call for _, task in met)


@virtual
async def test_a_call_that_waits_hears_its_cancellation_and_may_swallow_it():
    clock = VirtualClock()

    async def deaf():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await clock.sleep_until(5)
        return "ended when it liked"

    call = begun(deaf, at_once=True)
    call.cancel()
    assert await call == "ended when it liked"
    assert clock.monotonic() == 5


@virtual
async def test_what_is_no_coroutine_and_what_does_not_say_so_gets_a_task():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    future.set_result(1)
    assert await begun(lambda: future, at_once=True) == 1
    call = begun(answer, at_once=False)
    assert not call.done()
    assert await call == 7


def test_an_adapter_says_so_itself():
    class Yes:
        answers_at_once = True

    class Mumbles:
        answers_at_once = "perhaps"

    assert answers_at_once(Yes())
    assert not answers_at_once(Mumbles())
    assert not answers_at_once(object())
