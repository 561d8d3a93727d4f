"""Each misfit that would fail a fleet on a bad day is found in EC2's description, and a sound fleet has none."""

from dataclasses import replace

import pytest

from autoscaler.ports.findings import Level
from autoscaler.providers.ec2 import diagnosis
from autoscaler.providers.ec2.diagnosis import Described, described, family_of, headroom

SOUND = Described(
    id="i-1", fleet="web", vm_type="m7i.large", zone="a", image="ami-1", state="stopped", state_reason="",
    spot=False, root="ebs", group="", detailed=True, hibernates=False, vcpus=2, volumes=("vol-1",),
)  # fmt: skip
OTHER_ZONE = replace(SOUND, id="i-2", zone="b")

MISFITS = {
    "purchase": (replace(SOUND, spot=True), Level.PROBLEM, "spot"),
    "root_device": (replace(SOUND, root="instance-store"), Level.PROBLEM, "EBS"),
    "group": (replace(SOUND, group="web-asg"), Level.PROBLEM, "web-asg"),
    "images": (replace(SOUND, image="ami-0"), Level.WARNING, "ami-0"),
    "last_start": (
        replace(SOUND, state_reason="Client.InternalError"),
        Level.PROBLEM,
        "Client.InternalError",
    ),
}


def worst(findings):
    return {each.check: each for each in findings if each.level is not Level.OK}


def test_a_sound_fleet_has_nothing_to_mend():
    assert worst(diagnosis.of_fleet("web", [SOUND, OTHER_ZONE])) == {}


@pytest.mark.parametrize("check", MISFITS)
def test_each_misfit_is_found_alone_and_names_its_vm(check):
    vm, level, word = MISFITS[check]
    found = worst(diagnosis.of_fleet("web", [vm, OTHER_ZONE]))
    assert set(found) == {check}
    assert found[check].level is level
    assert word in found[check].text
    assert found[check].fix
    assert check == "images" or "i-1" in found[check].text


def test_terminated_vms_are_not_the_fleets():
    gone = replace(SOUND, state="terminated", spot=True)
    assert worst(diagnosis.of_fleet("web", [gone, SOUND, OTHER_ZONE])) == {}
    assert worst(diagnosis.of_fleet("web", [gone]))["vms"].level is Level.WARNING


def test_one_zone_is_a_risk_that_one_vm_is_not():
    assert set(worst(diagnosis.of_fleet("web", [SOUND, replace(SOUND, id="i-3")]))) == {"zones"}
    assert worst(diagnosis.of_fleet("web", [SOUND])) == {}


def test_vms_of_fleets_that_no_policy_describes_are_told():
    stopped, running = (replace(SOUND, fleet="old", state=state) for state in ("stopped", "running"))
    (finding,) = diagnosis.without_policy([SOUND, stopped, replace(SOUND, fleet="")], ["web"])
    assert finding.text == "1 VM with the tag autoscaler:fleet=old, for which there is no policy"
    (left,) = diagnosis.without_policy([running, stopped, replace(running, id="i-3")], ["web"])
    assert left.text.endswith("for which there is no policy; 2 running, until somebody stops them")


@pytest.mark.parametrize(
    ("vm_type", "family"),
    [
        ("m7i.large", "Standard"), ("t3.nano", "Standard"), ("im4gn.large", "Standard"), ("c7gn.large", "Standard"),
        ("g5.xlarge", "G and VT"), ("vt1.3xlarge", "G and VT"), ("p5.48xlarge", "P"), ("x2idn.32xlarge", "X"),
        ("inf2.xlarge", "Inf"), ("trn1.2xlarge", "Trn"), ("u-6tb1.metal", "High Memory"), ("f2.6xlarge", "F"),
        ("mac2.metal", ""), ("hpc7a.96xlarge", ""), ("dl1.24xlarge", ""),
    ],
)  # fmt: skip
def test_types_fall_under_the_quota_that_ec2_counts_them_in(vm_type, family):
    assert family_of(vm_type)[0] == family


@pytest.mark.parametrize(
    ("quota", "level"),
    [(200.0, Level.OK), (150.0, Level.WARNING), (139.0, Level.PROBLEM), (None, Level.UNKNOWN)],
)
def test_headroom_counts_the_whole_pool_the_others_and_what_may_come(quota, level):
    finding = headroom("Standard", 100, 30, quota, 10)
    assert finding.level is level
    assert "140 vCPUs would run" in finding.text


@pytest.mark.parametrize(("seconds", "level"), [(0.0, Level.OK), (47.5, Level.WARNING)])
def test_a_burst_that_would_wait_for_the_api_budget_is_told(seconds, level):
    finding = diagnosis.burst([SOUND, OTHER_ZONE], seconds, 2)
    assert finding.level is level
    assert "2 VMs at once takes 2 calls" in finding.text


@pytest.mark.parametrize(
    ("off_s", "level", "word"),
    [(0.4, Level.OK, "agrees"), (-5.0, Level.WARNING, "behind"), (90.0, Level.PROBLEM, "ahead")],
)
def test_a_clock_that_is_off_is_told_with_its_side(off_s, level, word):
    finding = diagnosis.clock(off_s)
    assert finding.level is level
    assert word in finding.text


def test_a_row_of_ec2_becomes_a_vm_and_what_is_left_out_takes_its_usual_value():
    row = {
        "InstanceId": "i-9", "InstanceType": "m7i.large", "ImageId": "ami-9", "State": {"Name": "running"},
        "Placement": {"AvailabilityZone": "b"}, "InstanceLifecycle": "spot", "RootDeviceType": "instance-store",
        "Monitoring": {"State": "enabled"}, "HibernationOptions": {"Configured": True},
        "CpuOptions": {"CoreCount": 4, "ThreadsPerCore": 2}, "StateReason": {"Code": "Client.X"},
        "BlockDeviceMappings": [{"Ebs": {"VolumeId": "vol-9"}}, {}],
        "Tags": [{"Key": "autoscaler:fleet", "Value": "web"}, {"Key": diagnosis.GROUP_TAG, "Value": "asg"}],
    }  # fmt: skip
    assert described(row, "autoscaler:fleet") == Described(
        "i-9", "web", "m7i.large", "b", "ami-9", "running", "Client.X",
        spot=True, root="instance-store", group="asg", detailed=True, hibernates=True, vcpus=8, volumes=("vol-9",),
    )  # fmt: skip
    bare = described({"InstanceId": "i-8"}, "autoscaler:fleet")
    assert (bare.spot, bare.group, bare.fleet, bare.vcpus, bare.volumes) == (False, "", "", 0, ())
    assert bare.root == "ebs"
