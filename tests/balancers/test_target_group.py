"""An AWS target group as a balancer, against moto's load balancer."""

import asyncio
import json
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from autoscaler.ports import Rotation
from autoscaler.providers.ec2 import target_group_check
from autoscaler.providers.ec2.elb import PERMISSIONS, TargetGroupBalancer
from autoscaler.providers.ec2.settings import Ec2Settings
from tests.sources.doubles import ManualClock, vm

REGION = "us-east-1"
KEYS = {"access_key_id": "test", "secret_access_key": "test"}


@pytest.fixture(name="url", scope="module")
def _url():
    cloud = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    cloud.start()
    _, port = cloud.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    cloud.stop()


def client(name, url):
    return boto3.client(
        name, region_name=REGION, endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test"
    )


@pytest.fixture(name="group", scope="module")
def _group(url):
    """Make a target group behind a listener; gives it and the ids of two running VMs and a stopped one."""
    ec2, elb = client("ec2", url), client("elbv2", url)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"us-east-1{zone}")[
            "Subnet"
        ]["SubnetId"]
        for n, zone in enumerate("ab")
    ]
    arn = elb.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0][
        "TargetGroupArn"
    ]
    front = elb.create_load_balancer(Name="front", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    action = [{"Type": "forward", "TargetGroupArn": arn}]
    elb.create_listener(LoadBalancerArn=front, Protocol="HTTP", Port=80, DefaultActions=action)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    made = ec2.run_instances(ImageId=image, MinCount=3, MaxCount=3)["Instances"]
    ids = [each["InstanceId"] for each in made]
    ec2.stop_instances(InstanceIds=ids[2:])
    return arn, ids


@pytest.fixture(name="front")
async def _front(url, group):
    settings = Ec2Settings(REGION, url, **KEYS)
    front = TargetGroupBalancer(settings, group[0], ManualClock(), port=None, timeout_s=20.0)
    yield front
    await front.close()


async def test_registered_is_in_and_deregistered_is_out_and_idle(front, group):
    vms = [vm(vm_id) for vm_id in group[1][:2]]
    view = await front.admit(vms)
    assert view.error == ""
    assert {member.rotation for member in view.members.values()} == {Rotation.IN}
    view = await front.cordon(vms[:1])
    assert view.error == ""
    assert view.members[vms[0].id].rotation in (Rotation.CORDONED, Rotation.OUT)
    view = await front.look(vms)
    assert view.members[vms[1].id].rotation is Rotation.IN
    stranger = vm(group[1][2])
    view = await front.look([vms[1], stranger])
    assert [view.members[each.id].known for each in (vms[1], stranger)] == [True, False]


async def test_one_that_cannot_be_registered_does_not_hide_those_that_were(front, group):
    running, stopped = vm(group[1][0]), vm(group[1][2])
    view = await front.admit([running, stopped])
    assert "register_targets was refused: InvalidTarget" in view.error
    assert view.members[running.id].rotation is Rotation.IN
    assert stopped.id not in view.members or view.members[stopped.id].rotation is not Rotation.IN


class Waiting:
    """A client of which every call waits until all that are to come have come."""

    def __init__(self, calls):
        self.all_here = asyncio.Barrier(calls)

    async def opened(self):
        return self

    async def close(self):
        pass

    async def register_targets(self, **_):
        await self.all_here.wait()

    async def describe_target_health(self, Targets, **_):  # noqa: N803  the library's name
        await self.all_here.wait()
        return {
            "TargetHealthDescriptions": [{"Target": t, "TargetHealth": {"State": "healthy"}} for t in Targets]
        }


async def test_hundreds_of_vms_take_no_longer_than_a_few():
    front = TargetGroupBalancer(Ec2Settings(REGION), "arn", ManualClock(), port=None, timeout_s=2.0)
    front._client = Waiting(4)
    many = [vm(f"i-{number}") for number in range(350)]
    view = await front.admit(many)
    assert (len(view.members), view.error) == (350, "")
    assert {member.rotation for member in view.members.values()} == {Rotation.IN}


async def test_what_goes_wrong_is_in_words(url, group):
    settings = Ec2Settings(REGION, url, **KEYS)
    gone = group[0].replace("web", "gone")
    front = TargetGroupBalancer(settings, gone, ManualClock(), port=None, timeout_s=20.0)
    view = await front.look([vm("i-1")])
    await front.close()
    assert view.members == {}
    assert "describe_target_health was refused: TargetGroupNotFound" in view.error
    nowhere = TargetGroupBalancer(
        Ec2Settings(REGION, "http://127.0.0.1:9", **KEYS), gone, ManualClock(), port=None, timeout_s=5.0
    )
    view = await nowhere.cordon([vm("i-1")])
    await nowhere.close()
    assert view.members == {}
    assert "failed" in view.error or "did not end" in view.error


def test_the_iam_policy_allows_what_is_called_and_nothing_else():
    path = Path(__file__).parents[2] / "deploy" / "iam-policy-target-groups.json"
    found = set()
    for statement in json.loads(path.read_text())["Statement"]:
        actions = statement["Action"]
        found |= set(actions if isinstance(actions, list) else [actions])
    assert found == PERMISSIONS | target_group_check.PERMISSIONS
