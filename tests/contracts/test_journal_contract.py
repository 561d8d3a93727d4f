"""What every Journal must do, tested on the database in memory and on the one on disk in a thread."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from autoscaler.core.types import Stage
from autoscaler.errors import AutoscalerError, InvariantError, JournalError
from autoscaler.ports import (
    ALL_FLEETS,
    ActionIntent,
    ChangeKind,
    FleetTick,
    Journal,
    Note,
    OperatorChange,
    Outcome,
    OutcomeKind,
    RealVms,
    Settled,
    TickRecord,
    Verb,
    VmState,
)
from autoscaler.store import EventRecord, SqliteJournal, TickRow

START = ActionIntent("web", Verb.START, ("i-1", "i-2"), 2, "", "demand 480/s needs 4 VMs, 2 serve")
PROVISION = ActionIntent("api", Verb.PROVISION, (), 3, "token-7", "the warm pool is empty")


def fleet_tick(fleet: str = "web", **changes: object) -> FleetTick:
    """A tick whose numbers all differ, so that swapped fields are noticed."""
    numbers = {
        field.name: position + 0.5 if field.type == "float" else position
        for position, field in enumerate(fields(FleetTick), start=1)
        if field.type in ("float", "int")
    }
    tick = FleetTick(
        fleet=fleet,
        censored=True,
        may_stop=False,
        stages=tuple(range(100, 100 + len(Stage))),
        reasons=tuple(range(len(Stage))),
        sentence="start 2 of 40 stopped: demand 480/s × 1,3",
        **numbers,  # type: ignore[arg-type]
    )
    return replace(tick, **changes)  # type: ignore[arg-type]


@pytest.fixture(params=["inline memory", "threaded file", "inline file"])
async def journal(request, tmp_path):
    if request.param == "inline memory":
        made = SqliteJournal(":memory:")
    else:
        made = SqliteJournal(tmp_path / "state", inline=request.param == "inline file")
    yield made
    await made.close()


def test_is_a_journal() -> None:
    journal: type[Journal] = SqliteJournal
    assert {"record_tick", "record_outcomes", "record_events", "record_changes", "close"} <= set(dir(journal))


async def test_a_tick_comes_back_as_it_was_written(journal) -> None:
    web, api = fleet_tick("web"), fleet_tick("api", desired=9, source_error="10.0.0.7 timed out")
    await journal.record_tick(TickRecord(7, 70.25, (web, api)), ())
    with journal.reader() as reader:
        assert reader.fleets() == ("web", "api")
        assert reader.last("web") == TickRow(7, 70.25, web)
        assert reader.last("api") == TickRow(7, 70.25, api)
        assert reader.last("nobody") is None
        read = reader.last("api")
        assert read is not None
        assert [type(value) for value in (read.recorded.demand, read.recorded.desired)] == [float, int]
        assert read.recorded.censored is True
        assert {type(stage) for stage in read.recorded.stages} == {int}


async def test_what_a_fleet_in_shadow_really_has_comes_back_and_only_there(journal) -> None:
    real = RealVms(running=12, provisioned=20, cost=0.1 + 0.2)
    await journal.record_tick(TickRecord(7, 70.0, (fleet_tick("api"), fleet_tick("web", real=real))), ())
    with journal.reader() as reader:
        assert reader.last("web") == TickRow(7, 70.0, fleet_tick("web", real=real))
        assert reader.last("api") == TickRow(7, 70.0, fleet_tick("api", real=None))


async def test_unknown_demand_is_unknown_when_it_comes_back(journal) -> None:
    await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(demand=math.nan, forecast=math.inf),)), ())
    with journal.reader() as reader:
        read = reader.last("web")
    assert read is not None
    assert math.isnan(read.recorded.demand)
    assert read.recorded.forecast == math.inf


async def test_intents_are_open_until_they_are_settled(journal) -> None:
    first, second = await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(),)), (START, PROVISION))
    assert first < second
    opened = await journal.recent_actions(math.inf)
    assert [(a.id, a.at_s, a.tick, a.intent, a.settled_at_s, a.outcomes) for a in opened] == [
        (first, 10.0, 1, START, None, ()),
        (second, 10.0, 1, PROVISION, None, ()),
    ]
    outcomes = (
        Outcome("i-2", OutcomeKind.ACCEPTED, previous_state=VmState.STOPPED),
        Outcome("i-1", OutcomeKind.NO_CAPACITY, "InsufficientInstanceCapacity", "no room in zone b"),
    )
    await journal.record_outcomes([Settled(first, 11.5, outcomes)])
    assert [action.id for action in await journal.recent_actions(math.inf)] == [second]
    with journal.reader() as reader:
        settled, still_open = reader.actions_of_tick(1)
    assert (settled.settled_at_s, settled.outcomes) == (11.5, outcomes)
    assert (still_open.settled_at_s, still_open.outcomes) == (None, ())


async def test_an_action_may_be_settled_without_outcomes(journal) -> None:
    (action,) = await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(),)), (START,))
    await journal.record_outcomes([Settled(action, 11.0, ())])
    assert await journal.recent_actions(math.inf) == ()


async def test_what_came_of_many_calls_is_written_together_with_its_events(journal) -> None:
    first, second = await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(),)), (START, PROVISION))
    no_room = (Outcome("", OutcomeKind.NO_CAPACITY, "InsufficientInstanceCapacity", "no room"),)
    accepted = (Outcome("i-1", OutcomeKind.ACCEPTED), Outcome("i-2", OutcomeKind.ACCEPTED))
    failed = Note("provision_failed", "api", "no room")
    await journal.record_outcomes([Settled(second, 10.5, no_room, [failed]), Settled(first, 11.5, accepted)])
    with journal.reader() as reader:
        found = {a.id: (a.settled_at_s, a.outcomes) for a in reader.actions_of_tick(1)}
        assert found == {first: (11.5, accepted), second: (10.5, no_room)}
        assert reader.events(0.0, 100.0) == (EventRecord(10.5, "provision_failed", "api", "no room"),)


async def test_one_action_that_is_not_open_leaves_all_of_a_write_as_it_was(journal) -> None:
    (action,) = await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(),)), (START,))
    wrong = [Settled(action, 11.0, (), [Note("note", "web", "x")]), Settled(action + 1, 11.0, ())]
    with pytest.raises(InvariantError, match=f"Action {action + 1} is not open"):
        await journal.record_outcomes(wrong)
    assert [each.id for each in await journal.recent_actions(math.inf)] == [action]
    with journal.reader() as reader:
        assert reader.events(0.0, 100.0) == ()


@pytest.mark.parametrize("intents", [(), (START,)])
async def test_a_tick_is_written_together_with_what_happened_in_it(journal, intents) -> None:
    for number in (1, 2):
        gone = Note("vm_gone", "web", f"i-{number}")
        await journal.record_tick(TickRecord(number, 10.0 * number, (fleet_tick(),)), intents, (gone,))
    with journal.reader() as reader:
        assert [(e.at_s, e.kind, e.text) for e in reader.events(0.0, 100.0)] == [
            (10.0, "vm_gone", "i-1"),
            (20.0, "vm_gone", "i-2"),
        ]
        assert [row.tick for row in reader.ticks("web", 0.0, 100.0)] == [1, 2]


async def test_settling_twice_or_what_does_not_exist_is_an_error_and_changes_nothing(journal) -> None:
    (action,) = await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(),)), (START,))
    accepted = (Outcome("i-1", OutcomeKind.ACCEPTED),)
    await journal.record_outcomes([Settled(action, 11.0, accepted)])
    for wrong in (action, action + 1):
        with pytest.raises(InvariantError, match=f"Action {wrong} is not open"):
            await journal.record_outcomes([Settled(wrong, 12.0, (Outcome("i-1", OutcomeKind.UNKNOWN),))])
    with journal.reader() as reader:
        (record,) = reader.actions("web", 0.0, 20.0)
    assert (record.settled_at_s, record.outcomes) == (11.0, accepted)


@pytest.mark.parametrize(
    "record",
    [
        TickRecord(2, 20.0, (fleet_tick("web"), fleet_tick("web"))),
        TickRecord(2, 20.0, (fleet_tick("web"), fleet_tick("api", stages=(1,)))),
        TickRecord(2, 20.0, (fleet_tick("web", reasons=(1,) * 10),)),
        TickRecord(2, 20.0, (fleet_tick("web", desired=2**70),)),
    ],
    ids=["twice", "stages", "reasons", "range"],
)
async def test_a_tick_that_contradicts_itself_is_refused_with_its_intents(journal, record) -> None:
    await journal.record_tick(TickRecord(1, 10.0, (fleet_tick(),)), ())
    with pytest.raises(InvariantError):
        await journal.record_tick(record, (START,))
    assert await journal.recent_actions(math.inf) == ()
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 99.0)] == [1]


async def test_the_same_tick_number_may_be_recorded_again(journal) -> None:
    for at_s, wish in ((10.0, 3), (12.5, 4)):
        await journal.record_tick(TickRecord(1, at_s, (fleet_tick(wish=wish),)), (START,))
    with journal.reader() as reader:
        assert [(row.at_s, row.recorded.wish) for row in reader.ticks("web", 0.0, 99.0)] == [
            (10.0, 3),
            (12.5, 4),
        ]
        assert len(reader.actions_of_tick(1)) == 2


async def test_ranges_are_half_open_and_fleets_may_come_and_go(journal) -> None:
    rosters = [("web",), ("web", "api"), ("api", "web"), ("api",), ()]
    for tick, names in enumerate(rosters):
        fleets = tuple(fleet_tick(name, desired=tick) for name in names)
        await journal.record_tick(TickRecord(tick, tick * 10.0, fleets), ())
    with journal.reader() as reader:
        assert reader.fleets() == ()
        assert [(row.at_s, row.recorded.desired) for row in reader.ticks("web", 0.0, 99.0)] == [
            (0.0, 0),
            (10.0, 1),
            (20.0, 2),
        ]
        assert [row.tick for row in reader.ticks("web", 10.0, 20.0)] == [1]
        assert reader.ticks("nobody", 0.0, 99.0) == ()
        for at_s, tick in ((-1.0, None), (0.0, 0), (9.9, 0), (10.0, 1), (1e9, 2)):
            found = reader.tick_at("web", at_s)
            assert (found and found.tick) == tick
        last = reader.last("api")
        assert last is not None
        assert last.tick == 3


async def test_last_is_what_was_written_last_even_where_the_clock_jumped_back(journal) -> None:
    for tick, at_s in ((9, 90.0), (5, 50.0)):
        await journal.record_tick(TickRecord(tick, at_s, (fleet_tick(),)), ())
    with journal.reader() as reader:
        last, latest = reader.last("web"), reader.tick_at("web", 1e9)
    assert last is not None
    assert latest is not None
    assert (last.tick, latest.tick) == (5, 9)


async def test_events(journal) -> None:
    await journal.record_events(10.0, [Note("start", "", "daemon 0.1.0 started")])
    await journal.record_events(20.0, [Note("source", "web", "10.0.0.7 refused the connection")])
    with journal.reader() as reader:
        assert reader.events(0.0, 99.0) == (
            EventRecord(10.0, "start", "", "daemon 0.1.0 started"),
            EventRecord(20.0, "source", "web", "10.0.0.7 refused the connection"),
        )
        assert [event.at_s for event in reader.events(0.0, 99.0, "web")] == [20.0]
        assert reader.events(20.1, 99.0) == ()


async def test_actions_of_one_fleet_within_a_range(journal) -> None:
    for tick in range(3):
        await journal.record_tick(TickRecord(tick, tick * 10.0, (fleet_tick(),)), (START, PROVISION))
    with journal.reader() as reader:
        assert [(action.tick, action.intent) for action in reader.actions("api", 10.0, 20.0)] == [
            (1, PROVISION)
        ]
        assert len(reader.open_actions()) == 6


async def test_text_of_any_kind_survives(journal) -> None:
    nasty = "größer 🙂 '; DROP TABLE ticks; -- \x00\n"
    unwritable, written = "\ud800", "?"
    (action,) = await journal.record_tick(
        TickRecord(1, 1.0, (fleet_tick("flotte ü", sentence=nasty + unwritable),)),
        (replace(START, fleet="flotte ü", reason=nasty + unwritable),),
    )
    await journal.record_outcomes(
        [
            Settled(
                action,
                2.0,
                (
                    Outcome("i-1", OutcomeKind.REFUSED, "X", nasty + unwritable),
                    Outcome("i-2", OutcomeKind.UNKNOWN),
                ),
            )
        ]
    )
    await journal.record_events(1.0, [Note("note", "", nasty + unwritable)])
    with journal.reader() as reader:
        read = reader.last("flotte ü")
        (record,) = reader.actions_of_tick(1)
        (event,) = reader.events(0.0, 9.0)
    assert read is not None
    assert [read.recorded.sentence, record.intent.reason, record.outcomes[0].message, event.text] == [
        nasty + written
    ] * 4


async def test_prune_by_age_keeps_open_actions_and_the_last_tick(journal) -> None:
    ids = []
    for tick in range(5):
        ids += await journal.record_tick(TickRecord(tick, tick * 10.0, (fleet_tick(),)), (START,))
        await journal.record_events(tick * 10.0, [Note("note", "web", str(tick))])
    for action in ids[1:]:
        await journal.record_outcomes([Settled(action, 99.0, (Outcome("i-1", OutcomeKind.ACCEPTED),))])
    assert await journal.prune(before_s=30.0, max_bytes=2**40) == 3
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 99.0)] == [3, 4]
        assert [action.tick for action in reader.actions("web", 0.0, 99.0)] == [0, 3, 4]
        assert [event.text for event in reader.events(0.0, 99.0)] == ["3", "4"]
    assert [action.tick for action in await journal.recent_actions(math.inf)] == [0]
    assert await journal.prune(before_s=1e9, max_bytes=2**40) == 1
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 99.0)] == [4]
    await journal.record_tick(TickRecord(5, 50.0, (fleet_tick(),)), ())


async def test_prune_by_size_drops_the_oldest_first(journal) -> None:
    fleets = tuple(fleet_tick(f"fleet-{i}", demand=i * math.pi, forecast=i * math.e) for i in range(100))
    for tick in range(300):
        await journal.record_tick(TickRecord(tick, tick * 10.0, fleets), ())
    before = await journal.size_bytes()
    deleted = await journal.prune(before_s=-math.inf, max_bytes=before - 1)
    assert 0 < deleted < 300
    assert await journal.size_bytes() < before
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("fleet-7", 0.0, math.inf)] == list(range(deleted, 300))
    assert await journal.prune(before_s=-math.inf, max_bytes=0) == 299 - deleted
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("fleet-7", 0.0, math.inf)] == [299]


async def test_a_fleet_is_forgotten_with_its_last_tick(journal) -> None:
    for tick, fleets in enumerate((("api", "web"), ("web",), ("web",))):
        await journal.record_tick(TickRecord(tick, tick * 10.0, tuple(map(fleet_tick, fleets))), ())
    for before_s, known in ((0.0, ("api", "web")), (10.0, ("web",))):
        await journal.prune(before_s=before_s, max_bytes=2**40)
        with journal.reader() as reader:
            assert reader.fleets_ever() == known


async def test_prune_by_size_after_the_clock_was_set_back_keeps_what_happened_since(journal) -> None:
    for tick, at_s in enumerate([1000.0, 1010.0, 20.0]):
        (action,) = await journal.record_tick(TickRecord(tick, at_s, (fleet_tick(),)), (START,))
        accepted, noted = (Outcome("i-1", OutcomeKind.ACCEPTED),), (Note("note", "web", "done"),)
        await journal.record_outcomes([Settled(action, at_s, accepted, noted)])
    assert await journal.prune(before_s=-math.inf, max_bytes=0) == 2
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 99.0)] == [2]
        assert [action.tick for action in reader.actions("web", 0.0, 99.0)] == [2]
        assert [event.at_s for event in reader.events(0.0, 99.0)] == [20.0]


async def test_after_close_calls_are_refused_and_closing_again_is_nothing(journal) -> None:
    await journal.close()
    await journal.close()
    with pytest.raises(JournalError, match="closed"):
        await journal.record_events(1.0, [Note("note", "", "late")])
    assert issubclass(JournalError, AutoscalerError)


# ── what operators changed ──────────────────────────────────────────────────────────────────────────────


PAUSE = OperatorChange(ChangeKind.PAUSED, "web", Verb.STOP, "alice", "migration", expires_at_s=900.0)
OVERRIDE = OperatorChange(ChangeKind.OVERRIDDEN, "web", None, "bob", "crowd at noon", 4, None, None)
EVENTS = (Note("paused", "web", "alice paused stops in web"),)


async def test_what_operators_changed_is_in_force_until_a_later_change_ends_it(journal) -> None:
    (pause,) = await journal.record_changes(10.0, (PAUSE,), EVENTS)
    (override,) = await journal.record_changes(11.0, (OVERRIDE,), ())
    assert (pause.at_s, pause.change, override.change) == (10.0, PAUSE, OVERRIDE)
    assert await journal.changes_in_force() == (pause, override)
    resumed = replace(PAUSE, kind=ChangeKind.RESUMED, who="bob", expires_at_s=None)
    (again,) = await journal.record_changes(12.0, (resumed,), ())
    assert again.id > override.id
    assert await journal.changes_in_force() == (override,)
    with journal.reader() as reader:
        assert [(e.at_s, e.kind, e.fleet, e.text) for e in reader.events(0.0, 99.0)] == [
            (10.0, "paused", "web", "alice paused stops in web")
        ]


async def test_the_later_of_two_pauses_of_the_same_counts(journal) -> None:
    first, later = PAUSE, replace(PAUSE, who="bob", reason="still", expires_at_s=None)
    other = replace(PAUSE, verb=Verb.START)
    everywhere = replace(PAUSE, fleet=ALL_FLEETS)
    await journal.record_changes(10.0, (first, other), ())
    await journal.record_changes(11.0, (later, everywhere), ())
    assert [record.change for record in await journal.changes_in_force()] == [other, later, everywhere]


async def test_pruning_keeps_what_is_in_force_whatever_its_age(journal) -> None:
    for tick in range(3):
        await journal.record_tick(TickRecord(tick, tick * 10.0, (fleet_tick(),)), ())
    await journal.record_changes(1.0, (replace(PAUSE, who="first"),), EVENTS)
    kept = await journal.record_changes(2.0, (PAUSE, OVERRIDE), EVENTS)
    await journal.prune(before_s=1e9, max_bytes=0)
    assert await journal.changes_in_force() == kept
    with journal.reader() as reader:
        assert reader._connection.execute("SELECT count(*) FROM operator_changes").fetchone() == (2,)
