"""The loop and its actions: recorded before they are carried out, held when in doubt, settled by listings."""

import math

import numpy as np
import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.errors import InvariantError, JournalError
from autoscaler.ports import ActionIntent, TickRecord, Verb
from autoscaler.store import SqliteJournal
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy, steady, virtual

TOTAL = {"kind": "total"}


def starts(bench):
    return [(at, vms) for at, action, vms, code in bench.changes() if action == "StartInstances" and not code]


def stops(bench):
    return [(at, vms) for at, action, vms, code in bench.changes() if action == "StopInstances" and not code]


@virtual
async def test_a_burst_and_its_end_with_exact_times():
    bench = Bench(vms=6, zones="a")
    bench.add(policy(signal=TOTAL, guards={"cooldown_in": "40s"}), steady((0, 100), (30, 400), (100, 200)))
    await bench.run(200)
    assert starts(bench) == [(0, 1), (30, 3)]
    # In service from 50, so the cooldown of 40 s is over at 90; demand falls at 100.
    assert stops(bench) == [(100, 2)]
    assert bench.column("in_service")[:6] == [0, 0, 1, 1, 1, 4]
    assert bench.column("starting")[:6] == [0, 1, 0, 0, 3, 0]
    assert bench.column("stopping")[10:14] == [0, 2, 2, 0]
    assert bench.column("stopped")[-1] == 4
    # 300/s were short from 30 until 50.
    assert bench.column("shortage")[2:6] == [0, 300, 300, 0]


@virtual
async def test_starts_of_all_fleets_come_before_stops_of_any():
    bench = Bench(running=2, zones="a")
    bench.place("api", 2)
    bench.add(policy("web", signal=TOTAL), steady((0, 200), (20, 0)))
    bench.add(policy("api", signal=TOTAL), steady((0, 0), (20, 200)))
    await bench.run(30)
    assert bench.changes() == [(20, "StartInstances", 2, ""), (20, "StopInstances", 2, "")]


@virtual
async def test_a_tick_that_fails_is_counted_and_the_next_one_is_on_time():
    bench = Bench(vms=3, zones="a")
    bench.records = Refusing(bench.records, bench.clock, at_s=20)
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(40)
    assert [record.at_s - ORIGIN_S for record in bench.records.kept] == [0, 10, 30, 40]
    assert bench.telemetry.registry.get_sample_value("autoscaler_ticks_failed_total") == 1
    assert bench.log.texts("tick_failed") == ["ZeroDivisionError: a bug; nothing is done, please report"]


class Refusing:
    """A list of records that raises once."""

    def __init__(self, kept, clock, at_s):
        self.kept, self.clock, self.at_s = kept, clock, at_s

    def append(self, record):
        if self.clock.monotonic() == self.at_s:
            raise ZeroDivisionError("a bug")
        self.kept.append(record)


@virtual
async def test_an_outcome_that_cannot_be_handled_fails_neither_the_tick_nor_other_outcomes():
    bench = Bench(vms=3, zones="a")
    bench.place("api", 3)
    bench.journal = Doubting(bench.journal)
    bench.add(policy("web", signal=TOTAL), 100)
    bench.add(policy("api", signal=TOTAL), 100)
    await bench.run(40)
    assert bench.log.texts("journal_failed") == ["action 1 is not open"]
    assert not {"act_failed", "tick_failed"} & set(bench.log.events())
    assert bench.column("in_service", "web")[-1] == bench.column("in_service", "api")[-1] == 1
    assert [action.id for action in await bench.journal.recent_actions(math.inf)] == [1]


class Doubting:
    """The real journal, except that it does not know action 1 when it should be settled."""

    def __init__(self, journal):
        self.journal = journal

    def __getattr__(self, name):
        return getattr(self.journal, name)

    async def record_outcomes(self, settled):
        if any(each.action_id == 1 for each in settled):
            raise InvariantError("action 1 is not open")
        await self.journal.record_outcomes(settled)


class Witness:
    """A provider that reads the journal at each change."""

    def __init__(self, provider, journal):
        self.provider, self.journal = provider, journal
        self.seen = []

    def __getattr__(self, name):
        return getattr(self.provider, name)

    def look(self, verb, ids):
        with self.journal.reader() as reader:
            open_now = [(a.intent.verb, a.intent.vm_ids, a.intent.count) for a in reader.open_actions()]
            self.seen.append((verb, ids, open_now, reader.last("web").tick))

    async def start(self, vm_ids):
        self.look(Verb.START, tuple(vm_ids))
        return await self.provider.start(vm_ids)

    async def stop(self, vm_ids):
        self.look(Verb.STOP, tuple(vm_ids))
        return await self.provider.stop(vm_ids)

    async def provision(self, spec, count, token):
        self.look(Verb.PROVISION, ())
        return await self.provider.provision(spec, count, token)


@virtual
async def test_intents_are_in_the_journal_before_the_provider_is_called():
    bench = Bench(vms=2, zones="a")
    witness = Witness(bench.provider, bench.journal)
    allowed = policy(signal=TOTAL, provision={"launch_template": "web", "maximum": 5})
    bench.add(allowed, steady((0, 400), (60, 0)), provider=witness)
    await bench.run(90)
    assert [verb for verb, *_ in witness.seen] == [Verb.START, Verb.PROVISION, Verb.STOP]
    for verb, ids, open_now, _ in witness.seen:
        assert (verb, ids, len(ids) or 2) in open_now
    assert [tick - TICK_0 for *_, tick in witness.seen] == [0, 0, 6]
    settled = bench.actions()
    assert all(action.settled_at_s is not None and action.outcomes for action in settled)
    assert {action.intent.reason for action in settled[:2]} == {
        "starting 4 (0 to 4): demand 400/s with headroom needs 4 VMs; the warm pool is empty, so 2 are provisioned from nothing"
    }


class FailingJournal:
    """The real journal, which cannot be written while `broken`."""

    def __init__(self, journal):
        self.journal, self.broken = journal, False

    def __getattr__(self, name):
        return getattr(self.journal, name)

    def _check(self):
        if self.broken:
            raise JournalError("the disk is full")

    async def record_tick(self, record, intents, events):
        self._check()
        return await self.journal.record_tick(record, intents, events)

    async def record_outcomes(self, settled):
        self._check()
        await self.journal.record_outcomes(settled)

    async def record_events(self, at_s, events):
        self._check()
        await self.journal.record_events(at_s, events)


@virtual
async def test_while_the_journal_fails_nothing_is_done_and_ticks_go_on():
    bench = Bench(vms=5, zones="a")
    bench.journal = FailingJournal(bench.journal)

    def demand(second):
        bench.journal.broken = 20 <= second < 60
        return 100 if second < 20 else 300

    bench.add(policy(signal=TOTAL), demand)
    await bench.run(90)
    assert len(bench.records) == 10
    assert starts(bench) == [(0, 1), (60, 2)]
    assert bench.column("start")[2:7] == [2, 2, 2, 2, 2]
    told = [
        row.sentence.startswith("held, since the journal cannot be written: starting 2")
        for row in bench.rows()
    ]
    assert told == [False] * 2 + [True] * 4 + [False] * 4
    assert bench.telemetry.registry.get_sample_value("autoscaler_journal_errors_total") == 4
    # Once for as long as it lasts, in these words, and once that it is over.
    assert bench.log.texts("journal_failed") == ["the disk is full; 1 action held back"]
    assert bench.log.texts("journal_written") == ["the journal is written again, after 40 s"]
    assert bench.column("in_service")[-1] == 3


@virtual
async def test_a_journal_that_fails_while_nothing_is_to_be_done_speaks_of_no_actions():
    bench = Bench(vms=5, zones="a")
    bench.journal = FailingJournal(bench.journal)

    def demand(second):
        bench.journal.broken = second >= 20
        return 100

    bench.add(policy(signal=TOTAL), demand)
    await bench.run(40)
    assert bench.log.texts("journal_failed") == ["the disk is full"]


@virtual
async def test_a_partial_listing_stops_nothing_and_starts_go_on():
    bench = Bench(vms=5, running=3, zones="a")
    broken = Fault(
        FaultKind.API_ERROR, start_s=15, end_s=65, code="Unavailable", actions=("DescribeInstances",)
    )
    bench.world.add_fault(broken)
    bench.add(policy(signal=TOTAL), steady((0, 300), (20, 100), (40, 500)))
    await bench.run(90)
    assert stops(bench) == []
    assert starts(bench) == [(40, 2)]
    assert "the list of VMs is incomplete, so 3 VMs stay" in bench.rows()[2].sentence
    assert bench.column("in_service")[:7] == [3] * 7
    assert bench.telemetry.registry.get_sample_value("autoscaler_listing_errors_total") == 5


@virtual
async def test_a_denial_holds_the_fleet_for_a_minute_and_says_so():
    bench = Bench(vms=5, zones="a")
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, end_s=45, code="UnauthorizedOperation", actions=("StartInstances",))
    )
    bench.add(policy(signal=TOTAL), 200)
    await bench.run(90)
    calls = [(at, code) for at, action, _, code in bench.changes() if action == "StartInstances"]
    assert calls == [(0, "UnauthorizedOperation"), (60, "")]
    held = [
        row.sentence.startswith("held, since the provider denies access: starting 2") for row in bench.rows()
    ]
    assert held == [False, *[True] * 5, *[False] * 4]
    assert len(bench.log.texts("acting_held")) == 1
    assert bench.column("starting")[1:6] == [0] * 5
    assert bench.column("in_service")[-1] == 2


@pytest.mark.parametrize("slow", ["us-east-1a", "us-east-1b", ""])
def test_a_denial_of_one_vm_does_not_hold_the_others_of_its_fleet_whichever_answer_comes_first(slow):
    @virtual
    async def run():
        bench = Bench(vms=6, zones="abc")
        first = next(view.id for view in bench.world.views(ORIGIN_S) if view.zone == "us-east-1a")
        starts = ("StartInstances",)
        bench.world.add_fault(
            Fault(FaultKind.API_ERROR, code="UnauthorizedOperation", vm_ids=(first,), actions=starts)
        )
        if slow:
            bench.world.add_fault(Fault(FaultKind.LATENCY, delay_s=2.0, zone=slow, actions=starts))
        bench.add(policy(signal=TOTAL), steady((0, 0), (20, 300)))
        await bench.run(80)
        calls = [(at, code) for at, _, _, code in bench.calls("StartInstances")]
        assert sorted(calls) == [(20, ""), (20, ""), (20, "UnauthorizedOperation"), (30, "")]
        assert bench.column("in_service")[-1] == 3

    run()


@virtual
async def test_a_vm_is_provisioned_where_the_warm_pool_is_empty_and_serves():
    bench = Bench(vms=1, zones="a")
    bench.add(policy(signal=TOTAL, provision={"launch_template": "web", "maximum": 3}), 500)
    await bench.run(80)
    assert [(at, action, vms) for at, action, vms, _ in bench.changes()] == [
        (0, "StartInstances", 1),
        (0, "RunInstances", 2),
    ]
    # Started: 19 s. Provisioned: 18 + 7 s.
    assert bench.column("in_service")[:5] == [0, 0, 1, 3, 3]
    assert bench.column("starting")[:5] == [0, 3, 2, 0, 0]
    assert bench.column("provisioned")[:3] == [1, 3, 3]
    assert bench.rows()[3].sentence.endswith("the warm pool is short: only 3 of 5 are available")
    meter = bench.daemon.fleets.all[0].meter
    bill = bench.world.bill(ORIGIN_S + 80, "web")
    assert meter.total.starts == bill.starts == 3
    assert bench.column("cost")[1] == pytest.approx(2 * 7 + 30 * 0.01)


@virtual
async def test_a_provisioning_of_unknown_outcome_is_not_repeated():
    bench = Bench(vms=1, zones="a")
    lost = Fault(FaultKind.LOST_REPLY, end_s=5, actions=("RunInstances",))
    bench.world.add_fault(lost)
    bench.add(policy(signal=TOTAL, provision={"launch_template": "web", "maximum": 9}), 300)
    await bench.run(80)
    assert [call for call in bench.changes() if call[1] == "RunInstances"] == [(0, "RunInstances", 2, "")]
    assert bench.column("starting")[1:3] == [3, 2]
    assert bench.column("in_service")[-1] == 3
    assert bench.column("provisioned")[-1] == 3


@virtual
async def test_a_provisioning_that_fails_for_want_of_room_is_tried_again_after_a_while():
    bench = Bench(vms=1, zones="a", capacity={("m7i.large", "us-east-1a"): 1})
    bench.add(policy(signal=TOTAL, provision={"launch_template": "web", "maximum": 9}), 300)
    await bench.run(200)
    runs = [(at, code) for at, action, _, code in bench.changes() if action == "RunInstances"]
    assert runs == [(0, "InsufficientInstanceCapacity"), (180, "InsufficientInstanceCapacity")]
    assert bench.rows()[1].sentence.startswith("no VM is provisioned, since it failed recently: starting 2")


@pytest.mark.parametrize("done", [True, False])
def test_a_start_of_unknown_outcome_is_not_repeated_and_the_listing_settles_it(done):
    @virtual
    async def run():
        bench = Bench(vms=2, zones="a")
        kind = FaultKind.LOST_REPLY if done else FaultKind.API_ERROR
        bench.world.add_fault(Fault(kind, end_s=5, code="Unavailable", actions=("StartInstances",)))
        bench.add(policy(signal=TOTAL), 100)
        await bench.run(60)
        calls = [(at, code) for at, action, _, code in bench.changes() if action == "StartInstances"]
        if done:
            assert calls == [(0, "")]
            assert bench.column("in_service")[:3] == [0, 0, 1]
        else:
            # Held for the 30 s that a listing may lag, then started anew: the VM is not to blame.
            assert calls == [(0, "Unavailable"), (30, "")]
            assert bench.column("starting")[:3] == [0, 1, 1]
            assert bench.column("in_service")[5] == 1
            assert [(at, kind) for at, kind, _ in bench.events()] == [(30, "start_not_taken")]
        assert [o.kind for o in bench.actions()[0].outcomes] == ["unknown"]

    run()


@virtual
async def test_a_start_that_falls_back_is_replaced_at_the_next_tick_and_quarantined():
    bench = Bench(vms=2, zones="a")
    first = min(bench.ids)
    bench.world.add_fault(Fault(FaultKind.FALL_BACK, vm_ids=(first,), delay_s=7, code="Client.InternalError"))
    bench.add(policy(signal=TOTAL), steady((0, 0), (10, 100)))
    await bench.run(120)
    assert starts(bench) == [(10, 1), (20, 1)]
    assert bench.column("in_service")[4] == 1
    (event,) = bench.events()
    assert event[:2] == (20, "start_fell_back")
    assert event[2].startswith(f"{first} fell back to stopped (Client.InternalError): ")
    assert "kms:CreateGrant" in event[2]


@virtual
async def test_a_dry_zone_is_left_alone_and_another_is_used():
    bench = Bench(vms=6, zones="ab")
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1a"))
    bench.add(policy(signal=TOTAL), 400)
    await bench.run(170)
    refused = [(at, vms) for at, _, vms, code in bench.changes() if code]
    # Two wanted there: the batch, and its halves once; none again within the 180 s of the zone's memory.
    assert refused == [(0, 2), (0, 1), (0, 1)]
    assert starts(bench) == [(0, 2), (0, 1)]
    assert bench.column("in_service")[2] == 3
    assert bench.rows()[5].sentence.endswith("the warm pool is short: only 3 of 4 are available")


@virtual
async def test_a_lagging_listing_leads_to_no_second_start():
    bench = Bench(vms=6, zones="a", faults=[])
    bench.world.advance(ORIGIN_S)
    bench.world.add_fault(Fault(FaultKind.LISTING_LAG, start_s=1, delay_s=12))
    bench.add(policy(signal=TOTAL), steady((0, 100), (20, 300)))
    await bench.run(120)
    assert starts(bench) == [(0, 1), (20, 2)]
    assert bench.column("in_service")[-1] == 3
    assert bench.events() == []


@virtual
async def test_rows_that_come_and_go_lose_no_vm():
    bench = Bench(vms=6, running=3, zones="a")
    bench.world.add_fault(Fault(FaultKind.MISSING_ROWS, probability=0.05))
    bench.add(policy(signal=TOTAL), 300)
    await bench.run(600)
    assert bench.changes() == []
    assert set(bench.column("in_service")) == {3}
    assert set(bench.column("provisioned")[2:]) == {9}


def fleet_intent(verb, vm_ids):
    return ActionIntent("web", verb, tuple(vm_ids), len(vm_ids), "", "an earlier run")


@virtual
async def test_actions_left_open_by_an_earlier_run_are_held_then_settled():
    bench = Bench(vms=3, running=1, zones="a")
    _, done, lost, _ = bench.ids
    bench.world.start(ORIGIN_S + 15, [done])
    intents = [fleet_intent(Verb.START, [done]), fleet_intent(Verb.START, [lost])]
    await bench.journal.record_tick(TickRecord(TICK_0 + 1, ORIGIN_S + 15, ()), intents)
    gone = ActionIntent("gone", Verb.STOP, ("i-0",), 1, "", "a fleet that is no more")
    await bench.journal.record_tick(TickRecord(TICK_0 + 1, ORIGIN_S + 16, ()), [gone])
    await bench.clock.sleep_until(20)
    bench.add(policy(signal=TOTAL), 300)
    await bench.run(60)
    # Three wanted: one runs, one was started, and the lost one counts until a listing is surely newer.
    assert starts(bench) == [(15, 1), (50, 1)]
    assert [row.in_service + row.starting for row in bench.rows()] == [3, 3, 3, 2, 3, 3, 3]
    assert await bench.journal.recent_actions(math.inf) == ()
    settled = [(at, text) for at, kind, text in bench.events() if kind == "action_settled"]
    assert settled == [
        (20, "stop of 1: the fleet is no longer in the policies"),
        (50, f"start of 1: {done} is running"),
        (50, f"start of 1: {lost} is stopped"),
    ]
    assert bench.column("in_service")[-1] == 3


@virtual
async def test_a_restart_adopts_running_vms_without_a_dip_and_without_a_stop():
    bench = Bench(vms=5, running=4, zones="a")
    bench.add(policy(), 400)
    await bench.run(50)
    assert set(bench.column("in_service")) == {4}
    assert bench.changes() == []
    # The first tick asked no VM for metrics, because it knew of none.
    assert bench.rows()[0].sentence == "holding 4: no metrics arrive, so 4 VMs stay"


@pytest.mark.parametrize("hole", [None, np.nan, -1.0], ids=["nothing", "not a number", "negative"])
def test_metrics_that_vanish_at_the_peak_stop_nothing_and_zero_demand_does(hole):
    @virtual
    async def run():
        bench = Bench(vms=8, running=2, zones="a")
        bench.add(policy(), lambda s: 600.0 if s < 60 else hole if s < 600 else 600.0 if s < 660 else 0.0)
        await bench.run(960)
        in_service = bench.column("in_service")
        assert in_service[4:90] == [6] * 86
        # Metrics that have come back are doubted for five minutes.
        assert stops(bench) == [(900, 6)]
        assert in_service[-1] == 0

    run()


@virtual
async def test_old_readings_stop_nothing():
    bench = Bench(running=4, zones="a")
    source = bench.add(policy(), 400)
    read = source.read

    async def frozen(vms):
        got = await read(vms)
        at = np.minimum(got.observed_at_s, ORIGIN_S + 30)
        return type(got)(got.vm_ids, got.values * 0 + (100 if at.max() < ORIGIN_S + 30 else 0), at)

    class Frozen:
        pass

    old = Frozen()
    old.read = frozen
    bench.setups.clear()
    bench.add(policy(bounds={"minimum": 0, "maximum": 4}, guards={"stabilisation": "100s"}), old)
    await bench.run(300)
    # 400/s until 20, nothing from 30: stale from 61 on, before the stabilisation window has passed.
    assert stops(bench) == []
    assert "metrics are too old, so 4 VMs stay" in bench.rows()[-1].sentence


@virtual
async def test_a_missing_fleet_of_the_journal_on_disk_or_not_ticks_are_readable():
    bench = Bench(vms=2, zones="a")
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(20)
    with bench.journal.reader() as reader:
        rows = reader.ticks("web", ORIGIN_S, ORIGIN_S + 100)
    assert [row.tick - TICK_0 for row in rows] == [0, 1, 2]
    assert [row.recorded for row in rows] == bench.rows()


@virtual
async def test_journals_of_two_runs_of_one_seed_are_the_same():
    texts = []
    for _ in range(2):
        bench = Bench(vms=6)
        bench.journal = SqliteJournal(":memory:", inline=True)
        bench.clock.origin_s = ORIGIN_S - bench.clock.monotonic()
        bench.add(policy(signal=TOTAL), steady((0, 100), (30, 400), (90, 200)))
        await bench.run(150)
        texts.append(repr((bench.rows(), bench.actions(), bench.events())))
    assert texts[0] == texts[1]
