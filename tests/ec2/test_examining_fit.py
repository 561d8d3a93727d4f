"""What does not fit a policy is found before the bad day: impossible hibernation, target groups that are too slow."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from autoscaler.clock import SystemClock
from autoscaler.ports import FLEET_TAG, ProvisionSpec
from autoscaler.ports.findings import Level
from autoscaler.providers.ec2.diagnosis import Described
from autoscaler.providers.ec2.examining import Examined, examine
from autoscaler.providers.ec2.hibernation_check import TypeFacts, VolumeFacts, of_fleet
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.ec2.target_group_check import TargetGroup, of_group

REGION = "us-east-1"
KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
WEB = Examined("web", None, may_provision=0, reads_cloudwatch=False)
GROUP = TargetGroup("instance", interval_s=5, successes=2, delay_s=60, slow_start_s=0)
VM = Described(
    "i-1", "web", "m7i.large", "a", "ami-1", "stopped", "", spot=False, root="ebs", group="", detailed=True,
    hibernates=True, vcpus=2, volumes=("vol-1",),
)  # fmt: skip
M7I = TypeFacts(supported=True, memory_gib=8.0)
ROOT = VolumeFacts(encrypted=True, size_gib=20.0)
NAMES = itertools.count(1)
"""Numbers for unique names, because moto's data outlives its server."""


def contents(findings):
    return [(each.level, each.text, each.fix) for each in findings]


# ── the target group ────────────────────────────────────────────────────────────────────────────────────


def test_a_group_that_fits_is_one_finding_with_its_times():
    (finding,) = of_group("web", GROUP, 40.0, 120.0)
    assert finding.level is Level.OK
    assert "healthy within 10 s and lets one go within 60 s" in finding.text


@pytest.mark.parametrize(
    ("changes", "level", "words", "fix"),
    [
        ({"interval_s": 30, "successes": 5}, Level.WARNING, "may take 150 s (5 checks, one every 30 s)", "vm.start_time"),
        ({"delay_s": 300}, Level.PROBLEM, "up to 300 s (deregistration delay)", "at least 360s for drain.timeout"),
        ({"kind": "ip"}, Level.PROBLEM, "of type ip", "type instance"),
        ({"slow_start_s": 90}, Level.WARNING, "for 90 s (slow start)", "slow_start.duration_seconds"),
    ],
)  # fmt: skip
def test_each_misfit_of_a_group_is_named_with_its_fix(changes, level, words, fix):
    ((found, text, what_to_do),) = contents(of_group("web", replace(GROUP, **changes), 40.0, 120.0))
    assert found is level
    assert words in text
    assert fix in what_to_do


def test_what_just_fits_is_no_misfit():
    just = replace(GROUP, interval_s=20, successes=2, delay_s=120)
    assert [each.level for each in of_group("web", just, 40.0, 120.0)] == [Level.OK]


# ── hibernation ─────────────────────────────────────────────────────────────────────────────────────────


def hibernation(vms=(VM,), *, facts=M7I, root=ROOT, template=True):
    types = {} if facts is None else {"m7i.large": facts}
    volumes = {} if root is None else {"vol-1": root}
    return of_fleet("web", vms, types, volumes, template=template)


def test_a_fleet_that_can_is_one_finding():
    ((level, text, _),) = contents(hibernation([VM, replace(VM, id="i-2")]))
    assert (level, text) == (Level.OK, "all 2 VMs can hibernate")


UNABLE = replace(VM, hibernates=False)


@pytest.mark.parametrize(
    ("vms", "facts", "root", "template", "words"),
    [
        ([UNABLE, VM], M7I, ROOT, True, ["1 VM (i-1) of 2 not launched for hibernation"]),
        ([VM], replace(M7I, supported=False), ROOT, True, ["m7i.large cannot hibernate"]),
        ([VM], replace(M7I, memory_gib=192.0), ROOT, True, ["m7i.large has 192 GiB of memory"]),
        ([UNABLE], M7I, replace(ROOT, encrypted=False), True, ["i-1 is not encrypted", "not launched"]),
        ([UNABLE], M7I, replace(ROOT, size_gib=8.0), True, ["i-1 has 8 GiB for 8 GiB", "not launched"]),
        ([VM], M7I, ROOT, False, ["the launch template does not ask for hibernation"]),
    ],
)
def test_each_reason_not_to_hibernate_is_named_with_its_fix(vms, facts, root, template, words):
    found = contents(hibernation(vms, facts=facts, root=root, template=template))
    assert len(found) == len(words)
    for (level, text, fix), word in zip(found, words, strict=True):
        assert level is Level.WARNING
        assert word in text
        assert fix


def test_what_is_not_known_is_not_held_against_anybody():
    assert [each.level for each in hibernation(facts=None, root=None, template=None)] == [Level.OK]


# ── asked over the protocol ─────────────────────────────────────────────────────────────────────────────


@pytest_asyncio.fixture(name="account")
async def _account():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    names = {f"aws_{name}": value for name, value in KEYS.items()}
    fleet = f"fit-{next(NAMES)}"
    client = {"region_name": REGION, "endpoint_url": url, **names}
    async with (
        get_session().create_client("ec2", **client) as ec2,
        get_session().create_client("elbv2", **client) as elb,
    ):
        tags = [{"ResourceType": "instance", "Tags": [{"Key": FLEET_TAG, "Value": fleet}]}]
        await ec2.run_instances(
            ImageId="ami-12c6146b", MinCount=2, MaxCount=2, InstanceType="m5.large", TagSpecifications=tags
        )
        data = {"ImageId": "ami-12c6146b", "InstanceType": "m5.large"}
        await ec2.create_launch_template(LaunchTemplateName=fleet, LaunchTemplateData=data)
        vpc = (await ec2.create_vpc(CidrBlock="10.0.0.0/16"))["Vpc"]["VpcId"]
        made = await elb.create_target_group(
            Name=fleet,
            Protocol="HTTP",
            Port=80,
            VpcId=vpc,
            HealthCheckIntervalSeconds=30,
            HealthyThresholdCount=5,
        )
        arn = made["TargetGroups"][0]["TargetGroupArn"]
        yield Ec2Settings(REGION, url, call_deadline_s=20.0, **KEYS), fleet, arn, elb
    server.stop()


async def test_the_facts_come_from_the_account_and_are_mended_there(account):
    settings, fleet, arn, elb = account
    each = replace(
        WEB,
        fleet=fleet,
        spec=ProvisionSpec(fleet, fleet),
        hibernates=True,
        target_group=arn,
        start_time_s=40.0,
    )
    findings = await examine(settings, [each], SystemClock())
    hibernation_found = [f for f in findings if f.check == "hibernation"]
    assert {f.level for f in hibernation_found} == {Level.WARNING}
    texts = " | ".join(f.text for f in hibernation_found)
    assert "of 2 not launched for hibernation" in texts
    assert "root volumes that cannot take the memory" in texts
    assert "the launch template does not ask" in texts
    slow, late = [f for f in findings if f.check == "balancer"]
    assert "may take 150 s" in slow.text
    assert (late.level, "up to 300 s" in late.text) == (Level.PROBLEM, True)
    await elb.modify_target_group(TargetGroupArn=arn, HealthCheckIntervalSeconds=5, HealthyThresholdCount=2)
    attributes = [{"Key": "deregistration_delay.timeout_seconds", "Value": "30"}]
    await elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
    findings = await examine(settings, [each], SystemClock())
    assert [f.level for f in findings if f.check == "balancer"] == [Level.OK]


async def test_a_group_that_is_not_there_is_a_problem_that_names_the_setting(account):
    settings, fleet, arn, _ = account
    findings = await examine(settings, [replace(WEB, target_group=arn.replace(fleet, "gone"))], SystemClock())
    (problem,) = [f for f in findings if f.check == "balancer"]
    assert problem.level is Level.PROBLEM
    assert "balancer.target_group.arn" in problem.fix
