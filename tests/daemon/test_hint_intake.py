"""Hints speed up reactions and decide nothing: without them, the same happens a little later."""

import asyncio

from autoscaler.daemon.hint_intake import HintReader
from autoscaler.daemon.loop import Daemon
from autoscaler.ports.hints import Hint, HintKind
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual
from tests.daemon.test_loop_bounds import SlowDisk


class Scripted:
    """A source that gives hints at given seconds since the origin. It answers at once."""

    def __init__(self, clock, *script):
        self.clock, self.script, self.asked = clock, list(script), 0

    async def next(self):
        self.asked += 1
        due = [hint for at, hint in self.script if at <= self.clock.now() - ORIGIN_S]
        self.script = [each for each in self.script if each[1] not in due]
        return tuple(due)

    async def close(self):
        pass


def hint(vm_id, kind=HintKind.STATE, text="now stopping", at=25.0):
    return Hint(kind, vm_id, text, ORIGIN_S + at)


async def ran(hints, for_s=60.0, lose_at=25.0, write_s=0.0):
    """Run a fleet with two VMs in service, one of which is stopped from outside; return the bench and the source."""
    bench = Bench(vms=4, running=2)
    bench.journal = SlowDisk(bench.journal, bench.clock, write_s) if write_s else bench.journal
    bench.add(policy(bounds={"minimum": 2}), 0.0)
    source = Scripted(bench.clock, *hints(bench))
    daemon = Daemon(
        bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
    )
    loop = asyncio.get_running_loop()
    loop.call_later(lose_at, lambda: bench.world.stop(bench.clock.now(), [bench.ids[0]]))
    loop.call_later(for_s, daemon.stop)
    watching = asyncio.create_task(HintReader(daemon, source).watch())
    await daemon.run()
    watching.cancel()
    await asyncio.wait([watching])
    return bench, source


def first_start(bench):
    return next(at for at, _, _, code in bench.calls("StartInstances") if not code)


def counted(bench, kind, result):
    return bench.telemetry.registry.get_sample_value(
        "autoscaler_hints_total", {"kind": kind, "result": result}
    )


@virtual
async def test_a_vm_stopped_from_outside_is_replaced_before_the_next_tick():
    bench, _ = await ran(lambda bench: [(26.0, hint(bench.ids[0]))])
    assert first_start(bench) < 28.0
    assert counted(bench, "state", "heeded") == 1


@virtual
async def test_a_hint_behind_many_that_are_written_down_does_not_wait_for_the_disk():
    def hints(bench):
        (other,) = bench.place("api", 0, running=1)
        bench.add(policy("api", bounds={"minimum": 1}), 0.0)
        many = [hint(other, HintKind.SCHEDULED, f"maintenance {number}") for number in range(40)]
        return [(26.0, each) for each in (*many, hint(bench.ids[0]))]

    bench, _ = await ran(hints, write_s=0.2)
    assert first_start(bench) < 28.0
    assert [kind for _, kind, _ in bench.events()].count("hint") == 40


@virtual
async def test_without_the_hint_the_next_listing_shows_it():
    bench, _ = await ran(lambda _: [])
    assert first_start(bench) == 30.0


@virtual
async def test_news_of_others_and_old_news_wake_nobody():
    bench, _ = await ran(lambda bench: [(26.0, hint("i-other")), (26.0, hint(bench.ids[1], at=25.0 - 700.0))])
    assert first_start(bench) == 30.0
    assert counted(bench, "state", "foreign") == 1
    assert counted(bench, "state", "old") == 1


@virtual
async def test_a_false_hint_changes_nothing():
    true, _ = await ran(lambda _: [], lose_at=1000.0)
    false, _ = await ran(lambda bench: [(12.0, hint(bench.ids[1], at=12.0))], lose_at=1000.0)
    assert true.changes() == false.changes() == []


@virtual
async def test_planned_maintenance_is_told_once():
    text = "RETIREMENT_SCHEDULED at noon"
    bench, _ = await ran(
        lambda bench: [(at, hint(bench.ids[1], HintKind.SCHEDULED, text, at)) for at in (12.0, 14.0)]
    )
    assert [told for _, kind, told in bench.events() if kind == "hint"] == [f"{bench.ids[1]}: {text}"]


@virtual
async def test_a_source_that_answers_at_once_is_asked_once_a_second():
    _, source = await ran(lambda _: [], for_s=30.0, lose_at=1000.0)
    assert 25 <= source.asked <= 35
