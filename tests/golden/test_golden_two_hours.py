"""The decisions of two hours of the generated day, crowd included, as recorded: integers only, tick by tick.

They may change when a decision is meant to change: `pytest tests/golden --update-golden`, with the reason in
CHANGELOG.md. Floats are left out, since the last digits of exp and log differ between processors.
"""

import hashlib
from pathlib import Path

import pytest

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.policy import policy_from
from autoscaler.core.types import Reason, Stage
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.traffic.parts import DEFAULT_START_S
from autoscaler.simulator.traffic.synth import synth_day

RECORDED = Path(__file__).parent / "two_hours.csv"
BEGIN_S = DEFAULT_START_S + 9 * 3600.0 + 30 * 60.0
COLUMNS = ("second", "desired", "in_service", "starting", "start", "stop", "warm_target", "reasons")
CONTEXT = 3

POLICY = {
    "fleet": "web",
    "signal": {"kind": "throughput", "source": "trace", "max_age": "150s", "trace": {}},
    "vm": {"capacity": "120/s", "start_time": "30s", "stop_time": "30s"},
    "readiness": {"probe": "status_checks"},
    "bounds": {"minimum": 2, "maximum": 60},
    "reactive": {"headroom": "20%", "tolerance": "10%"},
    "forecast": {"cover": "95%", "half_life": "6h"},
}
"""Written out, so that the example policies may be tuned without touching this."""


def decisions():
    """One line per tick."""
    lines = []

    def keep(record):
        (row,) = record.fleets
        shaped = [
            Stage(k).name.lower() + "=" + Reason(code).name.lower()
            for k, code in enumerate(row.reasons)
            if code
        ]
        second = round(record.at_s - BEGIN_S)
        numbers = (second, row.desired, row.in_service, row.starting, row.start, row.stop, row.warm_target)
        lines.append(",".join([*map(str, numbers), " ".join(shaped)]))

    cloud = CloudSetup(seed=1, fleets=(FleetSetup("web", 60),), prices=Prices())
    run_loop(LoopRun(policy_from(POLICY), synth_day(1), cloud, BEGIN_S, 7200.0, seed=1), keep)
    return lines


def first_difference(recorded, found):
    """For a person: the first line that differs, with those before it; empty where none does."""
    for number in range(max(len(recorded), len(found))):
        was = recorded[number] if number < len(recorded) else "(no such tick)"
        now = found[number] if number < len(found) else "(no such tick)"
        if was != now:
            differ = sum(a != b for a, b in zip(recorded, found, strict=False)) + abs(
                len(recorded) - len(found)
            )
            before = "\n".join(f"    {line}" for line in recorded[max(number - CONTEXT, 0) : number])
            return f"{differ} of {len(recorded)} ticks differ; the first:\n{','.join(COLUMNS)}\n{before}\n  - {was}\n  + {now}"
    return ""


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_two_hours_are_decided_as_recorded(request):
    found = decisions()
    if request.config.getoption("--update-golden"):
        RECORDED.write_text("\n".join([f"# {digest(found)}", ",".join(COLUMNS), *found]) + "\n")
    head, names, *recorded = RECORDED.read_text().splitlines()
    assert head == f"# {digest(recorded)}", "the file was edited by hand; write it with --update-golden"
    assert names == ",".join(COLUMNS)
    if digest(found) != digest(recorded):
        pytest.fail(first_difference(recorded, found), pytrace=False)


def test_the_recording_is_worth_its_name():
    """It holds scale-outs, scale-ins, the crowd, and most of the guards that a good day meets."""
    rows = [line.split(",") for line in RECORDED.read_text().splitlines()[2:]]
    assert len(rows) >= 719
    assert max(int(row[1]) for row in rows) > 40
    assert sum(int(row[4]) for row in rows) > 40
    assert sum(int(row[5]) for row in rows) > 5
    reasons = {reason.partition("=")[2] for row in rows for reason in row[7].split()}
    assert {"demand", "tolerance", "forecast_cover", "stabilisation", "cooldown_in", "minimum"} <= reasons


def test_a_difference_is_shown_where_it_begins():
    told = first_difference(["a", "b", "c", "d", "e"], ["a", "b", "c", "X", "e"])
    assert told.startswith("1 of 5 ticks differ; the first:\n")
    assert told.endswith("    a\n    b\n    c\n  - d\n  + X")
    assert first_difference(["a"], ["a"]) == ""
    assert first_difference(["a"], ["a", "b"]).endswith("  - (no such tick)\n  + b")
