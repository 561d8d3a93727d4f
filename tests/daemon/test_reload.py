"""Reloads on virtual time: between ticks, all or nothing, and nothing learned or ordered is lost."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.clock import run_virtual
from autoscaler.core.types import Freshness
from autoscaler.daemon.last_good import FILE_NAME, LastGood
from autoscaler.daemon.lifecycle import run_to_the_end
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.policies import PolicyFolder
from autoscaler.daemon.reloading import Reloads
from autoscaler.errors import SourceError
from autoscaler.wiring import Wiring
from tests.daemon.builders import ORIGIN_S, Bench, Demand, steady
from tests.daemon.test_supervision import Heard

POLICY = """\
fleet: {fleet}
act: {act}
signal: {{kind: total, source: trace, max_age: 30s, trace: {{file: day.csv, kind: gauge}}}}
vm: {{capacity: 100/s, start_time: {start_time}, stop_time: 30s}}
readiness: {{probe: {probe}}}
bounds: {{minimum: {minimum}, maximum: {maximum}}}
reactive: {{headroom: {headroom}, tolerance: 0%}}
forecast: {{cover: 95%}}
guards: {{stabilisation: {stabilisation}, cooldown_in: 20s, minimum_on_time: 60s}}
prices: {{in_service: 3600/h, stopped: 36/h}}
"""
CROWD = steady((0, 200), (60, 900), (150, 300))


class Source(Demand):
    """A source that says when it is closed."""

    closed = False

    async def close(self):
        self.closed = True


class Life:
    """A daemon on a folder of policies, in a world of two fleets of 12 VMs and one of 4."""

    def __init__(self, path, **demands):
        self.path = path
        self.demands = demands
        self.sources = {}
        self.at = []

    def write(self, fleet, **changed):
        given = {
            "fleet": fleet, "act": "true", "start_time": "20s", "minimum": 0, "maximum": 20, "headroom": "0%",
            "probe": "status_checks", "stabilisation": "60s",
        }  # fmt: skip
        (self.path / f"{fleet}.yaml").write_text(POLICY.format(**given | changed))

    def source_of(self, policy):
        demand = self.demands.get(policy.fleet, 100)
        if isinstance(demand, Exception):
            raise demand
        self.sources.setdefault(policy.fleet, []).append(Source(self.bench.clock, demand, total=True))
        return self.sources[policy.fleet][-1]

    def when(self, second, change, *given, **more):
        self.at.append((second, lambda: change(*given, **more)))
        return self

    def run(self, for_s):
        """Live for this long, with changes at their seconds."""

        async def live():
            self.bench = bench = Bench(vms=10, running=2, zones="a")
            bench.place("api", 10, running=2)
            bench.place("new", 2, running=2)
            folder = PolicyFolder(self.path, 10.0)
            last_good = LastGood(self.path / FILE_NAME)
            found, mended = last_good.mend(folder, folder.load())
            loaded = replace(folder.before_loading(), left_out=tuple(map(str, found.errors)), mended=mended)
            wiring = Wiring(bench.provider, bench.clock, self.source_of)
            self.heard = Heard(bench.clock, None)
            self.daemon = bench.daemon = Daemon(
                bench.clock,
                wiring.wire(found.policies).setups,
                bench.journal,
                bench.telemetry,
                bench.settings,
                bench.records.append,
                notifier=self.heard,
            )
            self.reloads = Reloads(self.daemon, folder, wiring.wire, loaded, last_good=last_good, inline=True)
            for second, change in self.at:
                asyncio.get_running_loop().call_later(second, change)
            await run_to_the_end(self.daemon, reloads=self.reloads, for_s=for_s)

        run_virtual(live)
        return self

    def ask(self):
        self.reloads.ask()

    def value(self, name, **labels):
        return self.bench.telemetry.registry.get_sample_value(f"autoscaler_{name}", labels)

    def logged(self, event):
        return self.bench.log.texts(event)


@pytest.fixture(name="life")
def _life(tmp_path):
    made = Life(tmp_path, web=CROWD, api=CROWD)
    made.write("web")
    made.write("api")
    return made


@pytest.fixture(name="undisturbed", scope="module")
def _undisturbed(tmp_path_factory):
    """The rows of `api` and `web` in a life without a reload."""
    made = Life(tmp_path_factory.mktemp("policies"), web=CROWD, api=CROWD)
    made.write("web")
    made.write("api")
    made.run(300)
    rows = {fleet: [repr(row) for row in made.bench.rows(fleet)] for fleet in ("api", "web")}
    assert max(row.in_service for row in made.bench.rows("web")) >= 9
    return rows


def rows(life, fleet):
    return [repr(row) for row in life.bench.rows(fleet)]


# The crowd comes at 60; its starts are in flight until 79, and the scale-in comes 60 s after 150.
@pytest.mark.parametrize("second", [5, 62, 65, 71, 155, 205, 215])
def test_a_change_of_one_policy_changes_no_decision_of_another_and_loses_no_order(life, second, undisturbed):
    life.when(second, life.write, "web", minimum=1).when(second, life.ask).run(300)
    assert life.logged("policies_reloaded") == ["changed web"]
    assert rows(life, "api") == undisturbed["api"]
    # A minimum that does not bind changes nothing either, so all that was known has been carried over.
    assert rows(life, "web") == undisturbed["web"]
    assert "vm" not in life.bench.log.events()
    assert "tick_failed" not in life.bench.log.events()


def test_a_changed_file_is_seen_without_being_asked_once_it_stands_still(life, undisturbed):
    life.when(35, life.write, "web", minimum=6).run(100)
    # Seen at 40, unchanged at 50, in use from the tick after that; the first order is of 60 at the latest.
    assert life.logged("policies_reloaded") == ["changed web"]
    assert life.daemon.policies.loaded_at_s == ORIGIN_S + 50
    desired = life.bench.column("desired")
    assert desired[:5] == [3] * 5
    assert desired[6] >= 6
    assert rows(life, "api") == undisturbed["api"][: len(rows(life, "api"))]
    assert life.value("policy_reloads_total", result="success") == 1
    assert life.value("policy_reload_failed") == 0
    assert life.value("policy_reload_success_timestamp_seconds") == ORIGIN_S + 50
    assert [kind for _, kind, _ in life.bench.events()] == ["policies_reloaded"]


def test_a_folder_that_is_being_written_is_left_alone_until_it_stands_still(life):
    for second in range(35, 90, 10):
        life.when(second, life.write, "web", headroom=f"{second}%")
    life.run(120)
    assert life.logged("policies_reloaded") == ["changed web"]
    assert life.daemon.policies.loaded_at_s == ORIGIN_S + 100


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda life: (life.path / "web.yaml").write_text("fleet: [web"), "web.yaml:"),
        (lambda life: life.write("web", minimum=30), "web.yaml:"),
        (lambda life: life.write("web", minimum="four"), "web.yaml:"),
        (lambda life: (life.path / "more.yaml").mkdir(), "more.yaml is not a file"),
        (lambda life: (life.path / "more.yaml").symlink_to("/nowhere"), "more.yaml cannot be read: No such"),
        (lambda life: life.path.rename(life.path.with_name("gone")), "cannot be read: No such file"),
        (lambda life: [file.unlink() for file in life.path.iterdir()], "there is no policy in this folder"),
        (lambda life: life.write("bad"), "no recording"),
    ],
    ids=["yaml", "bounds", "words", "folder", "dangling", "no folder", "empty", "no source"],
)  # fmt: skip
def test_what_cannot_be_used_leaves_the_last_good_set_and_is_said_once(life, spoil, words, undisturbed):
    life.demands["bad"] = SourceError("no recording")
    life.when(62, spoil, life).when(62, life.ask).run(200)
    assert rows(life, "api") == undisturbed["api"][: len(rows(life, "api"))]
    assert rows(life, "web") == undisturbed["web"][: len(rows(life, "web"))]
    (said,) = life.logged("policies_rejected")
    assert said.startswith("the policies in use stay, since those in the folder cannot be used: ")
    assert words in said
    assert words in life.daemon.policies.error
    assert life.daemon.policies.loaded_at_s == ORIGIN_S
    assert life.value("policy_reloads_total", result="failure") == 1
    assert life.value("policy_reload_failed") == 1
    assert life.value("policy_reload_success_timestamp_seconds") == ORIGIN_S
    assert [kind for _, kind, _ in life.bench.events()] == ["policies_rejected"]
    assert not any(source.closed for source in [*life.sources["web"][:1], *life.sources["api"][:1]])


def test_a_set_that_is_put_right_is_taken_and_the_error_is_gone(life):
    life.when(35, life.write, "web", minimum=30).when(85, life.write, "web").run(150)
    assert len(life.logged("policies_rejected")) == 1
    assert life.logged("policies_reloaded") == ["no policy has changed"]
    assert life.daemon.policies.error == ""
    assert life.value("policy_reload_failed") == 0


def test_asked_without_a_change_nothing_changes(life, undisturbed):
    life.when(65, life.ask).run(120)
    assert life.logged("policies_reloaded") == ["nothing has changed"]
    assert rows(life, "web") == undisturbed["web"][: len(rows(life, "web"))]
    assert len(life.sources["web"]) == 1


def test_a_new_fleet_starts_cold_and_a_removed_one_is_dropped_with_its_vms_left_as_they_are(
    life, undisturbed
):
    def swap():
        (life.path / "web.yaml").unlink()
        life.write("new")

    life.when(95, swap).when(95, life.ask).run(200)
    assert life.logged("policies_reloaded") == [
        (
            "added new; removed web, whose 12 VMs in service stay as they are; if web was renamed to new, tag its VMs with the new name (autoscaler:fleet), or they keep running unmanaged"
        )
    ]
    assert rows(life, "api") == undisturbed["api"][: len(rows(life, "api"))]
    last = life.bench.records[-1]
    assert [row.fleet for row in last.fleets] == ["api", "new"]
    new = life.bench.rows("new")
    assert (new[0].in_service, new[-1].in_service) == (2, 2)
    assert new[0].freshness == Freshness.FRESH
    # The crowd of `web` ended at 150; its VMs have not been stopped.
    assert sum(vm.fleet == "web" and vm.state == "running" for vm in last_listing(life).vms) == 12
    assert life.sources["web"][0].closed
    assert not life.sources["api"][0].closed
    assert life.value("desired_vms", fleet="web") is None
    assert life.value("vms", fleet="web", phase="in_service") is None
    assert life.value("desired_vms", fleet="new") == 2
    assert life.value("acts", fleet="new") == 1


def last_listing(life):
    return run_virtual(life.bench.provider.list_vms)


def test_orders_of_a_removed_fleet_are_finished_and_recorded(life):
    slow = 6.0

    def remove():
        start = life.bench.provider.start

        async def starting(ids):
            await life.bench.clock.sleep_until(life.bench.clock.monotonic() + slow)
            return await start(ids)

        life.daemon.fleets.by_name["web"].provider._provider.start = starting

    life.when(55, remove)
    life.when(63, (life.path / "web.yaml").unlink).when(63, life.ask).run(100)
    # The order of 60 is answered at 66; the tick waits for it until 65, then the fleet is gone.
    first, action = [a for a in life.bench.actions() if a.intent.verb == "start"]
    assert first.settled_at_s == ORIGIN_S
    assert action.settled_at_s == ORIGIN_S + 66
    assert {outcome.kind for outcome in action.outcomes} == {"accepted"}
    assert "act_failed" not in life.bench.log.events()
    told = "removed web, whose 3 VMs in service and 9 on the way stay as they are"
    assert life.logged("policies_reloaded") == [told]


def test_adapters_that_need_not_change_are_kept_and_others_closed(life):
    def change():
        life.write("web", minimum=3, probe="running")
        text = (life.path / "api.yaml").read_text()
        (life.path / "api.yaml").write_text(text.replace("max_age: 30s", "max_age: 40s"))

    life.when(35, change).when(35, life.ask).run(80)
    assert life.logged("policies_reloaded") == ["changed api, web"]
    assert [source.closed for source in life.sources["web"]] == [False]
    assert [source.closed for source in life.sources["api"]] == [True, False]
    api, web = life.daemon.fleets.all
    assert api.source is life.sources["api"][1]
    assert type(web.probe).__name__ == "RunningProbe"
    assert web.provider is api.provider


def test_a_fleet_that_is_told_to_act_forgets_what_it_pretended(life):
    life.write("web", act="false")
    life.when(95, life.write, "web").when(95, life.ask).run(140)
    before, after = life.bench.rows()[9], life.bench.rows()[10]
    # In shadow 12 VMs were pretended to serve at 90; at 100 the two that really do are seen, and more are started.
    assert (before.in_service, after.in_service) == (12, 2)
    assert after.start == 10
    assert (100, "StartInstances", 10, "") in life.bench.calls("StartInstances")
    assert life.bench.column("in_service")[-1] == 12
    assert life.value("acts", fleet="web") == 1


def test_what_was_learned_stays_while_the_measure_does_and_goes_with_it(life):
    def change():
        life.write("web", headroom="10%", start_time="10s", stabilisation="400s")
        text = (life.path / "api.yaml").read_text()
        (life.path / "api.yaml").write_text(text.replace("kind: gauge", "kind: gauge, lag: 1s"))

    found = {}

    def look():
        found.update(before=evidence(life))

    life.when(194, look).when(195, change).when(195, life.ask).run(197)
    assert life.logged("policies_rejected") == []
    (api, web), (api_before, web_before) = evidence(life), found["before"]
    assert web == web_before > 10
    assert api_before > 10
    assert api == 0


def evidence(life):
    return [float(e) for e in life.daemon.fleets._series_state.evidence]


def test_a_reload_waits_for_the_tick_under_way(life):
    async def slowly(vms):
        await life.bench.clock.sleep_until(life.bench.clock.monotonic() + 4)
        return await Demand.read(life.sources["web"][0], vms)

    life.when(15, lambda: setattr(life.sources["web"][0], "read", slowly))
    life.when(31, life.write, "web", minimum=1).when(31, life.ask).run(50)
    assert life.daemon.policies.loaded_at_s == ORIGIN_S + 34
    assert [at for at, line in life.heard.lines if line.startswith("RELOADING=1")] == [31]
    assert life.heard.at("READY=1") == [0, 34]


def test_an_unexpected_error_keeps_the_last_good_set_too(life):
    life.when(30, lambda: life.demands.update(bad=ZeroDivisionError("a bug")))
    life.when(31, life.write, "bad").when(31, life.ask).run(60)
    (said,) = life.logged("policies_rejected")
    assert said.endswith("unexpected ZeroDivisionError: a bug; please report")
    assert "task_failed" not in life.bench.log.events()


# The crowd comes at 60 and wants more than there is; its starts are in flight until 79.
@pytest.mark.parametrize("second", [62, 65, 71])
def test_a_lower_maximum_in_the_middle_of_a_burst_repeats_nothing_and_takes_back_what_is_too_much(
    life, second
):
    life.when(second, life.write, "web", maximum=5).when(second, life.ask).run(300)
    assert life.logged("policies_reloaded") == ["changed web"]
    assert "vm" not in life.bench.log.events()
    actions = life.bench.actions()
    starts = [vm for action in actions if action.intent.verb == "start" for vm in action.intent.vm_ids]
    assert len(starts) == len(set(starts)), "no VM is started twice within the burst"
    assert all(action.settled_at_s is not None for action in actions)
    assert {action.at_s for action in actions if action.intent.verb == "start"} <= {ORIGIN_S, ORIGIN_S + 60}
    in_service = life.bench.column("in_service")
    assert max(in_service) == 2 + len(starts) > 5, "what was ordered before arrives"
    assert in_service[-1] <= 5
