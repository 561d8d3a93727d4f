"""Commands for VMs of the pool: recorded with who and why, then carried out, or refused if they make no sense."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.clock import run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.vms.pool_tags import QUARANTINED_TAG
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.errors import ChangeRefusedError, JournalError, ProviderError
from autoscaler.ports import FLEET_TAG, Learned, Outcome, OutcomeKind, Verb
from autoscaler.providers.coalescing import SharedReader
from autoscaler.providers.shadow import ShadowProvider
from autoscaler.store import SqliteJournal
from tests.daemon.builders import ORIGIN_S, virtual
from tests.daemon.pools import chores, pool_bench, renew_template, states


def give_command(bench, at_s, what, *vms, fleet="web", reason="see ticket 7", answers=None):
    """Give an operator's command at some second of the run. Answers and refusals are kept."""
    kept = bench.answers = answers if answers is not None else getattr(bench, "answers", [])

    async def word():
        try:
            kept.append(
                await PoolCommands(bench.daemon).by_name[what](PoolCommand(fleet, vms, "alice", reason))
            )
        except (ChangeRefusedError, JournalError) as error:
            kept.append(error)

    loop = asyncio.get_running_loop()
    loop.call_later(at_s, lambda: kept_task(bench, word()))


def kept_task(bench, coroutine):
    bench.tasks = [*getattr(bench, "tasks", []), asyncio.ensure_future(coroutine)]


def view(bench, vm_id):
    return next((vm for vm in bench.world.page(bench.clock.now()).vms if vm.id == vm_id), None)


@virtual
async def test_a_quarantined_vm_is_not_started_survives_a_restart_and_comes_back_when_released():
    bench = pool_bench(
        lambda second: 100 if second < 50 else 400,
        running=1,
        vms=3,
        refill="off",
        provision="off",
        warm_pool={"minimum": 0},
    )
    bad = bench.ids[1]
    give_command(bench, 15, "quarantine", bad)
    await bench.run(100)
    assert bench.answers == [f"{bad} of web will not be started until released."]
    assert view(bench, bad).tags[QUARANTINED_TAG] == "alice: see ticket 7"
    assert view(bench, bad).state == "stopped"
    assert bench.rows()[-1].in_service == 3
    told = [text for _, kind, text in bench.events() if kind == "pool_quarantine"]
    assert told == [f"alice quarantined {bad} (see ticket 7)"]
    # A new daemon reads the tag.
    await bench.run(100)
    assert view(bench, bad).state == "stopped"
    give_command(bench, 5, "release", bad)
    await bench.run(100)
    assert view(bench, bad).state == "running"
    assert view(bench, bad).tags[QUARANTINED_TAG] == ""


@virtual
async def test_an_evicted_vm_is_deleted_whoever_made_it_and_the_record_says_who_asked():
    bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0})
    give_command(bench, 15, "evict", bench.ids[1])
    await bench.run(60)
    assert [(at, verb, why) for at, verb, _, why in chores(bench)] == [
        (20, "terminate", "evicted by an operator")
    ]
    assert states(bench) == {"running": 1, "stopped": 1}
    assert [text for _, kind, text in bench.events() if kind == "pool_evict"] == [
        f"alice evicted {bench.ids[1]}: deleted for good (see ticket 7)"
    ]


@virtual
async def test_an_operator_may_have_vms_tried_one_after_the_other():
    bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0})
    give_command(bench, 15, "exercise")
    await bench.run(400)
    assert [verb for _, verb, *_ in chores(bench)] == ["exercise", "store", "exercise", "store"]
    assert len({a.intent.vm_ids for a in bench.actions()}) == 2


@virtual
async def test_an_operator_may_have_the_pool_refreshed_outside_its_windows():
    window = [{"from": "01:00", "to": "02:00"}]
    bench = pool_bench(100, running=1, freshness={"refresh": {"windows": window}})
    await bench.run(300)
    renew_template(bench)
    give_command(bench, 330, "refresh")
    await bench.run(1500)
    assert bench.answers == ["2 out of date in web will be replaced, the new ones first."]
    stopped = [vm for vm in bench.world.page(bench.clock.now()).vms if vm.state == "stopped"]
    assert {vm.image for vm in stopped} == {"ami-0000000c"}


@virtual
async def test_what_must_stay_is_not_promised_to_be_replaced_and_nothing_is_made_for_it():
    bench = pool_bench(100, running=1, vms=2, freshness={"refresh": {}})
    give_command(bench, 95, "refresh")
    await bench.run(600)
    (answer,) = bench.answers
    assert "the out-of-date VMs of web must stay (2): the daemon did not make it" in str(answer)
    assert chores(bench) == []
    # The tag allows one VM to be deleted.
    bench.world.tag(bench.clock.now(), bench.ids[1:2], {"autoscaler:terminable": "true"})
    give_command(bench, 35, "refresh")
    await bench.run(1200)
    assert bench.answers[1].startswith(
        "1 out of date in web will be replaced, the new ones first. What else is must stay (1): "
    )
    assert [count for _, _, count, _ in chores(bench, Verb.REFILL)] == [1]
    assert [count for _, _, count, _ in chores(bench, Verb.TERMINATE)] == [1]


@virtual
async def test_while_the_template_is_unknown_nobody_is_told_that_all_is_up_to_date():
    bench = pool_bench(100, running=1, vms=2)

    async def unreadable(spec):
        raise ProviderError(f"{spec.launch_template} cannot be read")

    readable, bench.provider.launch_spec = bench.provider.launch_spec, unreadable
    give_command(bench, 35, "refresh")
    await bench.run(50)
    assert (
        "it is not known which VMs of web are out of date, since its launch template web cannot be read: web cannot be read"
        in str(bench.answers[0])
    )
    bench.provider.launch_spec = readable
    give_command(bench, 75, "refresh")
    await bench.run(90)
    assert "must stay" in str(bench.answers[1])


@virtual
async def test_what_is_replaced_on_an_operators_word_and_serves_meanwhile_is_replaced_when_it_is_back():
    bench = pool_bench(lambda second: 300 if 340 < second < 420 else 100, running=1)
    await bench.run(300)
    renew_template(bench)
    old = {vm.id for vm in bench.world.page(bench.clock.now()).vms if vm.state == "stopped"}
    await bench.run(20)
    give_command(bench, 15, "refresh")
    await bench.run(1500)
    assert bench.answers == ["2 out of date in web will be replaced, the new ones first."]
    left = {vm.id for vm in bench.world.page(bench.clock.now()).vms if vm.state == "stopped"}
    assert not old & left


@virtual
async def test_what_was_evicted_and_not_deleted_for_want_of_an_answer_is_deleted_later():
    bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0})
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, end_s=60, actions=("TerminateInstances",), code="InternalError")
    )
    give_command(bench, 15, "evict", bench.ids[1])
    await bench.run(900)
    assert bench.answers == [f"{bench.ids[1]} of web will be deleted for good, at the next tick."]
    assert view(bench, bench.ids[1]).state == "terminated"


@virtual
async def test_what_may_not_be_deleted_is_asked_for_again_every_few_minutes_and_not_every_tick():
    bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0})
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, actions=("TerminateInstances",), code="OperationNotPermitted")
    )
    give_command(bench, 15, "evict", bench.ids[1])
    await bench.run(900)
    assert 2 <= len(chores(bench, Verb.TERMINATE)) <= 4
    assert view(bench, bench.ids[1]).state == "stopped"


@virtual
async def test_adopted_and_disowned():
    bench = pool_bench(100, running=1, vms=1, refill="off", warm_pool={"minimum": 0})
    (stray,) = bench.world.provision(ORIGIN_S, "", 1)
    give_command(bench, 15, "adopt", stray)
    give_command(bench, 35, "disown", bench.ids[1])
    await bench.run(60)
    assert view(bench, stray).tags[FLEET_TAG] == "web"
    assert view(bench, bench.ids[1]).tags[FLEET_TAG] == ""
    assert stray in bench.daemon.fleets.by_name["web"].inventory.vms


@virtual
async def test_what_was_disowned_is_neither_started_nor_stopped_while_listings_still_show_it():
    bench = pool_bench(
        lambda second: 300 if second < 20 else 0 if second < 60 else 700,
        running=3,
        vms=3,
        refill="off",
        provision="off",
        warm_pool={"minimum": 0},
    )
    on, off = bench.ids[0], bench.ids[5]
    give_command(bench, 19, "disown", on, off)
    await bench.run(140)
    assert (view(bench, on).state, view(bench, off).state) == ("running", "stopped")
    assert {call[3] for call in bench.calls("StopInstances", "StartInstances")} == {""}
    kinds = [kind for _, kind, _ in bench.events()]
    assert "vm_gone" not in kinds, "it was given up, not lost"
    assert not bench.daemon.fleets.by_name["web"].inventory.vms.keys() & {on, off}


class NoTags:
    """A provider that may not write tags."""

    def __init__(self, provider):
        self._provider = provider

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def tag(self, vm_ids, tags):
        del tags
        return tuple(Outcome(i, OutcomeKind.DENIED, "UnauthorizedOperation", "not you") for i in vm_ids)


@virtual
async def test_what_cannot_be_tagged_is_neither_adopted_nor_given_up():
    bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0})
    bench.setups[0] = replace(bench.setups[0], provider=NoTags(bench.provider))
    for at_s, what in ((15, "disown"), (16, "adopt"), (17, "quarantine")):
        give_command(bench, at_s, what, bench.ids[1])
    await bench.run(80)
    gave, took, kept = map(str, bench.answers)
    why = f"{bench.ids[1]} UnauthorizedOperation not you"
    assert gave == (
        f"not all of {bench.ids[1]} could be given up, since the tag autoscaler:fleet could not be written: {why}"
    )
    assert took.startswith(f"not all of {bench.ids[1]} could be adopted, since the tag")
    assert kept.endswith(f"could not be written ({why}), so it does not outlive the daemon: try again.")
    assert not bench.daemon.fleets.by_name["web"].inventory.vms[bench.ids[1]].disowned


def test_what_was_asked_of_the_pool_is_done_after_a_crash(tmp_path):
    """The command was answered, so it is on disk, although it could not be carried out yet."""

    async def main():
        bench = pool_bench(100, running=1, vms=4, refill={"calm": "90s"}, warm_pool={"minimum": 1})
        bench.journal = SqliteJournal(tmp_path, inline=True)
        give_command(bench, 15, "exercise", bench.ids[1])
        give_command(bench, 15.5, "evict", bench.ids[2])
        bench.daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
        running = asyncio.create_task(bench.daemon.run())
        await bench.clock.sleep_until(bench.clock.monotonic() + 17)
        running.cancel()
        await asyncio.wait({running})
        tried, evicted = bench.answers
        assert tried == (
            f"{bench.ids[1]} of web will be exercised, as soon as no VM has been on its way for demand for 90 s; "
            "`autoscaler events` will show the result."
        )
        assert evicted == f"{bench.ids[2]} of web will be deleted for good, at the next tick."
        assert chores(bench) == []
        await bench.run(300)
        done = [(verb, reason) for _, verb, _, reason in chores(bench, "exercise", "terminate")]
        assert done == [("terminate", "evicted by an operator"), ("exercise", "tried: would it serve?")]
        # Once more, and it is not done again.
        await bench.run(300)
        assert len(chores(bench, "exercise", "terminate")) == 2
        await bench.journal.close()

    run_virtual(main)


@pytest.mark.parametrize(
    "row",
    [
        Learned("web", "asked", 9, b"{}"),
        Learned("web", "asked", 2, b"no JSON"),
        Learned("web", "asked", 2, b"[]"),
        Learned("web", "asked", 2, b'{"exercise": [1], "evict": [], "refresh": []}'),
    ],
    ids=lambda row: row.body.decode(),
)
def test_what_was_asked_and_cannot_be_read_is_told_and_forgotten(row, tmp_path):
    async def main():
        bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0})
        bench.journal = SqliteJournal(tmp_path, inline=True)
        await bench.journal.record_learned(ORIGIN_S, [row])
        await bench.run(20)
        (said,) = bench.log.texts("journal_failed")
        assert said.startswith("what operators asked of the pool of web cannot be read: ")
        await bench.journal.close()

    run_virtual(main)


REFUSED = {
    "a vm in service": ("evict", "running", "is in_service"),
    "no such vm": ("quarantine", "i-0", "web has no VM i-0"),
    "nothing to replace with": ("refresh", "", "needs the sections provision and refill"),
    "one that runs": ("exercise", "running", "only stopped VMs are exercised"),
    "no vm": ("release", "", "no VM is named"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_and_changes_nothing(case):
    what, vm, said = REFUSED[case]

    @virtual
    async def lives():
        bench = pool_bench(100, running=1, vms=1, refill="off", warm_pool={"minimum": 0})
        give_command(bench, 15, what, *((bench.ids[0] if vm == "running" else vm,) if vm else ()))
        await bench.run(40)
        (answer,) = bench.answers
        assert said in str(answer)
        assert chores(bench) == []
        assert not [kind for _, kind, _ in bench.events() if kind.startswith("pool_")]

    lives()


@virtual
async def test_in_shadow_no_tag_is_promised_and_the_rest_is_said_to_be_pretended():
    bench = pool_bench(100, running=1, vms=2, refill="off", warm_pool={"minimum": 0}, act=False)
    shadow = ShadowProvider(
        SharedReader(bench.provider), bench.clock, "web", start_time_s=20.0, stop_time_s=30.0
    )
    bench.setups[0] = replace(bench.setups[0], provider=shadow)
    resting = bench.ids[1]
    (stray,) = bench.world.provision(ORIGIN_S, "", 1)
    give_command(bench, 15, "adopt", stray)
    give_command(bench, 16, "disown", resting)
    give_command(bench, 17, "quarantine", resting)
    await bench.run(40)
    *refused, done = map(str, bench.answers)
    why = "web runs in shadow, where no VM is really changed"
    hint = ": set `act: true` first, or change the tag autoscaler:fleet of the VMs yourself"
    assert refused == [why + hint] * 2
    assert done == f"{resting} of web will not be started until released. {why}."
    assert [kind for _, kind, _ in bench.events() if kind.startswith("pool_")] == ["pool_quarantine"]


@virtual
async def test_what_the_journal_does_not_take_is_not_done():
    bench = pool_bench(100, running=1, vms=1, refill="off", warm_pool={"minimum": 0})

    class Full:
        def __getattr__(self, name):
            return getattr(journal, name)

        async def record_changes(self, at_s, changes, events):
            raise JournalError("the disk is full")

    journal, bench.journal = bench.journal, Full()
    give_command(bench, 15, "evict", bench.ids[1])
    await bench.run(40)
    assert str(bench.answers[0]) == "the disk is full"
    assert view(bench, bench.ids[1]).state == "stopped"


@virtual
async def test_every_vm_is_shown_with_what_keeps_it_from_being_started():
    bench = pool_bench(100, running=1, freshness={"refresh": {}})
    await bench.run(200)
    renew_template(bench)
    await bench.run(20)
    rows = PoolCommands(bench.daemon).shown("web")
    assert [row["phase"] for row in rows] == ["stopped", "stopped", "in_service"]
    assert all("another version of the launch template" in row["out_of_date"] for row in rows[:2])
    assert rows[0]["age_is_known"]
    assert 60 < rows[0]["age_s"] < 200
    with pytest.raises(ChangeRefusedError, match="did you mean web"):
        PoolCommands(bench.daemon).shown("wep")
