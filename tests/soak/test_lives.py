"""Hours of fleets of all kinds with random troubles: no call breaks a law, and the end state is correct.

`live(seed, hours)` lives others, and longer.
"""

from __future__ import annotations

import pytest

from autoscaler.clock import run_virtual
from autoscaler.daemon.vms.tracked import PROTECTED_TAG
from autoscaler.ports import ProvisionSpec
from tests.soak.households import MOST, VMS
from tests.soak.lives import House, Lived, live

pytestmark = pytest.mark.timeout(600)
"""A life takes ten to twenty seconds where nothing else runs."""

HOURS = 4.5
SEEDS = (3,)


@pytest.fixture(scope="module", params=SEEDS)
def lived(request) -> Lived:
    found = live(request.param, HOURS)
    print(f"{found.ticks} ticks; met: {dict(found.met)}")
    return found


def test_no_law_is_broken(lived) -> None:
    assert lived.wrong == []


def test_what_it_costs_is_what_the_world_bills(lived) -> None:
    assert lived.costs
    for fleet, (told, billed) in lived.costs.items():
        # A run is known to begin between two listings only.
        assert told == pytest.approx(billed, rel=0.02, abs=0.01), fleet


def test_no_law_is_broken_where_the_clock_is_set() -> None:
    """By an hour ahead while VMs drain, by an hour back just after orders, and by seconds; the time that passes goes on."""
    found = live(2, 2.5, jumps=True)
    assert found.wrong == []
    assert {what for what in found.met if what.startswith("the clock")} == {
        "the clock is set ahead",
        "the clock is set back",
    }


def test_calls_people_and_troubles_were_met(lived) -> None:
    assert set(lived.met) >= {"start", "stop", "provision", "admit", "cordon", "look", "accepted", "unknown"}
    for who in ("somebody", "operator", "reload"):
        assert [what for what in lived.met if what.startswith(f"{who}: ")]
    assert any(lived.met[what] for what in lived.met if what.startswith("the balancer"))
    assert lived.met["the balancer does not say of one VM"]


def test_what_breaks_a_law_is_seen() -> None:
    """The laws themselves, by calls that no daemon makes."""

    async def live_it() -> list[str]:
        house = House(4, 2.0)
        house.begin()
        now_s = house.clock.now()
        first, second, *_ = (view.id for view in house.views("api"))
        house.world.start(now_s, [first, second])
        await house.clock.sleep_until(600.0)
        assert {first, second} == set(house.ready("api"))
        vms = {vm.id: vm for vm in (await house.provider.list_vms()).vms}
        await house.fronts["api"].admit([vms[first], vms[second]])
        await house.provider.stop([first])
        await house.fronts["api"].cordon([vms[second]])
        house.fronts["api"].out_s[second] = (house.clock.now(), house.clock.now() + 60.0)
        await house.provider.stop([second])
        house.world.tag(house.clock.now(), [first], {PROTECTED_TAG: "by hand"})
        house.protected_s[first] = house.clock.now()
        await house.clock.sleep_until(700.0)
        await house.provider.list_vms()
        await house.provider.stop([first])
        await house.provider.terminate([first])
        await house.provider.provision(ProvisionSpec("api", "api", "$Default"), MOST - VMS + 2, "a token")
        await house.journal.close()
        return [text.partition(": api: ")[2] for text in house.lived.wrong]

    unrecorded, said = [], []
    for text in run_virtual(live_it):
        (unrecorded if "recorded" in text else said).append(text)
    # Two stops, the third of the same VM, a deletion and a provisioning, none of which is in the journal.
    assert [text.partition(" of ")[0] for text in unrecorded] == ["stop"] * 3 + ["terminate", "provision"]
    assert [text.split(" is ", 1)[-1] for text in said[:4]] == [
        "stopped and gets work (None)",
        "stopped with work 0 s after its cordon",
        "stopped and protected",
        "deleted and protected",
    ]
    assert said[4] == f"{MOST - VMS + 2} made beside {VMS - 1} of {MOST}"
