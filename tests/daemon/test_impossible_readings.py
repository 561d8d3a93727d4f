"""A VM that reports many times what it can do: the fleet stays as it is, and people are told once."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from autoscaler.clock import run_virtual
from autoscaler.ports import FleetReadings
from autoscaler.web.status import status
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual


class Odd:
    """A source in which all VMs do 80/s, but the last one reports something else from second 60 to 300."""

    def __init__(self, clock, *, every_s=10.0, usual=80.0, value=81_520.0, leaves=False):
        self.clock, self.every_s, self.leaves = clock, every_s, leaves
        self.usual, self.value = usual, value
        self.odd = ""

    async def read(self, vms):
        seconds = self.clock.now() - ORIGIN_S
        ids = tuple(sorted(vm.id for vm in vms))
        values = np.full(len(ids), self.usual)
        if ids and 60.0 <= seconds < 300.0 and seconds % self.every_s == 0.0:
            self.odd, values[-1] = ids[-1], self.value
        if self.leaves and seconds >= 300.0:
            ids, values = ids[:-1], values[:-1]
        return FleetReadings(ids, values, np.full(len(ids), self.clock.now()))

    async def close(self):
        pass


def reading_events(bench):
    return [event for event in bench.events() if event[1].startswith("reading_")]


async def lived(**odd):
    bench = Bench(vms=16, running=4)
    source = bench.add(policy(), Odd(bench.clock, **odd))
    await bench.run(420)
    return bench, source


@virtual
async def test_nothing_is_started_and_it_is_told_once_and_when_it_is_over():
    bench, source = await lived()
    assert set(bench.column("desired")) == {4}
    assert set(bench.column("demand")[1:]) == {320.0}
    assert bench.changes() == []
    assert {row.coverage for row in bench.rows()[6:30]} == {0.75}
    text = f"{source.odd} reports 81,520/s, and a VM does 100/s; this reading is ignored, since the other VMs report nothing like it: fix what is measured there"
    over = f"{source.odd} reports what a VM can do again"
    assert reading_events(bench) == [(60.0, "reading_beyond", text), (350.0, "reading_believed", over)]
    said = f"{source.odd} reports many times what a VM can do, unlike the others; fix what is measured there"
    assert bench.log.texts("source_failed") == [said]
    assert status(bench.daemon)["fleets"][0]["source_error"] == ""


@virtual
async def test_who_reports_it_now_and_then_is_told_of_once():
    bench, _ = await lived(every_s=40.0)
    assert [kind for _, kind, _ in reading_events(bench)] == ["reading_beyond", "reading_believed"]
    assert len(bench.log.texts("source_failed")) == 1


@virtual
async def test_who_is_not_read_any_more_is_not_called_well():
    bench, source = await lived(leaves=True)
    assert [text for *_, text in reading_events(bench)][1:] == [f"{source.odd} is not read any more"]


@virtual
async def test_of_two_fleets_the_vm_that_reports_it_is_named_and_each_is_over_by_itself():
    bench = Bench(vms=0)
    odd = {}
    for name in ("api", "web"):
        bench.place(name, 8, 4)
        odd[name] = bench.add(policy(name), Odd(bench.clock))
    odd["api"].value = odd["api"].usual
    await bench.run(420)
    assert [(at_s, text.partition(" ")[0]) for at_s, _, text in reading_events(bench)] == [
        (60.0, odd["web"].odd),
        (350.0, odd["web"].odd),
    ]


@pytest.mark.parametrize("at_s", [155.0, 315.0])
def test_a_policy_read_anew_tells_nothing_again(at_s):
    async def life():
        bench = Bench(vms=16, running=4)
        bench.add(policy(), Odd(bench.clock))
        seen = []

        async def reload():
            await bench.daemon.take_over(bench.setups)
            seen.append(dict(bench.daemon.fleets.all[0].beyond))

        tasks = []
        loop = asyncio.get_running_loop()
        loop.call_later(at_s, lambda: tasks.append(loop.create_task(reload())))
        await bench.run(420)
        assert [len(each) for each in seen] == [1]
        assert [kind for _, kind, _ in reading_events(bench)] == ["reading_beyond", "reading_believed"]

    run_virtual(life)


MEASURES = {
    "utilisation": ({}, 0.8, 80.0, "to be busy 80 times over"),
    "concurrency": ({"in_flight": 10}, 8.0, 5000.0, "5,000 in flight"),
}


@pytest.mark.parametrize("kind", MEASURES)
def test_other_measures_are_told_in_their_words(kind):
    more, usual, value, words = MEASURES[kind]

    async def life():
        bench = Bench(vms=16, running=4)
        odd = Odd(bench.clock, usual=usual, value=value)
        bench.add(policy(signal={"kind": kind, **more}), odd)
        await bench.run(70)
        assert set(bench.column("desired")) == {4}
        return reading_events(bench), odd.odd

    ((at_s, event, text),), odd = run_virtual(life)
    assert (at_s, event) == (60.0, "reading_beyond")
    assert text.startswith(f"{odd} reports {words}; this reading is ignored")
