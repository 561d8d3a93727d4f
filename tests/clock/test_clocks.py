"""The three clocks keep the Clock port's promises."""

from __future__ import annotations

import asyncio
import contextvars
import gc

import pytest

from autoscaler.clock import ScaledClock, SystemClock, VirtualClock, already_hidden, run_virtual
from autoscaler.errors import InvariantError
from autoscaler.ports import Clock


def test_all_three_implement_the_port():
    assert isinstance(SystemClock(), Clock)
    assert isinstance(ScaledClock(0.0, 2.0), Clock)
    assert isinstance(VirtualClock(), Clock)


def test_virtual_time_is_exact_and_costs_no_real_time():
    async def main() -> tuple[float, float]:
        clock = VirtualClock(origin_s=1000.0)
        await clock.sleep_until(86_400.0)
        return clock.monotonic(), clock.now()

    before = SystemClock().monotonic()
    assert run_virtual(main) == (86_400.0, 87_400.0)
    assert SystemClock().monotonic() - before < 100.0


def test_what_is_hidden_from_the_collector_stays_hidden_by_whoever_hid_it():
    async def main():
        return gc.get_freeze_count() > 0

    def run() -> bool:
        return contextvars.Context().run(run_virtual, main)

    gc.unfreeze()
    assert run()
    assert gc.get_freeze_count() == 0
    gc.freeze()
    assert run()
    assert gc.get_freeze_count() > 0


def test_who_says_that_objects_are_hidden_already_is_believed():
    """Counting them would take longer than a short run."""

    async def main():
        return gc.get_freeze_count()

    def run() -> int:
        already_hidden.set(True)
        return run_virtual(main)

    gc.unfreeze()
    assert contextvars.Context().run(run) == 0
    gc.freeze()
    assert contextvars.Context().run(run) > 0
    assert gc.get_freeze_count() > 0


def test_virtual_sleepers_wake_in_order_of_their_deadlines():
    async def main() -> list[tuple[str, float]]:
        clock, seen = VirtualClock(), []

        async def sleeper(name: str, until_s: float) -> None:
            await clock.sleep_until(until_s)
            seen.append((name, clock.monotonic()))

        await asyncio.gather(sleeper("late", 30.0), sleeper("early", 10.0), sleeper("past", -5.0))
        return seen

    assert run_virtual(main) == [("past", 0.0), ("early", 10.0), ("late", 30.0)]


def test_asyncio_timeouts_see_virtual_time():
    async def main() -> float:
        clock = VirtualClock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90.0):
                await clock.sleep_until(1e9)
        return clock.monotonic()

    assert run_virtual(main) == 90.0


def test_a_virtual_deadlock_is_named():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(InvariantError, match="stands still"):
        run_virtual(main)


def test_a_virtual_clock_outside_its_loop_is_refused():
    async def main() -> None:
        VirtualClock().monotonic()

    with pytest.raises(InvariantError, match="run_virtual"):
        asyncio.run(main())


def test_scaled_clocks_with_the_same_origin_agree():
    one = ScaledClock(1e9, 600.0, origin_monotonic_s=SystemClock().monotonic() - 2.0)
    two = ScaledClock(1e9, 600.0, origin_monotonic_s=one.origin_monotonic_s)
    assert 1200.0 <= one.monotonic() <= two.monotonic()
    assert two.now() - 1e9 >= 1200.0


def test_a_scaled_sleep_takes_its_share_of_real_time():
    async def main() -> float:
        clock = ScaledClock(0.0, 1000.0)
        before = SystemClock().monotonic()
        await clock.sleep_until(clock.monotonic() + 50.0)
        return SystemClock().monotonic() - before

    assert 0.045 <= asyncio.run(main()) < 25.0


def test_a_clock_that_stands_or_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="positive"):
        ScaledClock(0.0, 0.0)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("begin_s", [2.0**23 + 0.3, 2.0**24 + 0.3, 3e9 + 0.3])
def test_virtual_time_goes_on_after_half_a_year(begin_s):
    async def main() -> float:
        clock = VirtualClock()
        await clock.sleep_until(begin_s)
        async with asyncio.timeout(5.0):
            await clock.sleep_until(clock.monotonic() + 1.0)
        return clock.monotonic()

    assert run_virtual(main) == pytest.approx(begin_s + 1.0, abs=1e-6)
