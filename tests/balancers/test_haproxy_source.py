"""HAProxy as a source: real traffic through the real program, counted by hand."""

import asyncio
import gc

import pytest

from autoscaler.balancers.haproxy_socket import HaproxySocket
from autoscaler.config.policy import policy_from
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources.haproxy import FIRST, HaproxySource
from autoscaler.sources.rate_window import RateWindow
from autoscaler.wiring_sources import Sources
from tests.balancers.haproxy_process import BACKEND, Haproxy, Script, Vms, wait_for
from tests.sources.doubles import ManualClock, vm


def source(clock, signal, *places, **more):
    return HaproxySource(places, BACKEND, "address", signal, clock, timeout_s=20.0, **more)


@pytest.mark.parametrize("mode", ["http", "tcp"])
async def test_requests_per_second_take_two_readings(tmp_path, mode):
    clock = ManualClock(1000.0)
    async with Vms(2) as vms, Haproxy(tmp_path, vms, mode=mode) as haproxy:
        total = source(clock, Signal.TOTAL, haproxy.place)
        found = await total.read([])
        assert (found.vm_ids, found.error) == ((), "")
        for _ in range(6):
            await haproxy.request()
        clock.at_s += 3.0
        found = await total.read([])
        assert (found.vm_ids, found.values.tolist(), found.observed_at_s.tolist()) == (("",), [2.0], [1003.0])


async def test_what_waits_is_work_to_be_done_in_time(tmp_path):
    clock = ManualClock(1000.0)
    async with Vms(1) as vms, Haproxy(tmp_path, vms, maxconn=1) as haproxy:
        total = source(clock, Signal.TOTAL, haproxy.place, queue_within_s=2.0)
        await total.read([])
        vms.free.clear()
        under_way = [asyncio.create_task(haproxy.request()) for _ in range(5)]

        await wait_for(lambda: all_there(haproxy.place))
        clock.at_s += 10.0
        # One is being served; all five have arrived.
        assert (await total.read([])).values.tolist() == [5 / 10 + 4 / 2]
        queue = source(clock, Signal.QUEUE, haproxy.place)
        assert (await queue.read([])).values.tolist() == [4.0]
        vms.free.set()
        await asyncio.gather(*under_way)


async def test_what_waits_for_a_certain_entry_waits_too(tmp_path):
    """Requests of a session that sticks to an entry are in the entry's queue, and not in that of the backend."""
    known = [vm(f"i-{number}", f"10.0.0.{number}") for number in range(2)]
    rows = "web,e0,1,2,,0,UP,10.0.0.0:80,\nweb,e1,3,2,,0,UP,10.0.0.1:80,\n"
    answer = (INFO.format(7, 1_000_000) + TABLE.format(0).replace("BACKEND,0", "BACKEND,5") + rows).encode()
    async with Script(tmp_path / "s", answer) as script:
        for signal, values in ((Signal.QUEUE, [9.0]), (Signal.CONCURRENCY, [3.0, 5.0])):
            found = await source(ManualClock(), signal, str(script.path)).read(known)
            assert found.values.tolist() == values


async def test_per_vm_rates_and_use_are_joined_by_address(tmp_path):
    clock = ManualClock(1000.0)
    async with Vms(2) as vms, Haproxy(tmp_path, vms, maxconn=4) as haproxy:
        known = [vm(f"i-{number}", address) for number, address in enumerate(vms.addresses)]
        rates = source(clock, Signal.THROUGHPUT, haproxy.place)
        await rates.read(known)
        for _ in range(4):
            await haproxy.request()
        # A session is counted for a moment after its last byte.
        await wait_for(lambda: nobody_there(haproxy.place))
        clock.at_s += 2.0
        stranger = vm("i-9", "127.0.9.9")
        found = await rates.read([*known, stranger])
        assert (found.vm_ids, found.values.tolist()) == (("i-0", "i-1"), [1.0, 1.0])
        assert "1 of 3 VMs have no entry" in found.error
        assert "i-9 (127.0.9.9)" in found.error

        vms.free.clear()
        vms.seen.clear()
        under_way = [asyncio.create_task(haproxy.request()) for _ in range(2)]
        await wait_for(lambda: len(vms.seen) == 2)
        found = await source(clock, Signal.UTILISATION, haproxy.place).read(known)
        assert found.values.tolist() == [0.25, 0.25]
        found = await source(clock, Signal.CONCURRENCY, haproxy.place).read(known)
        assert (found.vm_ids, found.values.tolist()) == (("i-0", "i-1"), [1.0, 1.0])
        vms.free.set()
        await asyncio.gather(*under_way)


async def test_without_a_limit_use_is_unknown_and_not_zero(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms) as haproxy:
        found = await source(ManualClock(), Signal.UTILISATION, haproxy.place).read([vm("i-0", "127.0.1.1")])
    assert found.vm_ids == ()
    assert "no entry with a `maxconn`" in found.error


async def all_there(place):
    rows = await HaproxySocket(place, 5.0).table(BACKEND)
    return next(row.queued for row in rows if row.name == "BACKEND") == 4


async def nobody_there(place):
    return not any(row.sessions for row in await HaproxySocket(place, 5.0).table(BACKEND))


INFO = "Name: HAProxy\nPid: {}\nUptime_sec: {}\n\n"
TABLE = "# pxname,svname,qcur,scur,slim,stot,status,addr,\nweb,BACKEND,0,0,,{},UP,,\n"


def shown(count, up_s=1_000_000, pid=7):
    """What a process shows that has run for `up_s` seconds."""
    return (INFO.format(pid, up_s) + TABLE.format(count)).encode()


async def test_a_counter_seen_long_ago_is_forgotten(tmp_path):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(900)) as script:
        total = source(clock, Signal.TOTAL, str(script.path))
        await total.read([])
        script.answer = shown(950)
        clock.at_s += 10.0
        assert (await total.read([])).values.tolist() == [5.0]
        # Over a long pause, the rate would be diluted to almost nothing.
        clock.at_s += 1000.0
        assert (await total.read([])).error == ""


async def test_a_process_that_began_after_the_last_reading_is_rated_over_its_own_age(tmp_path):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(0)) as script:
        total = source(clock, Signal.TOTAL, str(script.path))
        told = []
        # At 100 requests per second: a reload; half a minute without a process, and one that has counted more than the one before
        # it; and a container whose process has the same number.
        for after_s, count, up_s, pid in (
            (0, 50_000, 500, 1),
            (10, 51_000, 510, 1),
            (10, 750, 7, 2),
            (30, 2050, 20, 3),
            (10, 750, 7, 3),
        ):
            clock.at_s += after_s
            script.answer = shown(count, up_s, pid)
            told += (await total.read([])).values.tolist()
    assert told == [100.0] * 4


async def test_while_a_process_is_too_young_for_a_rate_the_last_one_stands_with_its_time(tmp_path):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(0)) as script:
        total = source(clock, Signal.TOTAL, str(script.path))
        told = []
        # The second reading after a reload rates the same process again; the last one follows `clear counters all`.
        for count, up_s in ((50_000, 500), (51_000, 510), (3, 0), (1003, 10), (2003, 20), (70, 30)):
            script.answer = shown(count, up_s)
            found = await total.read([])
            told += [*zip(found.values.tolist(), found.observed_at_s.tolist(), strict=True)]
            clock.at_s += 10.0
    assert told == [(100.0, 1010.0), (100.0, 1010.0), (100.0, 1030.0), (100.0, 1040.0), (100.0, 1040.0)]


async def test_an_entry_that_was_added_just_now_is_no_failure_until_it_is_seen_again(tmp_path):
    clock, told = ManualClock(1000.0), []
    known = [vm(f"i-{number}", f"10.0.0.{number}") for number in range(2)]
    row = "web,{},0,0,,{},UP,10.0.0.{}:80,\n"
    async with Script(tmp_path / "s", shown(0)) as script:
        rates = source(clock, Signal.THROUGHPUT, str(script.path))
        # The second entry is added, its counter falls, and it is gone.
        for counts in ((0,), (10, 5), (20, 15), (30, 2), (40,)):
            rows = "".join(row.format(f"e{at}", count, at) for at, count in enumerate(counts))
            script.answer = shown(100 * counts[0]) + rows.encode()
            found = await rates.read(known[: len(counts)] if len(told) < 4 else known)
            told.append((found.values.tolist(), found.error.partition(",")[0]))
            clock.at_s += 10.0
    lacks = "1 of 2 VMs have no entry seen twice in backend web"
    assert told == [([], ""), ([1.0], ""), ([1.0, 1.0], ""), ([1.0], lacks), ([1.0], lacks)]


async def test_after_a_time_without_a_process_no_rate_of_before_is_repeated(tmp_path):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(0)) as script:
        total = source(clock, Signal.TOTAL, str(script.path))
        for count in (0, 1000):
            script.answer = shown(count)
            await total.read([])
            clock.at_s += 10.0
        script.answer = b""
        with pytest.raises(SourceError, match="without an answer"):
            await total.read([])
        clock.at_s += 10.0
        script.answer = shown(5, 0)
        assert (await total.read([])).error == FIRST
        clock.at_s += 10.0
        script.answer = shown(1005, 10)
        assert (await total.read([])).values.tolist() == [100.0]


async def test_the_age_of_a_real_process_is_read_with_its_counters(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms) as haproxy:
        found = await HaproxySocket(haproxy.place, 5.0).counters(BACKEND)
        assert found.process.pid > 0
        assert 0 <= found.process.up_s < 60
        assert {row.name for row in found.rows} == {"i-0", "BACKEND"}


async def test_something_that_does_not_tell_its_age_is_not_taken_for_haproxy(tmp_path):
    async with Script(tmp_path / "s", b"Unknown command\n\n" + TABLE.format(1).encode()) as script:
        with pytest.raises(SourceError, match="does not say for how long it has run, but 'Unknown command'"):
            await source(ManualClock(), Signal.TOTAL, str(script.path)).read([])


async def test_a_slow_answer_does_not_look_like_a_burst(tmp_path):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(0)) as script:
        total = source(clock, Signal.TOTAL, str(script.path))
        await total.read([])

        def asked():
            clock.at_s += 4.0

        clock.at_s += 10.0
        script.asked, script.answer = asked, shown(120)
        assert (await total.read([])).values.tolist() == [10.0]


async def test_a_reading_that_comes_at_once_repeats_the_rate_of_before(tmp_path):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(0)) as script:
        total = source(clock, Signal.TOTAL, str(script.path), window=RateWindow(5.0))
        await total.read([])
        clock.at_s += 0.05
        script.answer = shown(1)
        assert (await total.read([])).error == ""
        clock.at_s += 9.95
        script.answer = shown(100)
        assert (await total.read([])).values.tolist() == [10.0]
        # Two requests in a tenth of a second are not 20 per second; they count in the reading after this one.
        clock.at_s += 0.1
        script.answer = shown(102)
        found = await total.read([])
        assert (found.values.tolist(), found.observed_at_s.tolist()) == ([10.0], [1010.0])
        clock.at_s += 9.9
        script.answer = shown(200)
        found = await total.read([])
        assert (found.values.tolist(), found.observed_at_s.tolist()) == ([10.0], [1020.0])


@pytest.mark.parametrize("tick_s", [1.0, 10.0, 300.0, 900.0])
async def test_a_source_of_the_daemon_computes_rates_over_half_a_tick_to_two_ticks(tmp_path, tick_s):
    clock = ManualClock(1000.0)
    async with Script(tmp_path / "s", shown(0)) as script:
        policy = policy_from(
            {
                "fleet": "web",
                "signal": {
                    "kind": "total",
                    "source": "haproxy",
                    "haproxy": {"sockets": [str(script.path)], "backend": "web"},
                },
                "vm": {"capacity": "100/s"},
                "bounds": {"maximum": 5},
            }
        )
        total = Sources(clock, tmp_path, tick_s=tick_s).source_for(policy)
        await total.read([])
        # The first tick after a start comes at any time between two points of the grid.
        clock.at_s, script.answer = 1000.0 + 0.1 * tick_s, shown(3)
        assert (await total.read([])).error == ""
        # One reading may fail in between.
        clock.at_s, script.answer = 1000.0 + 2.1 * tick_s, shown(2100)
        assert (await total.read([])).values.tolist() == [pytest.approx(1000.0 / tick_s)]


async def test_the_sum_over_two_processes_is_not_made_of_one(tmp_path):
    async with Script(tmp_path / "a", shown(900)) as script:
        total = source(ManualClock(), Signal.TOTAL, str(script.path), str(tmp_path / "nobody"))
        with pytest.raises(SourceError, match="nobody cannot be reached"):
            await total.read([])


async def test_of_several_processes_that_are_gone_each_is_told_and_nothing_is_left_to_the_event_loop(
    tmp_path,
):
    unheard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context["message"]))
    total = source(ManualClock(), Signal.TOTAL, str(tmp_path / "one"), str(tmp_path / "two"))
    with pytest.raises(SourceError, match=r"one cannot be reached .*; HAProxy at .*two cannot be reached"):
        await total.read([])
    del total
    gc.collect()
    assert unheard == []
