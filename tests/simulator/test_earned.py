"""What VMs earn, computed page by page, equals what each tick alone would give."""

from __future__ import annotations

from autoscaler.core.types import Decision, Outlook, Snapshot
from autoscaler.daemon.fleet_rows import earnings_of
from autoscaler.ports import Earnings
from autoscaler.simulator.lanes.engine import LaneRun, Lanes, PolicyDecider
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.schedules import Schedules
from tests.simulator.builders import BEGIN_S
from tests.simulator.test_contest import PLANT, a_policy, restless

TICKS = 150
PRICES = {"in_service": "0.1/h", "stopped": "0.01/h"}


class Listening(PolicyDecider):
    """Keeps what every decision tells at once."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.told: list[list[Earnings | None]] = []

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        decision = super().decide(snapshot, outlook)
        self.told.append(earnings_of(decision))
        return decision


def seen(policies, lanes):
    """Per tick, what lanes were told they earn: page by page, and at once."""
    heard: list[Listening] = []

    def decider(compiled):
        heard.append(Listening(compiled.lanes, Schedules(policies, [0.0] * len(policies))))
        return heard[0]

    ticks = Ticks.over(BEGIN_S, TICKS * 300.0, 300.0)
    run = LaneRun(
        policies, (PLANT,) * len(policies), (restless(TICKS, 300.0),) * len(policies), ticks, seed=3
    )
    witness = Witness(lanes)
    Lanes(run, decider, witness=witness).run(TICKS)
    pages = [row for page in witness.pages for row in page.earnings]
    return pages, [tuple(told[lane] for lane in lanes) for told in heard[0].told]


def test_pages_tell_what_each_tick_would_have_said():
    priced = [a_policy(objective={"shortage_price": f"{price}/h"}, prices=PRICES) for price in (2, 20)]
    pages, at_once = seen((priced[0], a_policy(), priced[1]), [2, 1, 0])
    assert pages == at_once
    assert len({row[0].shortage_price for row in pages} | {row[2].shortage_price for row in pages}) == 2
    assert {row[1] for row in pages} == {None}
    # Before the first forecast nothing is known, and later it changes from tick to tick.
    assert len({row[0].last for row in pages}) > 50


def test_nothing_is_kept_of_lanes_without_an_objective():
    priced = a_policy(objective={"shortage_price": "2/h"}, prices=PRICES)
    pages, at_once = seen((priced, a_policy()), [1])
    assert pages == []
    assert set(at_once) == {(None,)}
