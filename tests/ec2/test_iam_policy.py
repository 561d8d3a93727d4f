"""The IAM policy that we ship allows what the provider can call, and nothing else."""

import json
from pathlib import Path

import pytest

from autoscaler.ports import FLEET_TAG
from autoscaler.providers.ec2 import examining, hints
from autoscaler.providers.ec2.operations import CHANGES, READS, Operation
from autoscaler.sources import cloudwatch_client

POLICY = Path(__file__).parents[2] / "deploy" / "iam-policy.json"
INSTANCES = "arn:aws:ec2:*:*:instance/*"


def listed(value):
    return value if isinstance(value, list) else [value]


@pytest.fixture(name="statements")
def _statements():
    return json.loads(POLICY.read_text(encoding="utf-8"))["Statement"]


def actions(statement):
    return {each.removeprefix("ec2:") for each in listed(statement["Action"])}


def test_the_policy_allows_exactly_what_the_client_can_call(statements):
    assert {each["Effect"] for each in statements} == {"Allow"}
    allowed = {action for each in statements for action in listed(each["Action"])}
    provider = {f"ec2:{each.value}" for each in Operation} | examining.PERMISSIONS | hints.PERMISSIONS
    assert allowed == provider | cloudwatch_client.PERMISSIONS


def test_no_wildcard_in_an_action(statements):
    assert not any("*" in action for each in statements for action in listed(each["Action"]))


def test_only_reads_reach_every_resource(statements):
    for statement in statements:
        if "*" in listed(statement["Resource"]):
            reads = {f"ec2:{each.value}" for each in READS} | examining.PERMISSIONS
            reads |= cloudwatch_client.PERMISSIONS
            assert set(listed(statement["Action"])) <= reads


def test_changes_of_vms_need_the_ownership_tag(statements):
    owned = {"Null": {f"aws:ResourceTag/{FLEET_TAG}": "false"}}
    existing = {each.value for each in CHANGES} - {Operation.RUN_INSTANCES.value}
    (guarded,) = [each for each in statements if each.get("Condition") == owned]
    typed = {"Null": {**owned["Null"], "ec2:Attribute/InstanceType": "false"}}
    (of_type,) = [each for each in statements if each.get("Condition") == typed]
    # Only the type of all attributes: permission to change user data is permission to run anything as root at the next start.
    assert actions(of_type) == {Operation.MODIFY_INSTANCE_ATTRIBUTE.value}
    assert actions(guarded) == existing - actions(of_type)
    for statement in statements:
        if statement not in (guarded, of_type) and actions(statement) & existing:
            assert statement["Condition"] == {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
            assert actions(statement) == {Operation.CREATE_TAGS.value}


def test_new_vms_must_carry_the_ownership_tag(statements):
    (making,) = [
        each
        for each in statements
        if Operation.RUN_INSTANCES.value in actions(each) and INSTANCES in listed(each["Resource"])
    ]
    assert making["Condition"]["Null"] == {f"aws:RequestTag/{FLEET_TAG}": "false"}
    assert "ec2:LaunchTemplate" in making["Condition"]["ArnLike"]
