"""Objectives: what they mean in VM-ticks, what they switch off, and what is refused."""

from __future__ import annotations

import pytest

from autoscaler.config.compiling import compile_params
from autoscaler.config.compiling_objective import objective_in_words
from autoscaler.config.loading import load_policies
from autoscaler.config.policy import policy_from

FLEET = {
    "fleet": "web",
    "signal": {"kind": "total", "source": "trace"},
    "vm": {"capacity": "100/s", "start_time": "40s", "stop_time": "40s"},
    "bounds": {"minimum": 0, "maximum": 50},
    "prices": {"in_service": "0.1/h", "stopped": "0.005/h", "start": 0.0005, "provision": 0.01},
}
YAML = """
fleet: web
signal: {{kind: total, source: trace}}
vm: {{capacity: 100/s}}
bounds: {{minimum: 0, maximum: 50}}
prices: {{in_service: {price}/h}}
objective: {objective}
{more}
"""


def lanes(tick_s=10.0, **changed):
    return compile_params([policy_from({**FLEET, **changed})], tick_s, 0.0).lanes


def loaded(folder, objective, *, price="0.1", more="", defaults=""):
    (folder / "web.yaml").write_text(YAML.format(objective=objective, price=price, more=more))
    (folder / "defaults.yaml").write_text(defaults or "act: false\n")
    return load_policies(folder)


def test_prices_become_vm_ticks():
    got = lanes(objective={"shortage_price": "12/h"})
    # 12 / 0.1; a start is billed for its 40 s, 4 ticks, and 0.0005 buys 18 VM-seconds, 1.8 ticks; made anew: 360 s.
    figures = {
        "shortage_price": 120.0,
        "unserved_target": 0.0,
        "start_cost": 5.8,
        "lead_ticks": 4,
        "hold_ticks": 30,
        "billed_ticks": 6,
        "stopped_cost": 0.05,
        "provision_cost": 36.0,
        "cold_ticks": 26.0,
    }
    for name, value in figures.items():
        assert getattr(got, name).tolist() == pytest.approx([value]), name


def test_only_ratios_of_prices_count():
    twice = {
        key: f"{2 * float(value.removesuffix('/h'))}/h" if isinstance(value, str) else 2 * value
        for key, value in FLEET["prices"].items()
    }
    one = lanes(objective={"shortage_price": "12/h"})
    two = lanes(objective={"shortage_price": "24/h"}, prices=twice)
    for name in ("shortage_price", "start_cost", "stopped_cost", "provision_cost"):
        assert getattr(one, name).tolist() == pytest.approx(getattr(two, name).tolist()), name


def test_a_served_share_needs_no_price():
    got = lanes(objective={"served": "99.9%"}, prices={})
    assert got.unserved_target.tolist() == pytest.approx([0.001])
    assert (got.shortage_price > 1).all()
    assert got.start_cost.tolist() == [4.0]


def test_a_start_that_comes_within_a_long_tick_costs_all_of_it():
    assert lanes(300.0, objective={"served": "99%"}, prices={}).start_cost.tolist() == [1.0]


def test_guards_that_prices_replace_are_off_unless_they_are_written():
    relaxed = policy_from({**FLEET, "objective": {"served": "99%"}}).guards
    assert (relaxed.stabilisation_s, relaxed.cooldown_in_s, relaxed.minimum_on_time_s) == (0, 0, 60)
    assert relaxed.rate_in.vms == 100_000
    kept = policy_from({**FLEET, "objective": {"served": "99%"}, "guards": {"cooldown_in": "90s"}}).guards
    assert (kept.stabilisation_s, kept.cooldown_in_s) == (0, 90)
    assert policy_from({**FLEET, "reactive": {}}).guards.stabilisation_s == 300


def test_guards_of_the_defaults_are_for_other_fleets(tmp_path):
    defaults = "guards: {stabilisation: 5m, cooldown_in: 2m, minimum_coverage: 50%}\n"
    (policy,) = loaded(tmp_path, "{served: 99.9%}", defaults=defaults).policies
    assert (policy.guards.stabilisation_s, policy.guards.cooldown_in_s) == (0, 0)
    assert policy.guards.minimum_coverage == 0.5
    (policy,) = loaded(
        tmp_path, "{served: 99.9%}", defaults=defaults, more="guards: {stabilisation: 7m}"
    ).policies
    assert (policy.guards.stabilisation_s, policy.guards.cooldown_in_s) == (420, 0)
    (policy,) = loaded(tmp_path, "off", defaults=defaults, more="reactive: {}").policies
    assert (policy.guards.stabilisation_s, policy.guards.cooldown_in_s) == (300, 120)


@pytest.mark.parametrize(
    ("objective", "price", "said"),
    [
        ("{}", "0.1", "`objective` is empty"),
        ("{served: 99%, shortage_price: 2/h}", "0.1", "says both"),
        ("{shortage_price: 2/h}", "0", "can only be weighed against `prices.in_service`"),
        ("{shortage_price: 0.1/h}", "0.1", "nothing would ever be started"),
        ("{served: 100%}", "0.1", "out of range"),
    ],
)
def test_objectives_that_cannot_be_meant_are_refused(tmp_path, objective, price, said):
    found = loaded(tmp_path, objective, price=price)
    assert not found.policies
    assert any(said in str(problem) for problem in found.errors)


def test_what_an_objective_means_is_told_in_seconds_of_a_vm():
    words = objective_in_words(policy_from({**FLEET, "objective": {"shortage_price": "12/h"}}))
    assert words == (
        "web: an hour of unserved work of one VM costs as much as 120 VM-hours, a start costs 58 VM-seconds, "
        "a stopped VM costs a VM-second every 20 s, one made from nothing 360 VM-seconds"
    )
    assert "of 1,000 VM-hours of work 1 may find no VM" in objective_in_words(
        policy_from({**FLEET, "objective": {"served": "99.9%"}})
    )
    assert objective_in_words(policy_from({**FLEET, "reactive": {}})) == ""


# ── hibernation ─────────────────────────────────────────────────────────────────────────────────────────


def test_memories_become_vm_ticks():
    got = lanes(
        objective={"shortage_price": "12/h"},
        warm_pool={"hibernate": {"start_time": "15s", "save_time": "50s"}},
        prices={**FLEET["prices"], "memory": "0.002/h"},
    )
    # 25 s sooner, all of it billed; the horizon of a fleet that hibernates is a day, 8640 ticks at 0.02.
    figures = {
        "hibernate": True,
        "sooner_ticks": 2.5,
        "unbilled_ticks": 2.5,
        "saving_cost": 5.0,
        "memory_cost": 172.8,
    }
    for name, value in figures.items():
        assert getattr(got, name).tolist() == pytest.approx([value]), name


def test_of_a_start_that_is_billed_in_part_so_much_is_saved():
    got = lanes(
        objective={"shortage_price": "12/h"},
        warm_pool={"hibernate": {"start_time": "15s"}},
        prices={**FLEET["prices"], "start_billed": "10s"},
    )
    assert got.unbilled_ticks.tolist() == pytest.approx([0.625])
    slower = lanes(objective={"shortage_price": "12/h"}, warm_pool={"hibernate": {"start_time": "60s"}})
    assert (slower.sooner_ticks.tolist(), slower.unbilled_ticks.tolist()) == ([-2.0], [0.0])


def test_how_much_sooner_is_unknown_until_somebody_says_it():
    got = lanes(objective={"shortage_price": "12/h"}, warm_pool={"hibernate": {}})
    assert got.hibernate.tolist() == [True]
    assert got.sooner_ticks.tolist() == pytest.approx([float("nan")], nan_ok=True)
    assert got.unbilled_ticks.tolist() == [0.0]
    assert lanes(objective={"shortage_price": "12/h"}).hibernate.tolist() == [False]


def test_a_memory_is_told_in_words():
    said = policy_from(
        {
            **FLEET,
            "objective": {"shortage_price": "12/h"},
            "warm_pool": {"hibernate": {}},
            "prices": {**FLEET["prices"], "memory": "0.002/h"},
        }
    )
    assert objective_in_words(said).endswith("saving a memory 60 VM-seconds and holding it 1.2 a minute")
