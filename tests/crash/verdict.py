"""Finds what is wrong after a crash, by comparing the end with the cloud, the journal and what was acknowledged."""

from __future__ import annotations

from pathlib import Path

from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.ports import ChangeKind, OutcomeKind, Verb
from autoscaler.store import JournalReader
from autoscaler.store.changes import StandingFile, read_in_force
from tests.crash.crashing import OLD_IMAGE, Crash, Ended, Scenario
from tests.daemon.builders import ORIGIN_S


def problems(scenario: Scenario, crash: Crash | None, ended: Ended, state: Path) -> list[str]:
    """Return what is wrong at the end; empty if all is as if nothing had happened."""
    world = ended.crashes.outside.world
    found = [f"started twice: {ended.crashes.outside.doubles}"] if ended.crashes.outside.doubles else []
    found += [
        f"{e}: {f['text']}"
        for _, e, f in ended.log.lines
        if e in ("tick_failed", "act_failed", "journal_failed", "journal_recovered")
    ]
    views = world.views(ended.now_s)
    truth = {view.id: view for view in views if view.state is not State.TERMINATED}
    known = {
        i: t.phase
        for i, t in ended.daemon.fleets.all[0].inventory.vms.items()
        if i in truth or t.phase is not Phase.LOST
    }
    expected = {
        i: Phase.IN_SERVICE if v.state is State.RUNNING and v.ready(ended.now_s) else Phase(str(v.state))
        for i, v in truth.items()
    }
    if known != expected:
        found.append(f"the ledger {known} is not the cloud {expected}")
    asked = [what for _, what in scenario.words].count("evict")
    words = ended.crashes.acknowledged.words
    kept = asked - [what for what, _ in words].count("evict")
    if not scenario.vms <= len(truth) <= scenario.vms + scenario.more + kept:
        found.append(
            f"{len(truth)} VMs, not {scenario.vms}, and {kept} that nobody was told would be evicted"
        )
    found += [f"{vm_id} was not evicted" for what, vm_id in words if what == "evict" and vm_id in truth]
    old = sorted(i for i, v in truth.items() if v.state is State.STOPPED and v.image == OLD_IMAGE)
    if old and any(what == "refresh" for what, _ in words):
        found.append(f"{old} were not replaced")
    if (serving := len(world.serving(ended.now_s))) != scenario.serving:
        found.append(f"{serving} serve, not {scenario.serving}")
    if any(view.fleet != "web" for view in views):
        found.append("a VM without owner")
    counted = ended.daemon.last_record.fleets[0].provisioned if ended.daemon.last_record else None
    if counted != len(truth):
        found.append(f"{counted} VMs counted, there are {len(truth)}")
    with JournalReader(state) as reader:
        if reader.open_actions():
            found.append(f"open: {reader.open_actions()}")
        found += _wrong_with_operators(reader, ended)
        found += [
            f"{vm_id} was not tried"
            for what, vm_id in words
            if what == "exercise" and not _was_tried(reader, vm_id, ended.now_s)
        ]
    if crash is not None:
        try:
            crash.rest()[1].require(state)
        except AssertionError as error:
            found.append(f"an acknowledged record is lost: {error}")
    return found


def _was_tried(reader: JournalReader, vm_id: str, now_s: float) -> bool:
    """Whether a VM was started to be exercised. If the daemon dies meanwhile, the next one sees this, and the VM may serve."""
    tried = (a for a in reader.actions("web", 0.0, now_s + 1.0) if a.intent.verb is Verb.EXERCISE)
    done = any(
        o.vm_id == vm_id and o.kind is OutcomeKind.ACCEPTED for action in tried for o in action.outcomes
    )
    seen = reader._connection.execute(
        "SELECT count(*) FROM events WHERE kind = 'action_settled' AND text LIKE ?",
        (f"exercise of 1: {vm_id} is %",),
    )
    return done or seen.fetchone()[0] > 0


def _wrong_with_operators(reader: JournalReader, ended: Ended) -> list[str]:
    """Check that journal, file and daemon agree on what is in force, that no command is half recorded, and that pauses held."""
    found = []
    connection = reader._connection
    in_force = read_in_force(connection)
    in_file = StandingFile(ended.crashes.state).read()
    if not in_force == in_file == ended.in_force:
        found.append(f"in force: journal {in_force}, file {in_file}, daemon {ended.in_force}")
    kinds = tuple(ChangeKind)
    marks = ", ".join("?" * len(kinds))
    (changed,) = connection.execute("SELECT count(DISTINCT at_s) FROM operator_changes").fetchone()
    (told,) = connection.execute(
        f"SELECT count(DISTINCT at_s) FROM events WHERE kind IN ({marks})", kinds
    ).fetchone()
    if changed != told:
        found.append(f"{changed} commands with changes and {told} with events")
    said = ended.crashes.acknowledged
    stops = [call.at_s for call in ended.crashes.outside.world.api.calls if call.action == "StopInstances"]
    for record in said.changes[: said.answered]:
        change = record.change
        if change.kind is ChangeKind.PAUSED and change.verb is Verb.STOP:
            early = [s for s in stops if record.at_s <= s < (change.expires_at_s or 0.0)]
            if early:
                found.append(f"stopped while paused, at {[s - ORIGIN_S for s in early]}")
    return found
