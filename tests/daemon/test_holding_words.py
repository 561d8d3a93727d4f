"""A sentence says what limited a decision: a maximum that binds is mentioned, whichever stage applied it."""

from __future__ import annotations

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from tests.daemon.builders import Bench, policy, virtual

BINDS = "more would be needed, but the policy's maximum is 4"
BOUNDS = {"minimum": 1, "maximum": 4}


async def last_sentence(demand, bounds=BOUNDS, **changes):
    bench = Bench(vms=8, running=1)
    plan = policy(bounds=bounds, **changes)
    bench.add(plan if plan.objective is None else plan.model_copy(update={"reactive": None}), demand)
    await bench.run(120)
    return bench.records[-1].fleets[0].sentence


@virtual
async def test_an_objective_that_keeps_to_the_maximum_says_so_where_demand_is_above_it():
    prices = {"in_service": "1/h", "stopped": "0.01/h", "start": 0, "provision": 0}
    objective = {"objective": {"served": "99.9%"}, "prices": prices, "signal": {"kind": "total"}}
    assert (await last_sentence(1000.0, **objective)).endswith(f"; {BINDS}")
    assert "maximum" not in await last_sentence(150.0, **objective)


@virtual
async def test_an_objective_that_is_kept_up_by_the_minimum_says_so():
    prices = {"in_service": "1/h", "stopped": "0.01/h", "start": 0, "provision": 0}
    objective = {"objective": {"served": "99.9%"}, "prices": prices, "signal": {"kind": "total"}}
    idle = await last_sentence(100.0, bounds={"minimum": 3, "maximum": 8}, **objective)
    assert idle.endswith("; the policy's minimum is 3")
    assert idle.count("minimum") == 1


@virtual
async def test_where_a_stage_says_so_it_is_said_once():
    sentence = await last_sentence(1000.0)
    assert "the policy's maximum is 4" in sentence
    assert BINDS not in sentence
    assert (await last_sentence(10.0, bounds={"minimum": 3, "maximum": 8})).count("minimum") == 1


@pytest.mark.parametrize("tagged", [0, 1])
def test_a_fleet_without_any_vm_says_which_tag_nobody_carries(tagged):
    @virtual
    async def run():
        bench = Bench(vms=0, running=tagged, zones="a")
        bench.place("wbe", 3)
        bench.add(policy(signal={"kind": "total"}), 400.0)
        await bench.run(60)
        sentence = bench.rows()[-1].sentence
        assert "the warm pool is short: only" in sentence
        assert sentence.endswith("; no VM carries the tag autoscaler:fleet=web") is not bool(tagged)

    run()


@virtual
async def test_until_a_first_listing_has_come_the_pool_is_not_just_called_short():
    bench = Bench(vms=8)
    denied = Fault(
        FaultKind.API_ERROR, start_s=0, end_s=25, code="AuthFailure", actions=("DescribeInstances",)
    )
    bench.world.add_fault(denied)
    bench.add(policy(), 100.0)
    await bench.run(60)
    told = [row.sentence for row in bench.rows()]
    assert [text.startswith("held until its VMs have been listed: holding 0") for text in told[:3]] == [
        True
    ] * 3
    assert not any("listed" in text for text in told[3:])
