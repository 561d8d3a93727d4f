"""A host that is unreachable holds the fleets that have VMs on it, and no others."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.clock import run_virtual
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.inventory import FleetInventory, Patience, Phase
from autoscaler.daemon.vms.listing_parts import Parts
from autoscaler.ports import Listing, Outcome, OutcomeKind, Verb, VmState
from autoscaler.store import SqliteJournal
from tests.daemon.builders import ORIGIN_S, Bench, policy, reconcile, steady, virtual, vm

A, B = "us-east-1a", "us-east-1b"
AWAY = "us-east-1b: no answer within 4 s"


def listed(*vms, at, **parts):
    """A listing of the zones a and b, with an error text for each zone that is away."""
    told = {"a": "", "b": "", **parts}
    problems = [text for text in told.values() if text]
    return Listing(tuple(vms), not problems, at, at, "; ".join(problems), parts=told)


# ── one fleet ──────────────────────────────────────────────────────────────────────────────────────────


def missed(parts, listing, *zones, awaits=False):
    return parts.follow(listing, lambda: list(zones), awaits=awaits)


def test_a_fleet_waits_for_the_parts_that_its_vms_are_in():
    parts = Parts()
    assert missed(parts, listed(at=0)) == ""
    away = listed(at=10, b="b: gone")
    assert (missed(parts, away, "b"), parts.missing_zones) == ("b: gone", ("b",))
    assert (missed(parts, away, "a"), parts.missing_zones) == ("", ())
    assert missed(parts, away, "a", "b") == "b: gone"
    assert (missed(parts, listed(at=20), "b"), parts.missing_zones) == ("", ())


def test_vms_that_may_be_anywhere_make_it_wait_for_all_parts():
    parts = Parts()
    missed(parts, listed(at=0))
    away = listed(at=10, b="b: gone")
    assert missed(parts, away, "a", awaits=True) == "b: gone"
    assert missed(parts, away, "", "a") == "b: gone"


def test_a_part_that_was_never_seen_may_have_vms_of_it():
    parts = Parts()
    assert missed(parts, listed(at=0, b="b: gone"), "a") == "b: gone"
    assert missed(parts, listed(at=10, a="a: gone"), "a") == "a: gone"
    # By now both have been seen, though never together.
    assert missed(parts, listed(at=20, b="b: gone"), "a") == ""


def test_what_an_earlier_run_remembers_says_where_it_had_vms():
    parts = Parts()
    parts.recall(["a"])
    assert missed(parts, listed(at=0, b="b: gone")) == ""
    parts.recall(["a", "b"])
    assert missed(parts, listed(at=0, b="b: gone")) == "b: gone"
    parts.recall([])
    assert missed(parts, listed(at=0, b="b: gone")) == ""
    # A host of another name may be the one that had them.
    parts.recall(["a", "c"])
    assert missed(parts, listed(at=0, b="b: gone")) == "b: gone"
    # One of them was not known to be anywhere yet.
    parts.recall(["", "a"])
    assert missed(parts, listed(at=0, b="b: gone")) == "b: gone"
    with pytest.raises(TypeError):
        parts.recall([1])


def test_a_listing_that_names_no_parts_is_everybodys():
    parts = Parts()
    missed(parts, Listing((), True, 0.0, 0.0))
    assert missed(parts, Listing((), False, 10.0, 10.0, "a page is missing"), "a") == "a page is missing"
    assert missed(parts, Listing((), False, 10.0, 10.0)) == "the list of VMs is not whole"
    assert not parts.exist


class Followed:
    """A fleet with a VM in each zone, by listings."""

    def __init__(self):
        self.inventory = FleetInventory("web", Patience(absent_s=20.0))
        self.one, self.other = vm("i-a", VmState.STOPPED, zone="a"), vm("i-b", VmState.STOPPED, zone="b")
        self.see(self.one, self.other, at=0)

    def see(self, *vms, at, **parts):
        notes = reconcile(self.inventory, listed(*vms, at=at, **parts), vms, at)
        return [note.kind for note in notes]

    def phase(self, vm_id):
        return self.inventory.vms[vm_id].phase


def test_a_vm_is_gone_only_by_listings_that_are_whole_for_its_zone():
    fleet = Followed()
    told = [fleet.see(at=at, b="b: gone") for at in range(10, 1000, 10)]
    assert "i-b" in fleet.inventory.vms
    # Ten minutes, since nothing at all of the fleet is there any more.
    assert "i-a" not in fleet.inventory.vms
    assert [kind for kinds in told for kind in kinds] == ["vms_unlisted", "vm_gone"]
    assert [fleet.see(fleet.one, at=at) for at in (1000, 1010, 1020)] == [[], [], ["vm_gone"]]
    assert set(fleet.inventory.vms) == {"i-a"}


def test_vms_are_not_said_to_be_listed_again_by_a_listing_that_cannot_show_them():
    fleet = Followed()
    told = [fleet.see(at=at) for at in (10, 20, 30)]
    # First a part is missing, then the listings may be older than orders for all of these VMs.
    told.append(fleet.see(at=40, a="a: gone", b="b: gone") + fleet.see(at=50, b="b: gone"))
    fleet.inventory.sent(Verb.START, ["i-a", "i-b"], 2, 1, 55.0)
    told.append(fleet.see(at=60))
    assert fleet.inventory.vanished
    fleet.inventory.settle(Verb.START, [Outcome(i, OutcomeKind.REFUSED) for i in ("i-a", "i-b")], 55.0, 65.0)
    told += [fleet.see(at=70), fleet.see(fleet.one, fleet.other, at=80)]
    assert [kind for kinds in told for kind in kinds] == ["vms_unlisted", "vms_listed"]
    assert not fleet.inventory.vanished


def test_one_of_a_zone_that_answers_is_gone_in_the_usual_time():
    fleet = Followed()
    third = vm("i-c", VmState.STOPPED, zone="a")
    fleet.see(fleet.one, fleet.other, third, at=5)
    told = [fleet.see(fleet.one, at=at, b="b: gone") for at in (10, 20, 30, 40)]
    assert told == [[], [], ["vm_gone"], []]
    assert set(fleet.inventory.vms) == {"i-a", "i-b"}


def test_what_is_away_is_as_it_was_and_the_listing_is_not_whole():
    fleet = Followed()
    fleet.see(fleet.one, at=10, b="b: gone")
    assert (fleet.inventory.unlisted, fleet.inventory.listed_at_s) == ("b: gone", 0.0)
    assert fleet.phase("i-b") is Phase.STOPPED
    fleet.see(fleet.one, fleet.other, at=20)
    assert (fleet.inventory.unlisted, fleet.inventory.listed_at_s) == ("", 20.0)


def test_what_is_out_of_sight_is_neither_late_nor_written_off_until_it_is_looked_at_again():
    fleet = Followed()
    for vm_id in ("i-a", "i-b"):
        fleet.inventory.sent(Verb.STOP, [vm_id], 1, 7, 0)
        fleet.inventory.settle(Verb.STOP, [Outcome(vm_id, OutcomeKind.ACCEPTED)], 0, 0)
    stopping = [replace(each, state=VmState.STOPPING) for each in (fleet.one, fleet.other)]
    fleet.see(*stopping, at=5)
    told = [fleet.see(stopping[0], at=at, b="b: gone") for at in range(10, 7200, 10)]
    assert [kind for kinds in told for kind in kinds] == ["stop_overdue", "vm_written_off"]
    assert (fleet.phase("i-a"), fleet.phase("i-b")) == (Phase.LOST, Phase.STOPPING)
    # The listing shows it again after two hours.
    assert fleet.see(*stopping, at=7200) == ["vm_written_off"]


def test_a_fleet_of_which_nothing_is_away_is_listed_whole():
    inventory = FleetInventory("web", Patience())
    only = vm("i-a", VmState.STOPPED, zone="a")
    reconcile(inventory, listed(only, at=0), (only,), 0)
    rows = (only,)
    for at in (10, 20, 30):
        reconcile(inventory, listed(only, at=at, b="b: gone"), rows, at)
        assert (inventory.unlisted, inventory.listed_at_s) == ("", float(at))


# ── a daemon ───────────────────────────────────────────────────────────────────────────────────────────


class Zoned:
    """The bench's provider as if its zones were hosts, of which b is away for some seconds."""

    def __init__(self, bench, from_s, to_s):
        self._bench, self._provider, self._from_s, self._to_s = bench, bench.provider, from_s, to_s
        self._lost, self._lost_at_s = (), 0.0

    def __getattr__(self, name):
        return getattr(self._provider, name)

    def lose(self, vm_ids, at_s):
        self._lost, self._lost_at_s = vm_ids, at_s

    async def list_vms(self):
        found = await self._provider.list_vms()
        second = self._bench.clock.now() - ORIGIN_S
        away = self._from_s <= second < self._to_s
        if self._lost and second >= self._lost_at_s:
            found = replace(found, vms=tuple(each for each in found.vms if each.id not in self._lost))
        parts = {A: "", B: AWAY if away else ""}
        if not away:
            return replace(found, parts=parts)
        vms = tuple(each for each in found.vms if each.zone != B)
        return replace(found, vms=vms, parts=parts, complete=False, error=f"{AWAY} ({len(vms)} VMs came)")


FALLING = steady((0, 400), (40, 100))


def zoned_bench(from_s, to_s, demand=FALLING):
    """Fleet `here` in zone a, and `there` with half of its VMs in b; less is wanted of both while b is away."""
    bench = Bench(zones="ab")
    provider = Zoned(bench, from_s, to_s)
    for fleet, zones in (("here", (A,)), ("there", (A, B))):
        place_fleet(bench.world, ORIGIN_S, WorldFleet(fleet, 4, State.RUNNING, zones=zones))
        bench.add(policy(fleet), demand, provider=provider)
    return bench


@virtual
async def test_the_other_fleets_go_on_scaling_in():
    bench = zoned_bench(30, 90)
    await bench.run(120)
    assert bench.column("in_service", "here") == [4] * 5 + [1] * 8
    assert bench.column("in_service", "there") == [4] * 10 + [1] * 3
    held = bench.rows("there")[4]
    assert "the list of VMs is incomplete, so 4 VMs stay" in held.sentence
    assert held.sentence.endswith("the list lacks us-east-1b")
    assert all("list" not in row.sentence for row in bench.rows("here"))
    assert bench.log.events().count("listing_failed") == 1


@virtual
async def test_status_says_it_of_the_fleet_that_misses_something():
    bench = zoned_bench(30, 90)
    asyncio.get_running_loop().call_later(65, lambda: told.extend(errors(bench)))
    told = []
    await bench.run(100)
    assert told == ["", AWAY]
    assert errors(bench) == ["", ""]


def errors(bench):
    return [fleet.listing_error for fleet in bench.daemon.fleets.all]


@virtual
async def test_a_vm_that_is_lost_elsewhere_is_missed_meanwhile():
    bench = zoned_bench(30, 300, demand=400)
    provider = bench.setups[0].provider
    vms = {
        name: [each for each in (await provider.list_vms()).vms if each.fleet == name]
        for name in ("here", "there")
    }
    lost = vms["here"][0].id, next(each.id for each in vms["there"] if each.zone == A)
    provider.lose(lost, 55)
    await bench.run(120)
    assert {text for _, kind, text in bench.events() if kind == "vm_gone"} == {
        f"{vm_id} is missing from 3 complete listings" for vm_id in lost
    }
    assert bench.column("in_service", "there")[-1] == 3


def test_after_a_restart_a_fleet_without_vms_on_it_acts_at_once(tmp_path):
    bench = run_virtual(lambda: restarted(tmp_path))
    assert bench.column("in_service", "here")[-1] == 1
    told = [row.sentence for row in bench.rows("there")]
    assert all(text.startswith("held until its VMs have been listed: ") for text in told)
    assert all(text.endswith("; the list lacks us-east-1b") for text in told)


async def restarted(path):
    """Run a second daemon that begins while the host is away, and return its rows."""
    bench = zoned_bench(1000, 2000, demand=steady((0, 400), (1060, 100)))
    bench.journal = SqliteJournal(path, inline=True)
    await bench.run(940)
    await bench.clock.sleep_until(bench.clock.monotonic() + 60)
    bench.records.clear()
    await bench.run(100)
    await bench.journal.close()
    return bench
