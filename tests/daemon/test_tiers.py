"""How VMs wait: only as many hibernate as is worth it, those start first, reports show them, and learned times count."""

import math
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.learned.lead_time import Span, StartSource
from autoscaler.daemon.acts.planning import WantedVms, plan
from autoscaler.daemon.decision_sentences import waiting
from autoscaler.daemon.learned.learning import Learning
from autoscaler.daemon.vms.hibernation import Hibernation, memories
from autoscaler.daemon.vms.holdings import Holdings
from autoscaler.daemon.vms.inventory import FleetInventory, Patience
from autoscaler.daemon.vms.metering import Meter, Prices
from autoscaler.daemon.vms.saved_memory import KEPT_S
from autoscaler.daemon.vms.start_times import MeasuredStart
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import HIBERNATED_REASON, Memories, Verb, Vm, VmState
from autoscaler.web.status import row_json
from tests.daemon.builders import ORIGIN_S, policy, steady, virtual
from tests.daemon.test_hibernation import able_bench, hibernating, stopped

OWN = {"hibernate": {"start_time": "10s"}}


def row(vm_id, state=VmState.RUNNING, **fields):
    return Vm(vm_id, "web", state, "m", "a", None, 0.0, "ami", may_hibernate=True, **fields)


def held(vm_id, **fields):
    return row(vm_id, VmState.STOPPED, state_reason=HIBERNATED_REASON, stopped_at_s=0.0, **fields)


def holdings(*tracked):
    found = Holdings()
    found.vms = {t.vm.id: t for t in tracked}
    return found


def test_no_more_memories_are_saved_than_are_wanted():
    serving = [TrackedVm(row(f"i-{n}"), Phase.IN_SERVICE, 0.0) for n in range(4)]
    waits = TrackedVm(held("i-8"), Phase.STOPPED, 0.0)
    saving = TrackedVm(row("i-9", VmState.STOPPING), Phase.STOPPING, 0.0)
    saving.saves_memory = True
    own = Hibernation(policy(warm_pool=OWN).warm_pool.hibernate)
    among = holdings(*serving, waits, saving)
    assert memories(among, 50.0) == 2
    assert len(own.of_stops(among, serving, 50.0)) == 4
    for wanted, saved in ((0, 0), (1, 0), (2, 0), (3, 1), (5, 3), (99, 4)):
        own.wanted = wanted
        assert len(own.of_stops(among, serving, 50.0)) == saved
        assert len(own.of_stored(among, serving, 50.0)) == saved
    # A lost memory does not count, nor does that of a VM that cannot be started.
    assert memories(among, KEPT_S + 1.0) == 1
    waits.quarantined_until_s = math.inf
    assert memories(among, 50.0) == 1


def test_what_starts_sooner_is_started_first_and_zones_are_even_among_them():
    inventory = FleetInventory("web", Patience())
    plain = [replace(row(f"i-{n}", VmState.STOPPED), zone="ab"[n % 2]) for n in range(4)]
    saved = [replace(held(f"i-{n}"), launched_at_s=90.0, zone="ab"[n % 2]) for n in range(5, 9)]
    inventory.vms = {vm.id: TrackedVm(vm, Phase.STOPPED, 0.0) for vm in (*plain, *saved)}

    def started(count, now_s=100.0):
        wanted = WantedVms(count, 0, 0, "")
        intents = plan(inventory, wanted, tick=1, now_s=now_s, minimum_on_time_s=0.0)
        return sorted(vm_id for intent in intents if intent.verb is Verb.START for vm_id in intent.vm_ids)

    assert started(2) == ["i-5", "i-6"]
    assert started(4) == ["i-5", "i-6", "i-7", "i-8"]
    assert started(5) == ["i-0", "i-5", "i-6", "i-7", "i-8"]
    # Memories that are too old do not count, and the VM launched longest ago has its turn.
    assert started(2, now_s=KEPT_S + 100.0) == ["i-0", "i-1"]


@virtual
async def test_without_an_objective_all_that_may_hibernate_do_and_that_is_told():
    bench = able_bench(steady((0, 400), (300, 100)), able=4)
    await bench.run(600)
    assert len(hibernating(bench)) == 3
    last = bench.records[-1].fleets[0]
    assert last.memories == Memories(None, "unpriced", None, None, None)
    assert "no objective" in waiting(last.memories)
    assert math.isnan(
        bench.telemetry.registry.get_sample_value("autoscaler_hibernated_target_vms", {"fleet": "web"})
    )


OBJECTIVE = {
    "objective": {"shortage_price": "360000/h"},
    "vm": {"start_time": "40s", "learn_start_time": False},
}


@virtual
async def test_with_an_objective_as_many_hibernate_as_are_worth_it():
    # The ninth VM was only wanted now and then: its memory would be held for too long.
    demand = steady((0, 900), (1200, 100))
    bench = able_bench(demand, able=9, warm_pool=OWN, prices={"memory": "36/h"}, **OBJECTIVE)
    await bench.run(4000)
    last = bench.records[-1].fleets[0]
    assert last.memories.reason == "weighed"
    assert len(stopped(bench)) == 9 - last.in_service >= 7
    assert 0 < last.memories.hibernated < len(stopped(bench))
    assert len(hibernating(bench)) == last.memories.hibernated
    assert last.memories.following <= last.memories.least <= last.memories.last
    told = row_json(last)["memories"]
    assert told["hibernated"] == last.memories.hibernated
    assert told["sentence"] == waiting(last.memories)
    assert waiting(last.memories).startswith(f"the first {last.memories.hibernated} to start hibernated: ")
    read = bench.journal.reader().ticks("web", ORIGIN_S, ORIGIN_S + 5000)[-1]
    assert read.recorded.memories == last.memories
    metric = "autoscaler_hibernated_target_vms"
    shown = bench.telemetry.registry.get_sample_value(metric, {"fleet": "web"})
    assert shown == last.memories.hibernated


@virtual
async def test_a_memory_that_never_pays_is_not_saved():
    own = {"hibernate": {"start_time": "10s", "save_time": "1h"}}
    bench = able_bench(
        steady((0, 400), (300, 100)),
        able=4,
        warm_pool=own,
        **(OBJECTIVE | {"objective": {"shortage_price": "3600/h"}}),
    )
    await bench.run(3000)
    assert hibernating(bench) == []
    assert len(stopped(bench)) > 0
    last = bench.records[-1].fleets[0]
    assert (last.memories.hibernated, last.memories.least > 1.0) == (0, True)
    assert waiting(last.memories).startswith("none hibernated")


# ── what was learned ────────────────────────────────────────────────────────────────────────────────────


def learned(starts):
    learning = Learning(["web"])
    for source, seconds, count in starts:
        measured = MeasuredStart(source, math.nan, math.nan, math.nan, seconds)
        learning.started({"web": [measured] * count}, 0.0)
    return learning


def own_policy(*, learn, start_time=None):
    section = {} if start_time is None else {"start_time": start_time}
    return policy(vm={"start_time": "90s", "learn_start_time": learn}, warm_pool={"hibernate": section})


def test_how_much_sooner_is_learned_where_the_policy_says_so():
    both = [(StartSource.STOPPED, 100.0, 30), (StartSource.HIBERNATED, 20.0, 30)]
    found = learned(both).hibernation_saving_s([own_policy(learn=True)])
    assert found.tolist() == pytest.approx([80.0], rel=0.1)
    few = [(StartSource.STOPPED, 100.0, 30), (StartSource.HIBERNATED, 20.0, 5)]
    assert np.isnan(learned(few).hibernation_saving_s([own_policy(learn=True)])).all()
    said = learned(few).hibernation_saving_s([own_policy(learn=True, start_time="30s")])
    assert said.tolist() == pytest.approx([70.0], rel=0.1)
    hibernated = [(StartSource.HIBERNATED, 20.0, 30)]
    assert learned(hibernated).hibernation_saving_s([own_policy(learn=True)]).tolist() == pytest.approx(
        [70.0], rel=0.1
    )
    assert learned(both).hibernation_saving_s([own_policy(learn=False, start_time="30s")]).tolist() == [60.0]
    assert np.isnan(learned(both).hibernation_saving_s([own_policy(learn=False)])).all()
    assert np.isnan(learned(both).hibernation_saving_s([policy()])).all()
    times = learned(both).lead_times
    assert times.evidence(Span.WHOLE, StartSource.STOPPED)[0] >= 20


# ── money ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_memory_that_is_held_has_its_price():
    meter = Meter(Prices(0.0, 0.0, 0.0, 0.0, memory_per_h=3600.0))
    assert meter.charge((), 5, 0, 100.0, memories=3).money == 0.0
    assert meter.charge((), 5, 0, 110.0, memories=3).money == 30.0
    assert meter.charge((), 5, 0, 120.0).money == 0.0


@virtual
async def test_the_bill_of_the_daemon_has_the_memories_of_the_world():
    bench = able_bench(steady((0, 300), (200, 100)), able=3, tick_s=1.0, prices={"memory": "3600/h"})
    await bench.run(600)
    bill = bench.world.bill(bench.clock.now())
    total = bench.daemon.fleets.by_name["web"].meter.total
    assert bill.held_s == pytest.approx(2 * 340, abs=20)
    money = total.running_s + total.stored_s * 0.01 + bill.held_s + 5 * total.starts
    assert total.money == pytest.approx(money, abs=10)
