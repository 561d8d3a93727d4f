"""What is known about places: how long they stay without room, one probe at a time, quotas of a family, odds by hour."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.places import Places, family
from autoscaler.ports import Verb, VmState
from tests.daemon.one_vm import Fleet

OWN, OTHER, ZONE = "m7i.large", "g6.xlarge", "a"


def test_a_place_is_dry_for_three_minutes_then_six_then_ten():
    places, now_s, ends = Places(), 0.0, []
    for _ in range(5):
        places.claim(OWN, ZONE, now_s)
        places.found_dry(OWN, ZONE, now_s)
        ends.append(places.free_from_s(OWN, ZONE) - now_s)
        now_s = places.free_from_s(OWN, ZONE)
    assert ends == [180, 360, 600, 600, 600]


def test_failures_of_one_moment_are_one_finding():
    places = Places()
    for at_s in (0.0, 0.1, 2.0):
        places.found_dry(OWN, ZONE, at_s)
    assert places.free_from_s(OWN, ZONE) == 182.0


def test_one_vm_is_tried_when_the_time_is_over_and_nobody_else_until_that_is_known():
    places = Places()
    places.found_dry(OWN, ZONE, 0.0)
    assert [places.at_most(OWN, ZONE, at_s) for at_s in (0.0, 179.9, 180.0)] == [0, 0, 1]
    places.claim(OWN, ZONE, 180.0)
    assert places.at_most(OWN, ZONE, 180.0) == 0
    places.found_room(OWN, ZONE)
    assert places.at_most(OWN, ZONE, 181.0) == math.inf


def test_a_try_that_was_not_sent_is_anybodys_again_and_one_that_was_claimed_since_is_not():
    places = Places()
    places.found_dry(OWN, ZONE, 0.0)
    places.claim(OWN, ZONE, 180.0)
    version = places.version
    places.give_back(OWN, ZONE, 179.0, 181.0)
    places.give_back_all_of(179.0)
    assert (places.at_most(OWN, ZONE, 181.0), places.version) == (0, version)
    places.give_back(OWN, ZONE, 180.5, 181.0)
    assert (places.at_most(OWN, ZONE, 181.0), places.version) == (1, version + 1)
    places.claim(OWN, ZONE, 190.0)
    places.give_back_all_of(190.0)
    assert places.at_most(OWN, ZONE, 190.0) == 1
    # It is found dry again as after any other try.
    places.claim(OWN, ZONE, 190.0)
    places.found_dry(OWN, ZONE, 191.0)
    places.give_back(OWN, ZONE, 190.0, 192.0)
    assert places.free_from_s(OWN, ZONE) == 191.0 + 2 * 180.0


def test_a_place_without_room_for_many_may_have_room_for_a_quarter_and_then_half_of_what_may_be_left():
    places = Places()
    places.found_dry(OWN, ZONE, 0.0, vms=25)
    assert places.at_most(OWN, ZONE, 0.0) == 6
    places.claim(OWN, ZONE, 0.0)
    assert places.at_most(OWN, ZONE, 0.0) == 0
    # Another fleet's call for more of them, from the same moment, does not end this try.
    places.found_dry(OWN, ZONE, 0.1, vms=30)
    assert places.at_most(OWN, ZONE, 0.1) == 0
    places.found_room(OWN, ZONE, 6)
    assert places.take_room_again()
    assert places.at_most(OWN, ZONE, 1.0) == (25 - 6) // 2
    places.claim(OWN, ZONE, 1.0)
    places.give_back(OWN, ZONE, 1.0, 2.0)
    assert places.at_most(OWN, ZONE, 2.0) == 9
    places.claim(OWN, ZONE, 2.0)
    places.found_dry(OWN, ZONE, 3.0, vms=4)
    assert places.at_most(OWN, ZONE, 3.0) == 1
    places.claim(OWN, ZONE, 3.0)
    places.found_dry(OWN, ZONE, 4.0)
    assert [places.at_most(OWN, ZONE, at_s) for at_s in (4.0, 183.9, 184.0)] == [0, 0, 1]
    assert not Places().take_room_again()


def test_a_place_without_room_for_a_few_has_none():
    places = Places()
    for vms in (1, 2, 3):
        places.found_dry(OWN, ZONE, 0.0, vms=vms)
        assert places.at_most(OWN, ZONE, 0.0) == 0


def test_a_quota_holds_the_whole_family_everywhere_and_a_lack_of_room_its_place_only():
    places = Places()
    places.found_dry(OWN, ZONE, 0.0, quota=True)
    assert places.at_most("c7i.large", "b", 1.0) == 0
    assert places.at_most(OTHER, ZONE, 1.0) == math.inf
    places = Places()
    places.found_dry(OWN, ZONE, 0.0)
    assert places.at_most(OWN, "b", 1.0) == places.at_most("c7i.large", ZONE, 1.0) == math.inf


@pytest.mark.parametrize(
    ("vm_type", "shares"),
    [
        ("t3.micro", "standard"),
        ("im4gn.large", "standard"),
        ("g6.xlarge", "g"),
        ("dl1.24xlarge", "dl"),
        ("inf2.xlarge", "inf"),
    ],
)
def test_families_are_those_of_the_quotas(vm_type, shares):
    assert family(vm_type) == shares


def test_odds_by_hand_and_only_in_the_hour_that_is_bad():
    places = Places()
    assert places.success(OWN, ZONE, 0.0) == 1.0
    places.tell(OWN, ZONE, 0.0, tried=10, failed=5)
    # Overall (10 - 5 + 10) / 20; in this hour (10 - 5 + 10 * 0.75) / 20; in another there is only the overall.
    assert places.success(OWN, ZONE, 0.0) == pytest.approx(0.625)
    assert places.success(OWN, ZONE, 3600.0) == pytest.approx(0.75)
    assert places.success(OWN, "b", 0.0) == 1.0


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1), st.floats(0, 1e6)), max_size=30))
def test_odds_are_odds(told):
    places, now_s = Places(), 0.0
    for tried, share, wait_s in told:
        now_s += wait_s
        places.tell(OWN, ZONE, now_s, tried=tried, failed=int(tried * share))
        assert 0.0 < places.success(OWN, ZONE, now_s) <= 1.0


def test_a_start_that_comes_into_service_speaks_for_its_place():
    fleet = Fleet()
    place = fleet.vm.vm.vm_type, fleet.vm.vm.zone
    fleet.inventory.places.tell(*place, 0.0, tried=1, failed=1)
    odds = [fleet.inventory.places.success(*place, 0.0)]
    fleet.order(Verb.START, 100)
    for at in (120, 220):
        fleet.see(VmState.RUNNING, at, launched=100)
        fleet.ready(at)
        odds.append(fleet.inventory.places.success(*place, 0.0))
        # It comes back to its balancer, which is no start.
        fleet.vm.move(Phase.RUNNING, at + 10)
    assert odds[0] < odds[1] == odds[2]
