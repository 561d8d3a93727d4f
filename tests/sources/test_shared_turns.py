"""Many fleets that are scraped at the same moment share the turns of the event loop."""

from __future__ import annotations

import asyncio
import gc

from autoscaler.sources.fan_out import BEGUN_PER_TURN, FanOut, Limits, shared_turns


async def counted_turns() -> list[int]:
    """Number of requests that begin in each turn of the loop."""
    loop = asyncio.get_running_loop()
    now, passed = [0], []

    def count() -> None:
        now[0] += 1
        loop.call_soon(count)

    async def ask() -> None:
        await shared_turns().may_begin()
        passed.append(now[0])

    loop.call_soon(count)
    await asyncio.gather(*(ask() for _ in range(200)))
    return [passed.count(turn) for turn in range(now[0] + 1)]


def test_requests_begin_a_few_in_each_turn_and_none_is_forgotten():
    turns = asyncio.run(counted_turns())
    assert sum(turns) == 200
    assert max(turns) == BEGUN_PER_TURN
    assert turns.count(BEGUN_PER_TURN) >= 200 // BEGUN_PER_TURN


def test_one_who_is_told_to_end_while_it_waits_takes_nobodys_place():
    async def main() -> int:
        waiting = [asyncio.ensure_future(shared_turns().may_begin()) for _ in range(3 * BEGUN_PER_TURN)]
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn
        for task in waiting[BEGUN_PER_TURN : 2 * BEGUN_PER_TURN]:
            task.cancel()
        await asyncio.wait(waiting, timeout=5.0)
        return sum(task.done() and not task.cancelled() for task in waiting)

    assert asyncio.run(main()) == 2 * BEGUN_PER_TURN


def test_work_that_is_done_alone_is_done_one_at_a_time_and_goes_on_after_an_error():
    async def main() -> list[str]:
        story: list[str] = []

        async def work(name: str) -> None:
            async with shared_turns().alone():
                story.append(f"{name} begins")
                if name == "b":
                    raise ValueError
                story.append(f"{name} ends")

        await asyncio.gather(*(work(name) for name in "abc"), return_exceptions=True)
        return story

    assert asyncio.run(main()) == ["a begins", "a ends", "b begins", "c begins", "c ends"]


def test_a_vm_that_refuses_leaves_nothing_to_the_collector():
    async def main() -> int:
        fan_out = FanOut(Limits(timeout_s=5.0))
        urls = {str(n): f"http://127.0.0.{n + 2}:1/metrics" for n in range(50)}
        await fan_out.get_all(urls, len)
        gc.collect()
        gc.disable()
        try:
            answers = await fan_out.get_all(urls, len)
            assert {answer.error for answer in answers.values()} == {"connection refused"}
            return gc.collect()
        finally:
            gc.enable()
            await fan_out.close()

    assert asyncio.run(main()) < 50
