"""Every reason has words, and whole sentences read well."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from autoscaler.core.types import BurstOdds, Reason, Stage
from autoscaler.daemon.decision_sentences import phrase, sentence
from autoscaler.daemon.fleet_rows import due_bursts
from autoscaler.ports import DueBurst, Earnings, FleetTick, SharedHold
from tests.daemon.builders import Bench, policy, steady, virtual

NONE = (0,) * len(Stage)


def tick(*shaped, **changes):
    """A tick of a fleet with 4 VMs in service whose number was shaped by (stage, reason, value)."""
    reasons, stages = list(NONE), [4] * len(Stage)
    for stage, reason, value in shaped:
        reasons[stage], stages[stage] = int(reason), value
    base = FleetTick(
        fleet="web", demand=480.4, observed_at_s=0, freshness=0, coverage=0.5, censored=False,
        in_service=4, starting=0, draining=0, stopping=0, stopped=6, provisioned=10, stoppable=4,
        forecast=500, forecast_hi=1234.5, wish=4, desired=4, start=0, provision=0, stop=0, warm_target=0,
        capacity=400, shortage=0, cost=0, stages=tuple(stages), reasons=tuple(reasons), sentence="",
    )  # fmt: skip
    return replace(base, **changes)


def test_one_vm_stays_and_several_stay():
    assert phrase(Reason.DATA_ABSENT, 1, tick()) == "no metrics arrive, so 1 VM stays"
    assert phrase(Reason.DATA_ABSENT, 2, tick()) == "no metrics arrive, so 2 VMs stay"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NONE])
def test_every_reason_has_words_of_its_own(reason):
    words = phrase(reason, 7, tick(provision=3, desired=9))
    assert len(words) > 15
    assert not any(
        words == phrase(other, 7, tick(provision=3, desired=9))
        for other in Reason
        if other not in {reason, 0}
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (tick(), "holding 4: demand 480/s is served"),
        (tick(freshness=3, demand=float("nan")), "holding 4: no fresh metrics, and nothing to hold"),
        (
            tick((Stage.REACTIVE, Reason.DEMAND, 7), start=3, starting=2),
            "starting 3 (6 to 9): demand 480/s with headroom needs 7 VMs",
        ),
        (
            tick((Stage.ECONOMIC, Reason.FALL_DOUBTED, 4), demand=0.0),
            "holding 4: demand fell suddenly to 0/s, which is rare and may be an outage, so 4 VMs stay for a while",
        ),
        (
            tick((Stage.REACTIVE, Reason.DEMAND, 1), stop=3, demand=0.25),
            "stopping 3 (4 to 1): demand 0.25/s with headroom needs 1 VM",
        ),
        (
            tick((Stage.REACTIVE, Reason.DEMAND, 6), (Stage.COVER, Reason.FORECAST_COVER, 9), start=5),
            "starting 5 (4 to 9): by the time a start serves, demand may reach 1,234/s, which needs 9 VMs",
        ),
        (
            tick(
                (Stage.REACTIVE, Reason.DEMAND, 2),
                (Stage.STABILISATION, Reason.STABILISATION, 3),
                (Stage.DATA, Reason.LOW_COVERAGE, 4),
            ),
            (
                "holding 4: demand 480/s with headroom needs 2 VMs; 3 VMs stay, since as many were needed recently; "
                "only 50% of VMs report, so 4 VMs stay"
            ),
        ),
        (
            tick(
                (Stage.REACTIVE, Reason.CENSORED, 12),
                (Stage.BOUNDS, Reason.MAXIMUM, 10),
                (Stage.RATE, Reason.RATE_LIMIT_OUT, 8),
                (Stage.SUPPLY, Reason.PROVISION, 8),
                start=1,
                provision=3,
            ),
            (
                "starting 4 (4 to 8): VMs are saturated at 480/s, which hides further demand: plan for 12 VMs; the policy's maximum "
                "is 10; the rate limit allows 8 for now; the warm pool is empty, so 3 are provisioned from nothing"
            ),
        ),
    ],
)
def test_a_sentence(row, words):
    assert sentence(row) == words


@pytest.mark.parametrize(
    ("period_s", "words"),
    [(1800.0, "the odds of a burst at :30 are 0.7"), (86400.0, "the odds of a burst at 11:30 UTC are 0.7")],
)
def test_a_burst_that_is_due_is_told(period_s, words):
    row = replace(tick(), burst=DueBurst(1_795_606_200.0, 0.7, period_s))
    assert sentence(row) == f"holding 4: demand 480/s is served; {words}"


def test_a_burst_is_due_for_those_who_order_by_forecast():
    bursts = BurstOdds(
        odds=np.array([0.704, 0.9, 1.0, 0.31]),
        at_s=np.array([1_795_606_200.4, 1_795_606_200.0, np.nan, 1_795_606_260.0]),
        period_s=np.array([1800.0, 1800.0, 0.0, 3600.0]),
    )
    policies = [
        policy("web", forecast={"cover": "95%"}),
        policy("api"),
        policy("event", forecast={"cover": "95%"}),
        policy("batch", objective={"served": "99%"}),
    ]
    fleets = [SimpleNamespace(policy=one) for one in policies]
    assert due_bursts(bursts, fleets) == [
        DueBurst(1_795_606_200.0, 0.7, 1800.0),
        None,
        None,
        DueBurst(1_795_606_260.0, 0.31, 3600.0),
    ]
    assert due_bursts(None, fleets) == [None] * 4


HELD = SharedHold("gpu", "vms", 50.0, 0.0, 18, 1.2, "batch", 31, 2.0, priced=True, rival_priced=True)


@pytest.mark.parametrize(
    ("reason", "held", "words"),
    [
        (Reason.SHARED_VMS, HELD, "may run 50 VMs, which leaves 12 of 18 (VM 13 earns 1.2 times its cost, VM 31 of batch earns 2 times its cost)"),
        (Reason.SHARED_MONEY, replace(HELD, limit="money", most=120.5, rival="", rival_worth=None), "may cost 120.5/h, which leaves 12 of 18 (VM 13 earns 1.2 times its cost)"),
        (Reason.SHARED_STARTS, replace(HELD, limit="starts", most=20.0, per_s=60.0, worth=None, rival_priced=False), "may start 20 VMs in 60 s, which leaves 12 of 18 (VM 31 of batch would be 200% busy)"),
    ],
)  # fmt: skip
def test_who_holds_a_fleet_back_is_told_with_what_vms_earn(reason, held, words):
    row = replace(tick((Stage.SHARED, reason, 12)), shared=held)
    assert sentence(row) == f"holding 4: the group gpu {words}"


BY_PRICE = "forecast until a stopped VM is back, shortage at its price"
SOONER = "by the time a start serves, demand is below 1,234/s with 95 % probability"
DEARER = "shortage at 2 times its price, which would recently have cost least"


@pytest.mark.parametrize(
    ("reason", "model", "last", "words"),
    [
        (Reason.WORTH_START, BY_PRICE, 1.3, f"{SOONER}; at these prices it pays to have 6 VMs (VM 6 earns 1.3 times its cost, VM 7 earns 0.99 times its cost)"),
        (Reason.WORTH_START, BY_PRICE.replace("its", "2 times its"), 180.0, f"{SOONER}; with {DEARER}, it pays to have 6 VMs (VM 6 earns 180 times its cost, VM 7 earns 0.99 times its cost)"),
        (Reason.WORTH_KEEP, BY_PRICE, 1.0, "6 VMs stay: worth keeping by forecast and prices (VM 6 earns 1 times its cost, VM 7 earns 0.99 times its cost)"),
        (Reason.WORTH_KEEP, BY_PRICE.replace("its", "2 times its"), 99.0, f"6 VMs stay: worth keeping by forecast and prices, with {DEARER} (VM 6 earns 99 times its cost, VM 7 earns 0.99 times its cost)"),
    ],
)  # fmt: skip
def test_what_vms_earn_is_told_with_the_price_that_it_rests_on(reason, model, last, words):
    # What is less than the cost never reads as the cost.
    row = replace(tick((Stage.ECONOMIC, reason, 6)), earnings=Earnings(100.0, model, 6, 6, last, 0.997))
    assert sentence(row) == f"holding 4: {words}"


@virtual
async def test_sentences_of_a_run():
    bench = Bench(vms=4, zones="a")
    bench.add(
        policy(signal={"kind": "total"}, guards={"cooldown_in": "30s", "minimum_on_time": "60s"}),
        steady((0, 200), (40, 100)),
    )
    await bench.run(90)
    assert bench.column("sentence") == [
        "starting 2 (0 to 2): demand 200/s with headroom needs 2 VMs",
        "holding 2: demand 200/s with headroom needs 2 VMs",
        "holding 2: demand 200/s with headroom needs 2 VMs",
        "holding 2: demand 200/s with headroom needs 2 VMs",
        "holding 2: demand 100/s with headroom needs 1 VM; 2 VMs stay: on for less than the minimum time, or protected",
        "holding 2: demand 100/s with headroom needs 1 VM; 2 VMs stay: on for less than the minimum time, or protected",
        "holding 2: demand 100/s with headroom needs 1 VM; 2 VMs stay: on for less than the minimum time, or protected",
        "holding 2: demand 100/s with headroom needs 1 VM; 2 VMs stay: on for less than the minimum time, or protected",
        "stopping 1 (2 to 1): demand 100/s with headroom needs 1 VM",
        "holding 1: demand 100/s with headroom needs 1 VM",
    ]
