"""Readings that arrived but do not count are named where people look, with advice."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from autoscaler.clock import run_virtual
from autoscaler.daemon.doubted_readings import complaint, counting, doubts
from autoscaler.ports import FleetReadings
from autoscaler.web.status import status
from tests.daemon.builders import Bench, policy

MEND = "demand is a finite number of at least 0, so fix what is measured there"
DOUBTS = {
    "not a number": ((math.nan, 0.0), f"1 of 3 readings is impossible: not a number at {{0}}; {MEND}"),
    "infinite": ((math.inf, 0.0), f"1 of 3 readings is impossible: infinite at {{0}}; {MEND}"),
    "negative": ((-5.0, 0.0), f"1 of 3 readings is impossible: negative at {{0}}; {MEND}"),
    "old": ((100.0, -40.0), "1 of 3 readings is older than 30 s at {0}; check that the exporter or sender runs"),
    "ahead": ((100.0, 40.0), "1 of 3 readings is stamped more than 5 s ahead of our clock at {0}; set both clocks"),
}  # fmt: skip


class Odd:
    """A source in which all VMs are well except the first, until it is repaired."""

    def __init__(self, clock, value, off_s, *, total=False):
        self.clock, self.value, self.off_s, self.total, self.first = clock, value, off_s, total, ""

    async def read(self, vms):
        ids = ("",) if self.total else tuple(vm.id for vm in vms)
        values, stamps = np.full(len(ids), 100.0), np.full(len(ids), self.clock.now())
        values[:1], self.first = self.value, "".join(ids[:1])
        stamps[:1] += self.off_s
        return FleetReadings(ids, values, stamps)

    async def close(self):
        pass


@pytest.mark.parametrize("kind", DOUBTS)
def test_a_reading_that_does_not_count_is_named_in_the_status_once_and_until_it_is_mended(kind):
    (value, off_s), said = DOUBTS[kind]

    async def life():
        bench = Bench(vms=3, running=3)
        odd = bench.add(policy(), Odd(bench.clock, value, off_s))
        told = []

        def look():
            told.append(status(bench.daemon)["fleets"][0]["source_error"])
            odd.value, odd.off_s = 100.0, 0.0

        asyncio.get_running_loop().call_later(45.0, look)
        await bench.run(60)
        told.append(status(bench.daemon)["fleets"][0]["source_error"])
        return told, bench.log.texts("source_failed"), said.format(odd.first)

    (before, after), logged, expected = run_virtual(life)
    assert before.startswith(expected)
    assert after == ""
    assert logged == [before]


@pytest.mark.parametrize("kind", DOUBTS)
def test_one_reading_for_the_fleet_names_no_vm(kind):
    (value, off_s), said = DOUBTS[kind]

    async def life():
        bench = Bench(vms=3, running=3)
        bench.add(policy(signal={"kind": "total"}), Odd(bench.clock, value, off_s, total=True))
        await bench.run(30)
        return status(bench.daemon)["fleets"][0]["source_error"]

    expected = said.replace("1 of 3 readings is", "the reading is").replace(" at {0}", "")
    assert run_virtual(life).startswith(expected)


def test_many_are_counted_by_kind_and_three_are_named():
    ids = tuple("abcdefgh")
    values = np.array([math.nan] * 5 + [-1.0, math.inf, 2.0])
    text = doubts(FleetReadings(ids, values, np.full(8, 100.0)), 100.0, 60.0)
    assert text.startswith(
        "7 of 8 readings are impossible: not a number at a, b, c and 2 more, infinite at g, negative at f; "
    )
    assert doubts(FleetReadings(ids, np.zeros(8), np.full(8, 100.0)), 100.0, 60.0) == ""
    assert doubts(FleetReadings((), np.empty(0), np.empty(0)), 100.0, 60.0) == ""


def three(*values, at_s=100.0, error=""):
    return FleetReadings(tuple("abc"), np.array(values), np.broadcast_to(np.array(at_s), 3), error)


def test_only_a_missing_number_may_be_nothing_divided_by_nothing():
    some = doubts(three(math.nan, -1.0, 1.0), 100.0, 60.0)
    assert some.endswith("so fix what is measured there (0 divided by 0 gives no number)")
    assert doubts(three(0.0, -1.0, 1.0), 100.0, 60.0) == (
        "1 of 3 readings is impossible: negative at b; demand is a finite number of at least 0, so fix what is measured there"
    )


def test_three_are_named_and_none_is_left_to_count():
    assert "negative at a, b, c;" in doubts(three(-1.0, -1.0, -1.0), 100.0, 60.0)


def test_readings_that_are_just_young_or_just_in_time_count():
    young = three(1.0, 0.5, 0.0, at_s=[40.0, 105.0, 100.0])
    assert (doubts(young, 100.0, 60.0), counting(young, 100.0, 60.0)) == ("", 3)


def test_how_many_count():
    one_of_each = three(math.nan, 1.0, 1.0, at_s=[100.0, 39.0, 106.0])
    assert counting(one_of_each, 100.0, 60.0) == 0
    assert counting(three(math.inf, 1.0, 2.0), 100.0, 60.0) == 2


FRESH, STALE = 0, 1


def test_a_complaint_is_what_the_source_says_and_what_is_wrong_with_what_came():
    odd = three(-1.0, 1.0, 2.0, error="c: refused")
    doubted = doubts(odd, 100.0, 60.0)
    beyond = "b, c report many times what a VM can do, unlike the others; fix what is measured there"
    for values in ((0, 0, STALE, 1.0), (0, 0, FRESH, 0.9)):
        assert complaint(odd, values, 100.0, 60.0) == f"c: refused; {doubted}"
    # If all readings count, no reason is looked for.
    assert complaint(odd, (0, 0, FRESH, 1.0), 100.0, 60.0) == "c: refused"
    well = three(1.0, 2.0, 3.0)
    assert complaint(well, (0, 0, FRESH, 1.0), 100.0, 60.0, {"c": 1.0, "b": 2.0}) == beyond
    assert complaint(well, (0, 0, FRESH, 1.0), 100.0, 60.0, ["a"]).startswith("a reports many times")


def test_what_was_ahead_when_it_came_stays_ahead_and_what_came_in_time_gets_old():
    one = ("a",)
    came = FleetReadings(one, np.ones(1), np.array([110.0]), received_at_s=np.array([100.0]))
    assert "ahead of our clock at a" in doubts(came, 110.0, 60.0)
    assert "older than 60 s at a" in doubts(FleetReadings(one, np.ones(1), np.array([10.0])), 100.0, 60.0)
