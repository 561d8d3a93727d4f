"""What a daemon remembers over a restart: it decides as if it had never stopped, and avoids known bad places and VMs."""

import asyncio
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.world import World
from autoscaler.core.state import LaneState
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.learned.packing import packed, unpacked
from autoscaler.daemon.learned.restoring import RestartStateStore
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.vms.places import Places
from autoscaler.ports import Learned
from autoscaler.providers.memory import MemoryProvider
from autoscaler.store import SqliteJournal
from autoscaler.wiring import Wiring
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy, virtual

HOUR_S = 3600
OBJECTIVE = {
    "signal": {"kind": "total"},
    "objective": {"served": "99.9%"},
    "prices": {"in_service": "1/h", "stopped": "0.01/h", "start": 0, "provision": 0},
    "guards": {"stabilisation": "120s", "cooldown_in": "60s"},
}


def bench_on(tmp_path, **world):
    bench = Bench(tick_s=10.0, **world)
    bench.journal = SqliteJournal(tmp_path, inline=True)
    return bench


def wave(second):
    """Up and down within forty minutes, never twice the same; one value for each tick."""
    second -= second % 10.0
    return 700.0 + 500.0 * np.sin(second / 400.0) + 150.0 * np.sin(second / 37.0)


async def decided(tmp_path, *, lengths_s):
    bench = bench_on(tmp_path, vms=30, running=7, limits=None)
    bench.add(policy(bounds={"maximum": 30}, **OBJECTIVE), wave)
    bench.add(policy("api", signal={"kind": "total"}), lambda second: 100.0 + 10.0 * (second // 10.0 % 20.0))
    bench.place("api", 6)
    for length_s in lengths_s:
        await bench.run(length_s)
    await bench.journal.close()
    return bench


def test_a_daemon_restarted_in_the_middle_decides_as_one_that_never_stopped(tmp_path):
    def run(name, *lengths_s):
        (tmp_path / name).mkdir()
        return run_virtual(lambda: decided(tmp_path / name, lengths_s=lengths_s))

    # The second begins half a second after the first has ended, within its last tick.
    first_s, then_s = HOUR_S + 300, 1200
    whole, halves = run("whole", first_s + then_s), run("halves", first_s, then_s - 0.5)
    assert halves.log.texts("journal_failed") == []
    before = {record.tick: record for record in whole.records}
    restarted = first_s // 10 + 1
    after = halves.records[restarted + 1 :]
    assert len(after) == then_s // 10
    for fleet in ("web", "api"):
        assert [row_of(r, fleet) for r in after] == [row_of(before[r.tick], fleet) for r in after]
        assert len({row_of(record, fleet)[:4] for record in after}) > 10
    budget = whole.daemon.fleets._lane_state.budget
    assert budget.price[0] != budget.given[0]


def row_of(record, fleet):
    (row,) = [each for each in record.fleets if each.fleet == fleet]
    numbers = (row.forecast, row.forecast_hi, row.wish, row.desired, row.start, row.stop, row.warm_target)
    return (*numbers, row.in_service, row.starting, row.stages, row.reasons, row.earnings)


# ── packing ─────────────────────────────────────────────────────────────────────────────────────────────

numbers = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    some.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint16, np.bool_]),
        some.array_shapes(min_dims=0, max_side=4, min_side=0),
    ),
)
dumps = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), numbers, min_size=1, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), st.one_of(numbers, inner), min_size=1, max_size=4),
    max_leaves=4,
)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(each, other[name]) for name, each in one.items())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return one == other


@given(dumps)
def test_what_is_packed_comes_back_to_the_bit(dump):
    assert same(dump, unpacked(run_virtual(lambda: packed(dump))))


@given(st.data())
def test_what_is_damaged_is_refused_and_nothing_else_happens(data):
    body = run_virtual(lambda: packed({"a": {"b": np.arange(40.0)}, "c": 3}))
    at = data.draw(st.integers(0, len(body) - 1))
    wrong = bytes([body[at] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(st.sampled_from([body[:at], body[:at] + wrong + body[at + 1 :]]))
    try:
        found = unpacked(damaged)
    except ValueError:
        return
    # Only what the checksum does not cover may differ: flags of the stream.
    assert same({"a": {"b": np.arange(40.0)}, "c": 3}, found)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 8,
        len(b"[]").to_bytes(8, "little") + b"[]",
        len(b'{"a":["<f8",[9]]}').to_bytes(8, "little") + b'{"a":["<f8",[9]]}',
        len(b'{"a":["O",[1]]}').to_bytes(8, "little") + b'{"a":["O",[1]]}' + bytes(8),
        len(b'{"a":1}').to_bytes(8, "little") + b'{"a":1}x',
    ],
)
def test_what_is_no_dump_is_refused(raw):
    with pytest.raises(ValueError, match=r"."):
        unpacked(zlib.compress(raw))


# ── troubles ────────────────────────────────────────────────────────────────────────────────────────────


class Asked(Bench):
    """A bench that notes which VMs are started, and whose daemon may end abruptly."""

    def __init__(self, state_dir, **world):
        super().__init__(limits=None, **world)
        self.journal = SqliteJournal(state_dir, inline=True)
        self.asked = []
        start = self.world.start

        def noted(now_s, vm_ids):
            self.asked += [(now_s - ORIGIN_S, vm_id) for vm_id in vm_ids]
            return start(now_s, vm_ids)

        self.world.start = noted

    async def crash_after(self, for_s):
        self.daemon = Daemon(self.clock, self.setups, self.journal, self.telemetry, self.settings)
        running = asyncio.create_task(self.daemon.run())
        await self.clock.sleep_until(self.clock.monotonic() + for_s)
        running.cancel()
        await asyncio.wait({running})


def test_dry_places_and_broken_vms_are_left_alone_after_a_crash_as_without_one(tmp_path):
    dry = Fault(FaultKind.NO_CAPACITY, zone="us-east-1a")

    async def main():
        bench = Asked(tmp_path, vms=8, zones="ab", faults=[dry])
        zone_of = {view.id: view.zone for view in bench.world.views(ORIGIN_S)}
        inside = [i for i in bench.ids if zone_of[i] == "us-east-1a"]
        bad = next(i for i in bench.ids if i not in inside)
        bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_ids=(bad,), code="InvalidParameterValue"))
        bench.add(policy(signal={"kind": "total"}), 600)
        await bench.crash_after(45)
        assert {vm_id for _, vm_id in bench.asked} >= {inside[0], bad}
        bench.asked.clear()
        await bench.run(700)
        in_dry = [at_s for at_s, vm_id in bench.asked if vm_id in inside]
        of_bad = [at_s for at_s, vm_id in bench.asked if vm_id == bad]
        # Dry until 180 s and, since it still is then, twice as long again; the broken one until 600 s.
        assert 180 <= in_dry[0] <= 190
        assert 540 <= in_dry[1] <= 560
        assert 600 <= of_bad[0] <= 610
        t = bench.daemon.fleets.all[0].inventory.vms[bad]
        assert t.failures == 2
        assert t.quarantine_reason.startswith("InvalidParameterValue")
        await bench.journal.close()

    run_virtual(main)


def test_what_is_known_of_room_is_of_its_own_place_after_a_restart_too():
    """Zones of two accounts may have the same name but be different."""

    def on_two():
        clock = VirtualClock(ORIGIN_S)
        providers = {name: MemoryProvider(World(), clock) for name in ("near", "far")}
        wired = Wiring(providers, clock, lambda _: Demand(clock, 0)).wire(
            [policy("web", provider="near"), policy("api", provider="far")]
        )
        fleets = [Fleet(setup) for setup in wired.setups]
        return fleets, [fleet.inventory.places for fleet in fleets]

    fleets, (near, far) = on_two()
    near.found_dry("m7i.large", "us-east-1a", ORIGIN_S)
    near.tell("m7i.large", "us-east-1a", ORIGIN_S, tried=10, failed=10)
    kept = RestartStateStore().troubles(fleets, ORIGIN_S, odds=True)
    fleets, (near, far) = on_two()
    assert RestartStateStore().take_up_troubles(fleets, kept, ORIGIN_S + 10.0) == []
    assert near.dry(ORIGIN_S + 10.0) == [("m7i.large", "us-east-1a")]
    assert far.dry(ORIGIN_S + 10.0) == []
    odds = [places.success("m7i.large", "us-east-1a", ORIGIN_S + 10.0) for places in (near, far)]
    assert odds[0] < 0.6 < odds[1] == 1.0


def test_odds_of_starts_outlive_an_orderly_end_and_are_planned_with(tmp_path):
    async def main():
        bench = Asked(tmp_path, vms=4, zones="a")
        bench.add(policy(signal={"kind": "total"}), 0)
        await bench.run(10)
        places = bench.daemon.fleets.all[0].inventory.places
        places.tell("m7i.large", "us-east-1a", bench.clock.now(), tried=30, failed=15)
        await bench.run(10)
        # The second run did not know about changes after the first had ended.
        again = bench.daemon.fleets.all[0].inventory.places
        assert again.success("m7i.large", "us-east-1a", ORIGIN_S) == 1.0
        again.tell("m7i.large", "us-east-1a", bench.clock.now(), tried=30, failed=15)
        told = again.success("m7i.large", "us-east-1a", ORIGIN_S)
        await bench.daemon.keeping.keep(bench.daemon.fleets, bench.clock.now(), at_once=True)
        await bench.run(20)
        fleets = bench.daemon.fleets
        assert fleets.all[0].inventory.places.success("m7i.large", "us-east-1a", ORIGIN_S) == told < 0.7
        # Ticks later the hour is no later, so this is what starts are planned with.
        assert fleets._compiled.lanes.start_success[0] == pytest.approx(told, rel=1e-6)
        await bench.journal.close()

    run_virtual(main)


rows = st.lists(
    st.tuples(
        st.sampled_from(["m7i.large", "g6.xlarge"]),
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["dry", "quota", "room", "tell", "claim"]),
        st.floats(0, 500),
    ),
    max_size=25,
)


@given(rows)
@example([("m7i.large", "a", "dry", wait_s) for wait_s in (0.0, 180.55242123173622, 360.87415034580096)])
def test_places_that_are_taken_up_answer_like_those_that_were_kept(told):
    places, now_s = Places(), 0.0
    for vm_type, zone, what, wait_s in told:
        now_s += wait_s
        match what:
            case "dry" | "quota":
                places.found_dry(vm_type, zone, now_s, quota=what == "quota")
            case "room":
                places.found_room(vm_type, zone)
            case "claim":
                places.claim(vm_type, zone, now_s)
            case _:
                places.tell(vm_type, zone, now_s, tried=3, failed=1)
    again = Places()
    again.take_up(*json.loads(json.dumps([places.dry_rows(), places.odds_rows()])), now_s)
    for at_s in (now_s, now_s + 170.0, now_s + 400.0, now_s + 5000.0):
        for vm_type in ("m7i.large", "g6.xlarge", "c7i.large"):
            for zone in "ab":
                place = vm_type, zone, at_s
                assert again.at_most(*place) == places.at_most(*place)
                assert again.success(*place) == places.success(*place)


# ── what cannot be used ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda row: Learned(row.fleet, row.name, row.version + 1, row.body), "it is of version 2"),
        (lambda row: Learned(row.fleet, row.name, row.version, row.body[:-9]), "it ends too soon"),
        (lambda row: Learned(row.fleet, row.name, row.version, b"nonsense"), "it is damaged"),
        (lambda row: Learned(row.fleet, row.name, row.version, zlib.compress(b"[7]")), ""),
        (lambda row: Learned(row.fleet, row.name, row.version, zlib.compress(b'[["x"]]')), ""),
    ],
)
def test_what_cannot_be_read_is_told_and_begun_anew(tmp_path, change, told):
    async def main():
        bench = Asked(tmp_path, vms=4, zones="a", faults=[Fault(FaultKind.NO_CAPACITY, end_s=60)])
        bench.add(policy(**OBJECTIVE), 200)
        await bench.run(100)
        kept = await bench.journal.learned()
        assert {row.name for row in kept} >= {"dry", "odds", "lanes", "forecasts", "queues"}
        await bench.journal.record_learned(bench.clock.now(), [change(row) for row in kept])
        await bench.run(400)
        said = bench.log.texts("journal_failed")
        assert len(said) == len(kept)
        assert all(told in text for text, row in zip(said, kept, strict=True) if row.name != "start_times")
        assert bench.log.texts("tick_failed") == []
        assert bench.rows()[-1].in_service >= 2
        await bench.journal.close()

    run_virtual(main)


def test_a_state_of_another_layout_of_core_begins_anew(tmp_path, monkeypatch):
    async def main():
        bench = Asked(tmp_path, vms=4)
        bench.add(policy(**OBJECTIVE), 200)
        await bench.run(100)
        monkeypatch.setattr(LaneState, "version", LaneState.version + 1)
        await bench.run(100)
        (text,) = bench.log.texts("journal_failed")
        assert text.startswith(
            "what guards and objectives remembered cannot be read and start over (LaneState of"
        )
        await bench.journal.close()

    run_virtual(main)


def test_a_fleet_that_measures_something_else_forecasts_anew_and_others_go_on(tmp_path):
    async def main():
        bench = Asked(tmp_path, vms=4)
        bench.place("api", 4)
        bench.add(policy(signal={"kind": "total"}), 200)
        bench.add(policy("api", signal={"kind": "total"}), 200)
        await bench.run(200)
        first, second = bench.setups
        # The other way round, and one of them by other means.
        other = policy(signal={"kind": "throughput"})
        bench.setups = [second, replace(first, policy=other)]
        await bench.run(1)
        seen = bench.daemon.fleets._series_state.ticks.tolist()
        assert seen[0] > 20
        assert seen[1] <= 1
        assert bench.daemon.fleets.remembered == {"api"}
        await bench.journal.close()

    run_virtual(main)


@virtual
async def test_a_journal_in_memory_is_not_told_what_no_later_run_could_read():
    bench = Bench(vms=4)
    bench.add(policy(**OBJECTIVE), 200)
    await bench.run(1300)
    assert {row.name for row in await bench.journal.learned()} <= {"start_times"}
