"""`plan`: the text for a pull request, from a trace and from the daemon's own journal."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoscaler.cli.main import app
from autoscaler.config.loading import require_policy
from autoscaler.simulator.replay.exporting import demand_trace
from autoscaler.simulator.replay.preparing import Wanted, prepare
from autoscaler.simulator.replay.replaying import run
from autoscaler.simulator.traffic.parts import Crowd
from autoscaler.simulator.traffic.synth import synth_day
from autoscaler.store import JournalReader
from autoscaler.traces.writing import write_trace

IN_FORCE = Path(__file__).parents[2] / "policies" / "web.yaml"
TRAFFIC = synth_day(3, days=0.1, interval_s=60.0, crowds=(Crowd(at_s=3600.0, height=2000.0),))


def plan(*arguments, **settings):
    environment = {"AUTOSCALER_CONFIG": "", **settings}
    return CliRunner().invoke(app, ["plan", *map(str, arguments)], env=environment)


@pytest.fixture
def places(tmp_path):
    trace = tmp_path / "day.csv"
    write_trace(trace, TRAFFIC)
    changed = tmp_path / "changed.yaml"
    changed.write_text(
        IN_FORCE.read_text(encoding="utf-8").replace("headroom: 20%", "headroom: 60%"), encoding="utf-8"
    )
    (tmp_path / "defaults.yaml").write_bytes((IN_FORCE.parent / "defaults.yaml").read_bytes())
    return changed, trace


def test_more_headroom_costs_more_and_is_said_first(places):
    changed, trace = places
    done = plan(changed, "--against", IN_FORCE, "--trace", trace, "--kind", "count")
    assert done.exit_code == 0, done.output
    title, _, headline, *_ = done.output.splitlines()
    assert title == "### `web`: what the changed policy would have done"
    assert "% more**" in headline
    assert "| `reactive.headroom` | 20% | 60% |" in done.output
    assert "less than a day" in done.output
    assert "How much of the difference is luck cannot be said" in done.output


def test_what_makes_figures_doubtful_comes_right_after_the_conclusion(places):
    changed, trace = places
    changed.write_text(
        changed.read_text(encoding="utf-8").replace("in_service: 0.096/h", "in_service: 0.2/h"),
        encoding="utf-8",
    )
    said = plan(changed, "--against", IN_FORCE, "--trace", trace, "--kind", "count").output
    assert (
        said.index("**Doubts**")
        < said.index("The policies have different `prices`")
        < said.index("| field |")
    )


def test_programs_get_the_same_figures(places):
    changed, trace = places
    done = plan(changed, "--against", IN_FORCE, "--trace", trace, "--kind", "count", "--json")
    document = json.loads(done.stdout)
    assert document["fields"] == [{"field": "reactive.headroom", "before": "20%", "after": "60%"}]
    assert document["figures"]["changed"]["cost"] > document["figures"]["in_force"]["cost"]
    assert (
        document["figures"]["changed"]["unserved_share"] <= document["figures"]["in_force"]["unserved_share"]
    )
    assert document["differences"]["differing"]["desired"] > 0
    assert document["certainty"]["cost_per_day"]["mean"] > 0


def test_both_policies_meet_the_same_demand_if_their_capacities_differ(places):
    changed, trace = places
    changed.write_text(IN_FORCE.read_text(encoding="utf-8").replace("120/s", "60/s"), encoding="utf-8")
    given = ("--against", IN_FORCE, "--trace", trace, "--kind", "count", "--scale-to-vms", 10)
    figures = json.loads(plan(changed, *given, "--json").stdout)["figures"]
    assert figures["changed"]["vm_hours"] > 1.6 * figures["in_force"]["vm_hours"]


def test_a_copy_changes_nothing_and_that_is_said(places):
    changed, trace = places
    changed.write_bytes(IN_FORCE.read_bytes())
    done = plan(changed, "--against", IN_FORCE, "--trace", trace, "--kind", "count")
    assert "**nothing would have been different**" in done.output
    assert "No field of the effective policy differs." in done.output


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A policy without forecasts, the folder of its journal of two hours, and the time line of what really happened."""
    state = tmp_path_factory.mktemp("state")
    in_force = require_policy(IN_FORCE)
    plain = in_force.model_copy(update={"forecast": None})
    return (
        plain,
        state,
        run(prepare(plain, IN_FORCE, TRAFFIC, Wanted(vms=36)), None, None, state, "loop").rows,
    )


def test_the_daemons_own_journal_is_the_traffic_where_no_trace_is_given(places, recorded):
    changed, _ = places
    _, state, _ = recorded
    done = plan(
        changed, "--state-dir", state, "--since", TRAFFIC.start_s, AUTOSCALER_POLICIES=str(IN_FORCE.parent)
    )
    assert done.exit_code == 0, done.output
    assert "of the journal (" in done.output
    assert "ticks of 60 s" in done.output


def test_the_policy_in_force_is_as_short_as_it_really_was(recorded):
    plain, state, rows = recorded
    with JournalReader(state) as reader:
        traffic = demand_trace("web", reader.each_tick("web", 0.0, math.inf)).trace
    replay = prepare(plain, IN_FORCE, traffic, Wanted(vms=36))
    replayed = [row for row in run(replay).scored if not math.isnan(row.demand)]
    real = {row.timestamp_s: (row.desired, row.shortage) for row in rows}
    assert len(replayed) > 100
    assert sum(row.shortage for row in replayed) > 0
    assert {row.timestamp_s: (row.desired, pytest.approx(row.shortage)) for row in replayed} == {
        row.timestamp_s: real[row.timestamp_s] for row in replayed
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kind", "count"), "these options belong to --trace"),
        (("--trace", "no-such.csv", "--kind", "count"), "no-such.csv"),
        (("--state-dir", "no-such-state"), "There is no journal"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(places, arguments, said):
    done = plan(places[0], *arguments, AUTOSCALER_POLICIES=str(IN_FORCE.parent))
    assert done.exit_code in (1, 2)
    assert said in " ".join(done.output.replace("│", " ").split())


def test_the_policy_in_force_itself_is_refused(places):
    done = plan(IN_FORCE, "--trace", places[1], "--kind", "count", AUTOSCALER_POLICIES=str(IN_FORCE.parent))
    assert done.exit_code == 1
    assert "is the policy in force itself" in done.output


def test_an_unknown_fleet_names_the_nearest(places):
    changed, trace = places
    changed.write_text(
        changed.read_text(encoding="utf-8").replace("fleet: web", "fleet: webb"), encoding="utf-8"
    )
    done = plan(changed, "--trace", trace, "--kind", "count", AUTOSCALER_POLICIES=str(IN_FORCE.parent))
    assert done.exit_code == 1
    assert "did you mean web?" in done.output
