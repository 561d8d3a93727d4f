"""Eighteen hours of twelve fleets with random troubles: nothing grows, no decision breaks a rule, and the ledger is right.

Seven days of twenty fleets are run by `python -m benchmarks soak`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.sizes import containers, growth
from tests.soak.soaking import Soak, Soaked, run
from tests.soak.troubles import DAY_S, Kind, bad_days

pytestmark = pytest.mark.timeout(1200)
"""The fixture is the whole run, half a minute where nothing else runs, and is made once."""

# The journal fills until the fifth hour, and six hours are compared with the six before.
SOAK = Soak(days=0.75, seed=1, fleets=12, retention_s=4 * 3600.0, flat_from_s=12 * 3600.0)


@pytest.fixture(scope="module")
def soaked() -> Soaked:
    found = run(SOAK)
    print(f"{found.ticks} ticks, {found.ticks / found.seconds:.0f} a second; met: {dict(found.met)}")
    return found


def test_every_trouble_was_met(soaked) -> None:
    assert {kind.value for kind in Kind} - set(soaked.met) <= {Kind.CLOCK_AHEAD.value, Kind.CLOCK_BACK.value}
    assert set(soaked.outcomes) >= {"accepted", "throttled", "unknown", "no_capacity"}
    assert soaked.events["clock_set_back"] == 1
    assert soaked.skipped > 0  # the clock was set ahead


def test_no_tick_and_no_act_failed(soaked) -> None:
    assert soaked.failures == []
    # A clock set back has ticks of its own, and one set ahead skips some.
    assert soaked.ticks >= SOAK.days * DAY_S / SOAK.tick_s - soaked.skipped


def test_no_vm_was_started_twice(soaked) -> None:
    assert soaked.doubles == []


def test_every_decision_was_sane_and_the_ledger_is_the_cloud_in_the_end(soaked) -> None:
    assert soaked.wrong == []
    served = {fleet: soaked.served[fleet] / soaked.wanted[fleet] for fleet in soaked.wanted}
    assert min(served.values()) > 0.9, served


def test_nothing_grows(soaked) -> None:
    assert list(growth(soaked.samples, SOAK.flat_from_s)) == []


def test_growth_is_seen(soaked) -> None:
    """The measure itself: a leak of thirty blocks or one item a tick, a task or a descriptor an hour shows."""

    def leaking(**changes):
        last = [
            replace(s, **{name: change(s, number) for name, change in changes.items()})
            for number, s in enumerate(soaked.samples)
        ]
        return list(growth(last, SOAK.flat_from_s))

    hour = round(SOAK.sample_s / SOAK.tick_s)
    found = leaking(
        blocks=lambda s, n: s.blocks + 30 * n * hour,
        tasks=lambda s, n: s.tasks + n,
        descriptors=lambda s, n: s.descriptors + n,
        containers=lambda s, n: {**s.containers, "Daemon.forgotten": n * hour},
    )
    assert [text.split(" ")[0] for text in found] == ["blocks", "tasks", "descriptors", "Daemon.forgotten"]


def test_containers_are_found_wherever_they_hang() -> None:
    soak = Soak(days=1.0)
    days = bad_days(1, 1.0, soak.names, "abc")
    sizes = containers(days)
    assert sizes["BadDays.faults"] == len(days.faults)
    assert sizes["BadDays.troubles"] == len(days.troubles)


def test_the_same_seed_gives_the_same_days() -> None:
    names = Soak(days=1.0).names
    assert bad_days(3, 7.0, names, "abc") == bad_days(3, 7.0, names, "abc")
    assert bad_days(3, 7.0, names, "abc") != bad_days(4, 7.0, names, "abc")
