"""An examination of real protocol endpoints: what a DryRun refuses is a problem, and no failure ends the rest."""

from dataclasses import replace

import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from autoscaler.clock import SystemClock
from autoscaler.ports import FLEET_TAG, ProvisionSpec
from autoscaler.ports.findings import Level
from autoscaler.providers.ec2.examining import Examined, examine
from autoscaler.providers.ec2.settings import Ec2Settings

REGION = "us-east-1"
KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
MOTO_IMAGE = "ami-12c6146b"
CHANGES = (
    "DescribeInstanceStatus", "StartInstances", "StopInstances", "TerminateInstances", "CreateTags", "RunInstances",
    "ModifyInstanceAttribute",
)  # fmt: skip
WEB = Examined("web", ProvisionSpec("web", "web"), may_provision=4, reads_cloudwatch=True)


def settings_for(url):
    return Ec2Settings(region=REGION, endpoint_url=url, call_deadline_s=10.0, **KEYS)


def of(findings, check):
    return [each for each in findings if each.check == check]


@pytest.fixture(name="moto", scope="module")
def _moto():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest_asyncio.fixture(name="account")
async def _account(moto):
    """Two VMs of fleet web, one of them on an encrypted volume of a disabled key."""
    session = get_session()
    client = {
        "region_name": REGION, "endpoint_url": moto,
        "aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "not-a-secret",
    }  # fmt: skip
    async with session.create_client("kms", **client) as kms, session.create_client("ec2", **client) as ec2:
        key = (await kms.create_key())["KeyMetadata"]["KeyId"]
        await kms.disable_key(KeyId=key)
        tags = [{"ResourceType": "instance", "Tags": [{"Key": FLEET_TAG, "Value": "web"}]}]
        made = await ec2.run_instances(
            ImageId=MOTO_IMAGE, MinCount=2, MaxCount=2, InstanceType="m5.large", TagSpecifications=tags
        )  # fmt: skip
        vm = made["Instances"][0]
        zone = vm["Placement"]["AvailabilityZone"]
        volume = await ec2.create_volume(Size=8, AvailabilityZone=zone, Encrypted=True, KmsKeyId=key)
        await ec2.attach_volume(VolumeId=volume["VolumeId"], InstanceId=vm["InstanceId"], Device="/dev/sdf")
    return moto


async def test_moto_shows_permissions_keys_and_monitoring(account):
    # Without a template, because moto launches VMs in spite of DryRun.
    findings = await examine(settings_for(account), [replace(WEB, spec=None)], SystemClock())
    allowed = [each for each in of(findings, "permission") if each.level is Level.OK]
    assert {each.text.split()[0] for each in allowed} >= {
        "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances", "ec2:CreateTags",
    }  # fmt: skip
    assert of(findings, "monitoring")[0].level is Level.WARNING
    (key,) = of(findings, "key")
    assert key.level is Level.PROBLEM
    assert "Disabled" in key.text
    assert of(findings, "clock")[0].level is Level.OK


@pytest.mark.asyncio(loop_scope="module")
async def test_a_refused_dry_run_names_the_permission_and_where_it_is_found(ec2, say):
    refused = say.error(403, "UnauthorizedOperation", "You are not authorized to perform this operation")
    fine = say.error(412, "DryRunOperation", "would have succeeded")
    ec2.script = {operation: [fine] for operation in CHANGES} | {
        "DescribeInstances": [say.page([1])],
        "StartInstances": [refused],
    }
    findings = await examine(settings_for(ec2.url), [WEB], SystemClock())
    (problem,) = [each for each in of(findings, "permission") if each.level is Level.PROBLEM]
    assert problem.text.startswith("ec2:StartInstances is not allowed")
    assert "deploy/iam-policy.json" in problem.fix
    assert all(each["DryRun"] == "true" for each in ec2.requests["StartInstances"])
    assert all(each["DryRun"] == "true" for each in ec2.requests["RunInstances"])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("reads", [True, False])
async def test_a_template_that_the_daemon_may_not_read_is_told_where_it_reads_one(ec2, say, reads):
    fine = say.error(412, "DryRunOperation", "would have succeeded")
    ec2.script = {operation: [fine] for operation in CHANGES} | {
        "DescribeInstances": [say.page([1])],
        "DescribeLaunchTemplateVersions": [say.error(403, "UnauthorizedOperation", "not authorized")],
    }
    findings = await examine(settings_for(ec2.url), [replace(WEB, reads_template=reads)], SystemClock())
    problems = [each.text for each in of(findings, "permission") if each.level is Level.PROBLEM]
    assert [text.split()[0] for text in problems] == ["ec2:DescribeLaunchTemplateVersions"] * reads


@pytest.mark.asyncio(loop_scope="module")
async def test_a_launch_template_that_is_not_there_is_told_apart_from_a_permission(ec2, say):
    fine = say.error(412, "DryRunOperation", "would have succeeded")
    gone = say.error(400, "InvalidLaunchTemplateName.NotFoundException", "The template does not exist")
    ec2.script = {operation: [fine] for operation in CHANGES} | {
        "DescribeInstances": [say.page([1])],
        "RunInstances": [gone],
    }
    findings = await examine(settings_for(ec2.url), [WEB], SystemClock())
    (template,) = of(findings, "launch_template")
    assert template.level is Level.PROBLEM
    assert "launch template web" in template.fix


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("retypes", [True, False])
async def test_whether_the_type_of_a_vm_may_be_changed_is_asked_where_a_policy_may_want_it(ec2, say, retypes):
    fine = say.error(412, "DryRunOperation", "would have succeeded")
    ec2.script = {operation: [fine] for operation in CHANGES} | {
        "DescribeInstances": [say.page([1])],
        "ModifyInstanceAttribute": [say.error(403, "UnauthorizedOperation", "not authorized")],
    }
    before = len(ec2.requests["ModifyInstanceAttribute"])
    findings = await examine(settings_for(ec2.url), [replace(WEB, retypes=retypes)], SystemClock())
    problems = [each.text for each in of(findings, "permission") if each.level is Level.PROBLEM]
    assert [text.split()[0] for text in problems] == ["ec2:ModifyInstanceAttribute"] * retypes
    asked = ec2.requests["ModifyInstanceAttribute"][before:]
    assert [(each["DryRun"], bool(each["InstanceType.Value"])) for each in asked] == [
        ("true", True)
    ] * retypes


async def test_an_unreachable_account_is_one_finding_and_no_traceback():
    findings = await examine(settings_for("http://127.0.0.1:9"), [WEB], SystemClock())
    assert [(each.check, each.level) for each in findings] == [("reach", Level.PROBLEM)]
