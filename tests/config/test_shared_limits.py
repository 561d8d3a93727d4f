"""Limits shared by fleets, as people write them: what is accepted and what is refused, with its position."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.config.compiling import compile_params
from autoscaler.config.loading import load_policies
from autoscaler.config.rendering import effective_yaml
from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.lanes.refusals import refuse
from tests.daemon.builders import policy

FLEETS = {
    "web": {"minimum": 2, "price": "0.1/h"},
    "batch": {"minimum": 0, "price": "0.5/h"},
    "batch-eu": {"minimum": 3, "price": "0.5/h"},
}


def folder(tmp_path, shared, fleets=FLEETS, **more):
    (tmp_path / "defaults.yaml").write_text(f"reactive: {{}}\nshared:\n{shared}")
    for name, of in fleets.items():
        (tmp_path / f"{name}.yaml").write_text(
            f"fleet: {name}\nsignal: {{kind: total, source: push}}\nvm: {{capacity: 100/s}}\n"
            f"bounds: {{minimum: {of['minimum']}, maximum: 60}}\nprices: {{in_service: {of['price']}}}\n"
            + more.get(name.replace("-", "_"), "")
        )
    return load_policies(tmp_path)


GOOD = '  - {name: gpu, fleets: [web, "batch-*"], most_vms: 50, most_money: 120/h, most_starts: {vms: 20, per: 30s}}\n'


def test_groups_become_lanes_that_share(tmp_path):
    loaded = folder(tmp_path, GOOD)
    assert (loaded.errors, loaded.warnings) == ((), ())
    lanes = compile_params(loaded.policies, 10.0, 0.0).lanes
    assert [policy.fleet for policy in loaded.policies] == ["batch", "batch-eu", "web"]
    assert lanes.group.tolist() == [-1, 0, 0]
    assert lanes.group_vms.tolist() == [np.inf, 50.0, 50.0]
    assert lanes.group_money.tolist() == [np.inf, 120.0, 120.0]
    assert lanes.group_starts.tolist() == [np.inf, 20.0, 20.0]
    assert lanes.group_period_s.tolist() == [60.0, 30.0, 30.0]
    assert lanes.vm_price.tolist() == [0.5, 0.5, 0.1]


def test_fleets_in_shadow_share_among_themselves(tmp_path):
    loaded = folder(tmp_path, GOOD, batch_eu="act: true\n")
    assert len(set(compile_params(loaded.policies, 10.0, 0.0).lanes.group[1:].tolist())) == 2


@pytest.mark.parametrize(
    ("shared", "at", "words"),
    [
        ("  - {name: a, fleets: [wab, batch], most_vms: 9}\n", (3, 24), "no policy of this folder is for a fleet `wab`; did you mean `web`?"),
        ('  - {name: a, fleets: [web], most_vms: 9}\n  - {name: b, fleets: ["*"], most_vms: 9}\n', (4, 24), "fleet `web` is in the group a already; keep a fleet in one group"),
        ("  - {name: a, fleets: [web], most_vms: 9}\n  - {name: a, fleets: [batch], most_vms: 9}\n", (4, 12), "there are two groups a"),
        ("  - {name: a, fleets: [web]}\n", (3, 5), "the group a limits nothing"),
        ("  - name: a\n    fleets: [web, batch-eu]\n    most_vms: 4\n", (5, 15), "the minimums of its fleets (batch-eu 3, web 2) are 5 VMs, and the group a may run 4"),
        ("  - {name: a, fleets: [web, batch-eu], most_money: 1.5/h}\n", (3, 52), "cost 1.7/h, and the group a may cost 1.5/h"),
        ("  - {name: a, fleets: [web], most_vm: 9}\n", (3, 30), "unknown key `shared[0].most_vm`; did you mean `most_vms`?"),
        ("  - {name: a, fleets: [], most_vms: 9}\n", (3, 23), "the group a has no fleets; write their names"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place_in_the_defaults(tmp_path, shared, at, words):
    first = folder(tmp_path, shared).errors[0]
    assert (first.mark.file.name, first.mark.line, first.mark.column) == ("defaults.yaml", *at), str(first)
    assert words in str(first)


def test_a_budget_needs_prices(tmp_path):
    free = {**FLEETS, "web": {"minimum": 1, "price": "0/h"}}
    (error,) = folder(tmp_path, "  - {name: a, fleets: [web], most_money: 9/h}\n", free).errors
    assert "what VMs of web cost is not known" in str(error)


def test_limits_that_the_minimums_just_reach_are_enough(tmp_path):
    loaded = folder(tmp_path, "  - {name: a, fleets: [web, batch-eu], most_vms: 5, most_money: 1.7/h}\n")
    assert (loaded.errors, loaded.warnings) == ((), ())


def test_fleets_with_and_without_an_objective_in_one_group_are_warned_of(tmp_path):
    loaded = folder(tmp_path, GOOD, web="objective: {served: 99.9%}\nreactive: off\n")
    assert loaded.errors == ()
    (warning,) = (each for each in loaded.warnings if each.mark.file.name == "defaults.yaml")
    assert "batch-eu have no objective" in str(warning)


def test_a_fleet_cannot_say_other_limits_than_the_others_have(tmp_path):
    loaded = folder(tmp_path, GOOD, web="shared: [{name: gpu, fleets: [web], most_vms: 99}]\n")
    (error,) = loaded.errors
    assert (error.mark.file.name, error.mark.line) == ("web.yaml", 6)
    assert "write `shared` into defaults.yaml alone" in str(error)


def test_a_printed_policy_with_limits_loads_again_in_its_folder(tmp_path):
    before = folder(tmp_path, GOOD)
    (web,) = (each for each in before.policies if each.fleet == "web")
    (tmp_path / "web.yaml").write_text(effective_yaml(web))
    after = load_policies(tmp_path)
    assert after.errors == ()
    assert after.policies == before.policies


def test_lanes_refuse_and_name_the_engine_that_can():
    shared = [{"name": "gpu", "fleets": ["web", "batch"], "most_vms": 5}]
    with pytest.raises(ConfigError, match=r"apply to several fleets.*the loop engine .* can"):
        refuse([policy(shared=shared)], [PlantSettings()], 10.0)
