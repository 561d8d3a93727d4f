"""What README.md shows of the demo is what the demo prints."""

import re
import shlex
from pathlib import Path

import pytest

import autoscaler
from autoscaler.cli.demo import demo
from autoscaler.cli.demo_run import DemoOptions, Finished, prepare
from autoscaler.cli.demo_summary import ALWAYS_ON, OURS, REACTIVE, VIRTUAL, summarise
from autoscaler.cli.output import seconds
from autoscaler.simulator.replay.loopback import LoopRun, run_loop

README = Path(autoscaler.__file__).parents[1] / "README.md"
CLOSE = 0.03
"""Decisions may differ in a tick between processors (exp and log do), and a real run ends within a tick of its time."""


@pytest.fixture(name="shown", scope="module")
def _shown():
    """The command, and the rows of the table below it: name, and its numbers as they are printed."""
    text = README.read_text(encoding="utf-8")
    found = re.search(r'`make run ARGS="([^"]+)"`[^`]*```text\n(.*?)```', text, re.DOTALL)
    assert found
    table = found[2].partition("short for  starts\n")[2]
    rows = [re.split(r"  +", line.strip()) for line in table.splitlines()]
    return shlex.split(found[1]), {name: numbers for name, *numbers in rows}


@pytest.fixture(name="worked_out", scope="module")
def _worked_out(shown):
    """The same span on virtual time: totals and what they come to, by name."""
    said = dict(zip(shown[0][::2], shown[0][1::2], strict=True))
    options = DemoOptions(
        trace=None, kind=None, scale_to_vms=50, begin_s=None, end_s=None, policy=None, vms=60,
        speed=float(said["--speed"]), tick_s=10.0, for_s=seconds(said["--for"]), out=None, faults=None, seed=1,
        http_port=0, cold=False,
    )  # fmt: skip
    prepared = prepare(options)
    span_s = options.speed * options.for_s
    rows = run_loop(
        LoopRun(prepared.policy, prepared.trace, prepared.cloud, prepared.begin_s, span_s, 10.0, 1, learned=prepared.learned)
    ).rows  # fmt: skip
    counts = {"accepted": {}, "refused": {}, "vms": {}}
    finished = Finished(
        prepared, rows, prepared.begin_s, prepared.begin_s + span_s, options.speed, 0, 0.0, (), 0.0, 1.0, 1.0, counts, None
    )  # fmt: skip
    report = summarise(finished, lambda _: None)
    return report["baselines"], report["details"]["total_cost"]


def test_its_rows_are_those_of_the_demo(shown, worked_out):
    assert set(shown[1]) == {OURS, *worked_out[0]} == {OURS, ALWAYS_ON, REACTIVE, VIRTUAL}


@pytest.mark.parametrize("name", [ALWAYS_ON, REACTIVE, VIRTUAL])
def test_the_rows_that_are_the_same_on_every_machine_are_so(name, shown, worked_out):
    cost, lost, total, unserved, _, starts = shown[1][name]
    totals, total_cost = worked_out[0][name], worked_out[1][name]
    assert float(cost) == pytest.approx(totals["cost"], rel=CLOSE)
    assert float(total) == pytest.approx(total_cost, rel=CLOSE)
    assert float(lost) == pytest.approx(total_cost - totals["cost"], abs=CLOSE)
    assert float(unserved.rstrip("%")) == pytest.approx(100 * totals["unserved_share"], abs=CLOSE)
    assert float(starts) == pytest.approx(totals["starts"], rel=2 * CLOSE)


def test_its_command_is_one_of_the_demo(shown):
    assert {"--speed", "--for"} == set(shown[0][::2])
    assert {"speed", "for_s"} <= set(demo.__annotations__)
