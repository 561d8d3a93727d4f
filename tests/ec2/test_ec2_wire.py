"""Parsing replies directly from XML, compared with botocore's parsing of the same bytes."""

from dataclasses import fields

import pytest
from aiobotocore.session import get_session
from botocore.parsers import create_parser

from autoscaler.ports import FLEET_TAG, Vm, VmState
from autoscaler.providers.ec2.wire import (
    STATES,
    UnreadableError,
    VmRow,
    read_launched,
    read_page,
    request_id,
    transition_s,
    vm_of,
)

EXTRAS = (
    "<stateReason><code>Client.UserInitiatedShutdown</code><message>by hand</message></stateReason>"
    "<networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId><privateIpAddress>10.9.9.9"
    "</privateIpAddress><groupSet><item><groupId>sg-1</groupId></item></groupSet></item></networkInterfaceSet>"
    "<blockDeviceMapping><item><ebs><status>attached</status></ebs></item></blockDeviceMapping>"
    "<ipAddress>203.0.113.9</ipAddress><reason>User initiated (2026-11-24 11:30:05 GMT)</reason>"
    "<hibernationOptions><configured>true</configured></hibernationOptions>"
)
STOPPED_AT_S = 1_795_514_400.0 + 5405


def by_botocore(model, body):
    parsed = create_parser("ec2").parse(
        {"status_code": 200, "headers": {}, "body": body, "context": {}},
        model.operation_model("DescribeInstances").output_shape,
    )
    rows = []
    for instance in (each for group in parsed["Reservations"] for each in group["Instances"]):
        tags = {each["Key"]: each["Value"] for each in instance.get("Tags", ())}
        rows.append(
            (
                instance["InstanceId"],
                tags.get(FLEET_TAG, ""),
                STATES[instance["State"]["Name"]].value,
                instance["InstanceType"],
                instance["Placement"]["AvailabilityZone"],
                instance.get("PrivateIpAddress"),
                instance["LaunchTime"].timestamp(),
                instance["ImageId"],
                tags,
                instance.get("StateReason", {}).get("Code", ""),
                instance.get("HibernationOptions", {}).get("Configured", False),
                STOPPED_AT_S if instance.get("StateTransitionReason") else None,
                instance.get("PublicIpAddress"),
            )
        )
    return rows, parsed.get("NextToken")


async def test_a_page_reads_as_botocore_reads_it(say):
    model = await get_session().get_service_model("ec2")
    states = list(STATES)
    records = "".join(
        say.record(at, state=states[at % 6], extra=EXTRAS if at % 2 else "") for at in range(60)
    )
    records = records.replace(">web 7<", "> Ünïcode &amp; &lt;tags&gt;<").replace(">web 8<", "><")
    records = records.replace("<privateIpAddress>10.0.0.9</privateIpAddress>", "", 1)
    _, body = say.reply(
        "DescribeInstances", f"<reservationSet>{records}</reservationSet><nextToken>more==</nextToken>"
    )
    page = read_page(body.encode())
    assert ([tuple(each) for each in page.rows], page.next_token) == by_botocore(model, body.encode())
    assert page.problem == ""
    assert len(page.rows) == 60


def test_the_end_of_a_listing_and_an_empty_one(say):
    for inner in ("<reservationSet/>", "<reservationSet/><nextToken/>"):
        page = read_page(say.reply("DescribeInstances", inner)[1].encode())
        assert (page.rows, page.next_token, page.problem) == ((), None, "")


@pytest.mark.parametrize("body", [b"", b"<html><body/></html>", b"no xml", b"<RunInstancesResponse/>"])
def test_what_is_not_the_reply_is_never_an_empty_page(body):
    with pytest.raises(UnreadableError):
        read_page(body)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("<launchTime>2026-11-24T10:00:00.000Z</launchTime>", "launchTime"),
        ("<instanceType>m7i.large</instanceType>", "instanceType"),
        ("<availabilityZone>eu-central-1a</availabilityZone>", "availabilityZone"),
    ],
)
def test_a_record_without_a_needed_field_is_a_problem_that_names_it(say, part, named):
    _, body = say.page([1])
    page = read_page(body.replace(part, "").encode())
    assert page.rows == ()
    assert say.vm_id(1) in page.problem
    assert named in page.problem


def test_a_row_becomes_a_vm(say):
    (row,) = read_page(say.page([1], state="shutting-down")[1].encode()).rows
    vm = vm_of(row)
    assert (vm.id, vm.fleet, vm.state) == (say.vm_id(1), "web", VmState.TERMINATED)
    assert (vm.address, vm.launched_at_s) == ("10.0.0.1", 1_795_514_400.0)


@pytest.mark.parametrize(
    ("sentence", "at_s"),
    [
        ("User initiated (2026-11-24 11:30:05 GMT)", STOPPED_AT_S),
        ("User initiated", None),
        ("Server.InsufficientInstanceCapacity: no room", None),
        ("User initiated (2026-13-41 11:30:05 GMT)", None),
    ],
)
def test_when_a_vm_was_told_to_stop_is_read_from_ec2s_sentence(sentence, at_s):
    assert transition_s(sentence) == at_s


def test_rows_have_the_fields_of_a_vm_in_their_order():
    assert VmRow._fields == tuple(each.name for each in fields(Vm))


def test_launched_ids_are_those_of_the_instances_alone(say):
    item = "<item><instanceId>i-00000001</instanceId><other><item><instanceId>i-0000000f</instanceId></item></other></item>"
    _, body = say.reply("RunInstances", f"<instancesSet>{item}</instancesSet>")
    assert read_launched(body.encode()) == ("i-00000001",)


def test_request_ids():
    assert request_id(b"<a><requestId>one</requestId></a>") == "one"
    assert request_id(b"<a/>") == ""
