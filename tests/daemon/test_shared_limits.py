"""Fleets that share limits, in a daemon on virtual time: what is started, reported, recorded and published."""

from __future__ import annotations

from autoscaler.core.types import Reason, Stage
from tests.daemon.builders import Bench, policy, steady, virtual


def group(**limits):
    return [{"name": "gpu", "fleets": ["web", "batch"], **limits}]


def with_group(shared, **more):
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=20, running=2)
        bench.place("batch", 20, running=2)
        bench.add(policy("web", shared=shared, **more), steady((0, 200), (60, 1200)))
        bench.add(policy("batch", shared=shared, **more), steady((0, 200), (90, 600)))
        await bench.run(300)
        found.update(bench=bench, web=bench.rows("web"), batch=bench.rows("batch"))
        with bench.journal.reader() as reader:
            found["recorded"] = [row.recorded for row in reader.ticks("batch", 0.0, 1e12)]

    run()
    return found


def test_the_fleets_of_a_group_stay_below_its_ceiling_and_say_so():
    found = with_group(group(most_vms=12))
    together = [
        web.in_service + web.starting + batch.in_service + batch.starting
        for web, batch in zip(found["web"], found["batch"], strict=True)
    ]
    assert max(together) == 12
    # The first asks for twelve and gets the ten that are left; the second finds what runs and waits.
    assert [row.desired for row in found["web"]][-1] == 10
    last = found["batch"][-1]
    assert (last.desired, last.reasons[Stage.SHARED]) == (2, Reason.SHARED_VMS)
    assert last.sentence == (
        "holding 2: demand 600/s with headroom needs 6 VMs; the group gpu may run 12 VMs, which leaves 2 of 6 "
        "(VM 3 would be 200% busy, VM 10 of web would be 120% busy)"
    )
    registry = found["bench"].telemetry.registry
    assert registry.get_sample_value("autoscaler_held_back_vms", {"fleet": "batch"}) == 4.0
    assert registry.get_sample_value("autoscaler_held_back_vms", {"fleet": "web"}) == 2.0
    recorded = found["recorded"][-1]
    assert (recorded.shared.group, recorded.shared.limit, recorded.shared.most) == ("gpu", "vms", 12.0)
    assert (recorded.shared.wanted, recorded.shared.worth, recorded.shared.rival) == (6, 2.0, "web")


def test_a_bucket_of_starts_is_one_for_all():
    found = with_group(group(most_starts={"vms": 4, "per": "60s"}))
    orders = [(at_s, vms) for at_s, _, vms, _ in found["bench"].calls("StartInstances")]
    within_a_minute = [
        sum(vms for other_s, vms in orders if at_s <= other_s < at_s + 60.0) for at_s, _ in orders
    ]
    # A full bucket of four, and the four refilled within the minute.
    assert max(within_a_minute) <= 8
    assert sum(vms for _, vms in orders) == 14
    assert Reason.SHARED_STARTS in {row.reasons[Stage.SHARED] for row in found["web"]}
    assert "starts" in {row.shared.limit for row in found["web"] if row.shared}


def test_a_budget_of_money_is_held():
    found = with_group(group(most_money="36000/h"))
    assert (
        max(
            web.in_service + batch.in_service for web, batch in zip(found["web"], found["batch"], strict=True)
        )
        == 10
    )
    assert "the group gpu may cost 36,000/h, which leaves" in found["batch"][-1].sentence
