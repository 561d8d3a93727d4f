"""What monitoring sees: metrics with help, values after ticks, and log events from the table."""

import ast
import math
from pathlib import Path

import pytest
from prometheus_client import generate_latest

import autoscaler.daemon
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.telemetry import EVENTS, Telemetry
from autoscaler.ports.budget import BucketState
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual

DAEMON = Path(autoscaler.daemon.__file__).parent


def test_every_metric_has_help_a_prefix_and_a_place_in_the_registry():
    telemetry = Telemetry()
    families = list(telemetry.registry.collect())
    assert len(families) > 20
    for family in families:
        assert family.name.startswith("autoscaler_"), family.name
        assert len(family.documentation) > 10, family.name
        assert family.documentation.endswith("."), family.name
    assert len({family.name for family in families}) == len(families)


def test_every_event_that_is_logged_is_in_the_table_and_every_entry_is_logged():
    logged = set()
    for path in DAEMON.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_log_call(node.func):
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                logged.add(node.args[0].value)
    assert logged == set(EVENTS)


def _is_log_call(function):
    text = ast.unparse(function)
    return text.endswith(
        (".log.info", ".log.warning", ".log.error", ".log.exception", ".log.debug)", ".log.debug")
    )


class Spent:
    """A budget of which so much is left."""

    def __init__(self, **left):
        self.left, self.refusals = left, 0

    def state(self):
        return tuple(BucketState(name, left, 2.0) for name, left in self.left.items())

    def burst_s(self, vms, calls=1):
        return vms * calls / 10.0


def test_what_is_left_of_each_budget_is_shown_also_of_buckets_that_are_used_later():
    telemetry, near, far = Telemetry(), Spent(calls=7.0), Spent(calls=3.0)

    def shown():
        telemetry.budget("near", near)
        telemetry.budget("far", far)
        value = telemetry.registry.get_sample_value
        return [
            value("autoscaler_api_budget_tokens", {"provider": provider, "bucket": bucket})
            for provider, bucket in (("near", "calls"), ("near", "VMs"), ("far", "calls"))
        ]

    assert shown() == [7.0, None, 3.0]
    near.left, far.refusals = {"calls": 5.0, "VMs": 900.0}, 4
    assert shown() == [5.0, 900.0, 3.0]
    value = telemetry.registry.get_sample_value
    assert value("autoscaler_api_budget_refill_per_second", {"provider": "near", "bucket": "VMs"}) == 2.0
    assert value("autoscaler_api_burst_seconds", {"provider": "far", "vms": "100"}) == 30.0
    assert [value("autoscaler_api_budget_refusals", {"provider": name}) for name in ("near", "far")] == [0, 4]


@virtual
async def test_values_after_ticks():
    bench = Bench(vms=4, running=2, zones="a")
    bench.add(policy(), steady((0, 150), (20, 400)))
    await bench.run(60)
    registry = bench.telemetry.registry

    def value(name, **labels):
        return registry.get_sample_value(f"autoscaler_{name}", {"fleet": "web", **labels})

    row = bench.rows()[-1]
    assert value("demand_work_per_second") == 400
    assert value("capacity_work_per_second") == 400
    assert value("shortage_work_per_second") == 0
    assert value("forecast_work_per_second") == row.forecast
    assert value("forecast_high_work_per_second") == row.forecast_hi
    assert value("metrics_coverage_ratio") == 1
    assert value("signal_age_seconds") == 0
    assert value("desired_vms") == 4
    assert value("warm_target_vms") == row.warm_target
    phases = ("in_service", "starting", "draining", "stopping", "stopped")
    assert [value("vms", phase=phase) for phase in phases] == [4, 0, 0, 0, 2]
    assert value("last_evaluation_timestamp_seconds") == ORIGIN_S + 60
    assert value("acts") == 1
    assert value("cost_total") == pytest.approx(sum(bench.column("cost")))
    assert value("actions_total", verb="start", outcome="accepted") == 2
    assert value("reasons_total", reason="demand") == 6
    assert value("reasons_total", reason="data_absent") == 1
    assert value("source_errors_total") == 1
    assert value("start_seconds_count") == 2
    assert value("start_seconds_sum") == 40
    assert registry.get_sample_value("autoscaler_tick_seconds_count") == 7
    assert registry.get_sample_value("autoscaler_ticks_failed_total") == 0
    assert b"autoscaler_vms{" in generate_latest(registry)


@virtual
async def test_unknown_demand_is_shown_as_unknown_and_never_as_zero():
    bench = Bench(running=2, zones="a")
    bench.add(policy(), None)
    await bench.run(10)
    for name in ("demand_work_per_second", "shortage_work_per_second", "signal_age_seconds"):
        assert math.isnan(bench.telemetry.registry.get_sample_value(f"autoscaler_{name}", {"fleet": "web"}))


@virtual
async def test_one_line_per_tick():
    bench = Bench(vms=4, zones="a")
    bench.add(policy(signal={"kind": "total"}), steady((0, 100), (20, 300)))
    bench.place("api", 1, running=1)
    bench.add(policy("api", signal={"kind": "total"}), 100)
    await bench.run(50)
    lines = [(level, facts["text"]) for level, event, facts in bench.log.lines if event == "tick"]
    assert len(lines) == 6
    assert [level for level, _ in lines] == ["info"] * 6
    assert lines[2][1] == "web: starting 2 (1 to 3): demand 300/s with headroom needs 3 VMs"
    assert lines[1][1].startswith("web: holding 1: ")
    assert " | api: holding 1: " in lines[1][1]


@virtual
async def test_a_source_is_complained_of_once_and_its_recovery_told():
    bench = Bench(running=1, zones="a")
    source = bench.add(policy(), 100)
    read = source.read

    async def failing(vms):
        if 20 <= bench.clock.now() - ORIGIN_S < 50:
            raise OSError("unreachable")
        return await read(vms)

    source.read = failing
    await bench.run(70)
    # The first complaint is of the first tick, which knew of no VM to ask.
    told = [event for event in bench.log.events() if event.startswith("source_")]
    assert told == ["source_failed", "source_recovered", "source_failed", "source_recovered"]
    value = bench.telemetry.registry.get_sample_value("autoscaler_source_errors_total", {"fleet": "web"})
    assert value == 4


@virtual
async def test_what_happens_to_a_vm_is_logged_and_in_the_journal():
    bench = Bench(running=2, zones="a")
    bench.world.add_fault(Fault(FaultKind.HOST_STOP, start_s=15))
    bench.add(policy(signal={"kind": "total"}), 200)
    await bench.run(20)
    kinds = [(at, kind) for at, kind, _ in bench.events()]
    assert kinds == [(20, "stopped_outside")] * 2
    logged = [facts["kind"] for _, event, facts in bench.log.lines if event == "vm"]
    assert logged == ["stopped_outside"] * 2


@virtual
async def test_the_journal_says_when_a_daemon_began_and_what_it_acts_on():
    bench = Bench(running=1)
    bench.add(policy("web"), 50)
    bench.add(policy("api", act=False), 50)
    await bench.run(20)
    await bench.run(0)
    with bench.journal.reader() as reader:
        begun = [e for e in reader.events(0, 1e12) if e.kind == "daemon_started"]
    assert [(e.fleet, e.text) for e in begun] == [("", "acting: web; in shadow: api")] * 2
