"""Killing the daemon at each await and within each write of a scenario, and restarting it: the end is the same.

A point is one moment at which a task of the daemon gives up control, or a torn write of the journal. Points that
leave the same files, the same cloud and the same calls on their way are the same crash, and are tried once.
"""

from __future__ import annotations

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.ports import PAUSABLE, Verb
from tests.crash.crashing import Crash, Ended, Scenario, outside_of, restart, run
from tests.crash.verdict import problems
from tests.daemon.builders import ORIGIN_S

COLLECT_S = 170
AT_LEAST = 60
DEMAND = ((0, 100), (15, 400), (115, 150))


def scenario(*faults: Fault, **changes) -> Scenario:
    values = {"stopped": 3, "running": 1, "demand": DEMAND, "end_s": 290, "vms": 4, "serving": 2}
    return Scenario(faults=faults, **{**values, **changes})


def lost(*actions: str) -> Fault:
    return Fault(FaultKind.LOST_REPLY, end_s=210, actions=actions)


def lag(delay_s: float) -> Fault:
    return Fault(FaultKind.LISTING_LAG, delay_s=delay_s, end_s=210)


def blind(start_s: float, end_s: float) -> Fault:
    return Fault(FaultKind.API_ERROR, start_s=start_s, end_s=end_s, actions=("DescribeInstances",))


def asked(reason: str, until_s: float | None = None) -> ChangeRequest:
    return ChangeRequest(("web",), "alice", reason, None if until_s is None else ORIGIN_S + until_s)


def refreshed(*faults: Fault, **changes) -> Scenario:
    """Two VMs of the pool are out of date, and operators want them replaced."""
    values = {"stopped": 2, "vms": 3, "serving": 1, "pool": 2, "demand": ((0, 100),), "end_s": 380}
    return scenario(*faults, words=((3, "refresh"),), **{**values, **changes})


COMMANDS = (
    (3, "pause", asked("no new ones", 280), (Verb.PROVISION, Verb.STOP)),
    (27, "override", asked("crowd", 95), 4, None),
    (27, "resume", asked("no matter"), (Verb.PROVISION,)),
    (52, "override", asked("smaller crowd", 175), 3, None),
    (152, "clear", asked("over")),
)

ENDING = (
    (3, "pause", asked("rehearsal", 38), PAUSABLE),
    (52, "override", asked("crowd", 95), 3, 9),
    (112, "pause", asked("still", 145), (Verb.STOP,)),
)

SCENARIOS = {
    "operators pause and override": scenario(end_s=380, commands=COMMANDS),
    "what operators did ends by the clock, calls take long": scenario(
        commands=ENDING, there_s=7.0, back_s=8.0
    ),
    "operators have VMs of the pool deleted and tried": scenario(
        stopped=5, vms=5, end_s=420, words=((3, "evict"), (52, "exercise"))
    ),
    "operators have VMs of the pool deleted and tried, calls take long": scenario(
        stopped=5, vms=5, end_s=420, words=((3, "evict"), (52, "exercise")), there_s=7.0, back_s=8.0
    ),
    "operators have the pool replaced, answers lost": refreshed(lost("RunInstances", "TerminateInstances")),
    "operators have the pool replaced, calls take long": refreshed(there_s=7.0, back_s=8.0, end_s=480),
    "operators have the pool replaced, a crowd comes, the cloud tells nothing for a while": refreshed(
        blind(22, 55), demand=((0, 100), (60, 300), (110, 100)), more=2, unread=(5, 130), end_s=480
    ),
    "starts and stops, answers lost": scenario(lost("StartInstances", "StopInstances")),
    "starts and stops, listings lag": scenario(lag(18)),
    "calls take long": scenario(there_s=7.0, back_s=8.0),
    "provisions, listings lag": scenario(lag(18), stopped=1, provisions=True),
    "provisions, answers lost, listings lag": scenario(
        lost("RunInstances"), lag(10), stopped=1, provisions=True
    ),
    "provisions, calls take long, listings lag": scenario(
        lag(10), stopped=1, provisions=True, there_s=7.0, back_s=8.0
    ),
    "provisions are met in part, listings lag": scenario(lag(18), stopped=0, provisions=True, vms=3, room=3),
    "starts come to nothing and are asked for elsewhere": scenario(
        Fault(FaultKind.NO_CAPACITY, zone="us-east-1a", end_s=210), lag(8), stopped=6, vms=7, there_s=1.0
    ),
    "no listing at the restart": scenario(blind(22, 55), blind(112, 135), provisions=True),
}


def tried(crash: Crash) -> tuple[bool, ...]:
    """What is on its way arrives or is lost."""
    return (False, True) if crash.calls else (False,)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_any_point_leaves_nothing_behind(tmp_path, name, record_property) -> None:
    case = SCENARIOS[name]
    first = run(case, outside_of(case), tmp_path / "first", collect_until_s=COLLECT_S)
    assert problems(case, None, first, tmp_path / "first") == []
    found = {}
    for number, crash in enumerate(first.crashes.found.values()):
        # A short rest and a long one in turn: within the lag of a listing, and beyond it.
        down_s = (1.0, 1.0, 12.0, 45.0)[number % 4]
        for on_the_way_lost in tried(crash):
            again = restart(case, crash, tmp_path / "again", down_s=down_s, lost=on_the_way_lost)
            wrong = problems(case, crash, again, tmp_path / "again")
            if wrong:
                found[crash.place, crash.now_s, down_s, on_the_way_lost] = wrong
    assert found == {}
    _say(record_property, name, first)
    assert len(first.crashes.found) >= 40


def test_a_crash_at_any_point_of_the_recovery_from_a_crash(tmp_path, record_property) -> None:
    """Killed in the middle of starts and provisions, and again at each point of the next daemon's first ticks."""
    case = scenario(lag(10), stopped=1, provisions=True)
    first = run(case, outside_of(case), tmp_path / "first", collect_until_s=25)
    middle = next(c for c in reversed(first.crashes.found.values()) if c.calls)
    second = restart(case, middle, tmp_path / "second", collect_until_s=75)
    assert problems(case, middle, second, tmp_path / "second") == []
    found = {}
    for crash in second.crashes.found.values():
        for on_the_way_lost in tried(crash):
            third = restart(case, crash, tmp_path / "third", lost=on_the_way_lost)
            wrong = problems(case, crash, third, tmp_path / "third")
            if wrong:
                found[crash.place, crash.now_s, on_the_way_lost] = wrong
    assert found == {}
    _say(record_property, "the recovery", second)
    assert len(second.crashes.found) >= 10


def test_there_are_enough_distinct_points(tmp_path, record_property) -> None:
    """Of one scenario alone: points that differ in time or in place of the code, or in what they leave."""
    case = SCENARIOS["provisions, listings lag"]
    first = run(case, outside_of(case), tmp_path / "first", collect_until_s=COLLECT_S)
    _say(record_property, "points", first)
    assert first.crashes.points >= 2 * AT_LEAST
    remains = set(first.crashes.found)
    other = SCENARIOS["calls take long"]
    remains |= set(run(other, outside_of(other), tmp_path / "other", collect_until_s=COLLECT_S).crashes.found)
    assert len(remains) >= AT_LEAST


def _say(record_property, name: str, ended: Ended) -> None:
    crashes = ended.crashes
    text = f"{crashes.points} points at {len(crashes.places)} places, {len(crashes.found)} distinct crashes"
    record_property(name, text)
    print(f"{name}: {text}")
