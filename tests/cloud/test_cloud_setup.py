"""Set-ups sent as JSON, and fault files with errors for people."""

import json
import math

import pytest

from autoscaler.clock import ScaledClock, SystemClock
from autoscaler.cloud.billing import Prices
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import (
    CapacitySetup,
    ClockSetup,
    CloudSetup,
    FleetSetup,
    place_fleet,
    read_faults,
)
from autoscaler.cloud.vms import State
from autoscaler.errors import ConfigError
from autoscaler.ports import FLEET_TAG

FULL = CloudSetup(
    seed=7,
    fleets=(
        FleetSetup("web", 3, State.RUNNING, zones=("us-east-1b",), tags={"team": "blue"}),
        FleetSetup("api", 2),
    ),
    physics=Physics(start=Spread(20, 0.1), listing_lag_s=2),
    faults=(
        Fault(FaultKind.STUCK_PENDING, 10, vm_ids=("i-1",)),
        Fault(FaultKind.LATENCY, delay_s=1, end_s=9),
    ),
    capacity=(CapacitySetup("m7i.large", "us-east-1b", 5),),
    prices=Prices(0.1, 0.001, 0.01),
    api_limits=False,
    clock=ClockSetup(60, 1e9, 12.5),
    port=1234,
)


def test_a_set_up_survives_the_journey():
    line = FULL.dump()
    assert "\n" not in line
    assert CloudSetup.load(line) == FULL
    assert CloudSetup.load(line).faults[0].end_s == math.inf
    assert CloudSetup.load(CloudSetup().dump()) == CloudSetup()


def test_a_set_up_makes_its_world():
    world = FULL.world(1000)
    assert world.fleets() == ("api", "web")
    assert len(world.serving(1000, "web")) == 3
    assert {view.zone for view in world.views(1000, "web")} == {"us-east-1b"}
    assert world.room("m7i.large", "us-east-1b") == 2
    assert [(t.name, t.version("").data.tags[FLEET_TAG]) for t in world.templates.all()] == [
        ("web", "web"),
        ("api", "api"),
    ]
    assert world.bill(1000, "web").money == pytest.approx(3 * 60 / 3600 * 0.1 + 3 * 0.01)
    more = place_fleet(world, 1000, FleetSetup("api", 2))
    assert len(more) == 2
    assert len(world.templates.all()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "many"}, "seed"),
        ({"fleets": [{"fleet": "web", "vms": -1}]}, "vms must be zero or more"),
        ({"fleets": [{"fleet": "web", "vms": 1, "state": "pending"}]}, "stopped or running"),
        ({"faults": [{"kind": "latency"}]}, "latency needs delay_s"),
    ],
)
def test_a_wrong_set_up_says_where(change, message):
    with pytest.raises(ConfigError, match=message):
        CloudSetup.load(json.dumps(json.loads(FULL.dump()) | change))


def test_clocks():
    assert isinstance(ClockSetup().clock(), SystemClock)
    scaled = ClockSetup(60, 1e9, 12.5).clock()
    assert isinstance(scaled, ScaledClock)
    assert (scaled.origin_s, scaled.speed, scaled.origin_monotonic_s) == (1e9, 60, 12.5)
    assert abs(ClockSetup(2).clock().now() - SystemClock().now()) < 60


def test_a_fault_file_in_yaml_or_json(tmp_path):
    text = """\
# a bad morning
faults:
  - {kind: no_capacity, start_s: 60, end_s: 300, zone: us-east-1a}
  - kind: throttle
    actions: [StartInstances]
    probability: 50%
"""
    expected = (
        Fault(FaultKind.NO_CAPACITY, 60, 300, zone="us-east-1a"),
        Fault(FaultKind.THROTTLE, actions=("StartInstances",), probability=0.5),
    )
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    assert read_faults(path) == expected
    path.write_text(json.dumps([{"kind": "no_capacity", "start_s": 60, "end_s": 300, "zone": "us-east-1a"}]))
    assert read_faults(path) == expected[:1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- kind: throttle\n- kind: thrttle\n",
            r"faults\.yaml:2: unknown kind 'thrttle'; did you mean 'throttle'",
        ),
        ("- kind: rain\n", r"faults\.yaml:1: unknown kind 'rain'; known kinds: no_capacity, fall_back"),
        ("- kind: throttle\n  probability: x%\n", r"faults\.yaml:1: probability: .*number"),
        (
            "- kind: throttle\n\n- kind: latency\n  dely_s: 3\n",
            r"faults\.yaml:3: unknown key 'dely_s'; did you mean 'delay_s'",
        ),
        (
            "- kind: throttle\n  colour: red\n",
            r"faults\.yaml:1: unknown key 'colour'; known keys: kind, start_s",
        ),
        ("- kind: throttle\n  end_s: soon\n", r"faults\.yaml:1: end_s: .*number"),
        (
            "- kind: throttle\n  probability: 2\n",
            r"faults\.yaml:1: probability must be within 0 and 1, not 2",
        ),
        ("- start_s: 3\n", r"faults\.yaml:1: kind: "),
        ("- throttle\n", r"a fault must be a mapping"),
        ("throttle: yes\n", r"faults\.yaml: must hold a list of faults"),
        ("", r"faults\.yaml: must hold a list of faults"),
        ("- kind: [throttle\n", r"faults\.yaml:2: is not valid YAML"),
    ],
)
def test_a_wrong_fault_file_says_where_and_what(tmp_path, text, message):
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_faults(path)


def test_a_fault_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_faults(tmp_path / "none.yaml")
    path = tmp_path / "faults.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_faults(path)
