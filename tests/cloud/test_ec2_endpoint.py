"""The EC2 endpoint as the SDK sees it: every action, paging, filters, DryRun, tokens, errors with statuses."""

import aiohttp
import pytest
from botocore.exceptions import ClientError

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.setup import FleetSetup
from autoscaler.cloud.vms import DEFAULT_IMAGE

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=any"}
ONE = {"ImageId": DEFAULT_IMAGE, "InstanceType": "m7i.large", "MinCount": 1, "MaxCount": 1}


async def ids_of(ec2, **arguments):
    reply = await ec2.describe_instances(**arguments)
    return [i["InstanceId"] for r in reply["Reservations"] for i in r["Instances"]]


async def state_of(ec2, vm_id):
    reply = await ec2.describe_instances(InstanceIds=[vm_id])
    return reply["Reservations"][0]["Instances"][0]["State"]


async def error_of(call):
    with pytest.raises(ClientError) as caught:
        await call
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def changes(reply):
    (items,) = (value for key, value in reply.items() if key != "ResponseMetadata")
    return [(i["InstanceId"], i["PreviousState"]["Name"], i["CurrentState"]["Name"]) for i in items]


async def test_the_life_of_a_vm_through_the_sdk(served, ec2):
    first = (await ids_of(ec2))[0]
    assert changes(await ec2.start_instances(InstanceIds=[first])) == [(first, "stopped", "pending")]
    served.at(16)
    assert await state_of(ec2, first) == {"Code": 16, "Name": "running"}
    assert changes(await ec2.start_instances(InstanceIds=[first])) == [(first, "running", "running")]
    assert changes(await ec2.stop_instances(InstanceIds=[first])) == [(first, "running", "stopping")]
    served.at(41)
    assert await state_of(ec2, first) == {"Code": 80, "Name": "stopped"}
    assert changes(await ec2.terminate_instances(InstanceIds=[first])) == [
        (first, "stopped", "shutting-down")
    ]
    served.at(61)
    assert await state_of(ec2, first) == {"Code": 48, "Name": "terminated"}
    served.at(61 + 3600)
    assert first not in await ids_of(ec2)
    assert await error_of(ec2.describe_instances(InstanceIds=[first])) == ("InvalidInstanceID.NotFound", 400)


async def test_a_record_carries_what_a_person_and_a_provider_look_for(served, ec2):
    served.at(100)
    vm = served.world.views(0)[0]
    await ec2.start_instances(InstanceIds=[vm.id])
    reply = await ec2.describe_instances(InstanceIds=[vm.id])
    record = reply["Reservations"][0]["Instances"][0]
    assert record["LaunchTime"].timestamp() == 100
    assert record["Placement"]["AvailabilityZone"] == vm.zone == "us-east-1a"
    assert (record["PrivateIpAddress"], record["SubnetId"]) == (vm.address, vm.subnet)
    assert {t["Key"]: t["Value"] for t in record["Tags"]} == {"Name": "web", "autoscaler:fleet": "web"}
    assert "StateReason" not in record
    served.at(120)
    await ec2.stop_instances(InstanceIds=[vm.id])
    record = (await ec2.describe_instances(InstanceIds=[vm.id]))["Reservations"][0]["Instances"][0]
    assert record["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert record["StateTransitionReason"] == "User initiated (1970-01-01 00:02:00 GMT)"


async def test_a_record_is_about_as_long_as_a_real_one(served):
    body = {"Action": "DescribeInstances", "MaxResults": "5"}
    async with aiohttp.ClientSession() as http, http.post(served.url, data=body, headers=SIGNED) as reply:
        assert 1000 < len(await reply.read()) / 5 < 5000


async def test_status_checks_pass_once_booted(served, ec2):
    first, second, *_ = await ids_of(ec2)
    await ec2.start_instances(InstanceIds=[first])
    assert (await ec2.describe_instance_status())["InstanceStatuses"] == []
    for at_s, status in ((16, "initializing"), (18.9, "initializing"), (19, "ok")):
        served.at(at_s)
        (line,) = (await ec2.describe_instance_status())["InstanceStatuses"]
        assert line["InstanceId"] == first
        assert line["InstanceStatus"]["Status"] == line["SystemStatus"]["Status"] == status
    ready = [{"Name": "instance-status.status", "Values": ["ok"]}]
    assert len((await ec2.describe_instance_status(Filters=ready))["InstanceStatuses"]) == 1
    assert (await ec2.describe_instance_status(InstanceIds=[second]))["InstanceStatuses"] == []
    everything = (await ec2.describe_instance_status(IncludeAllInstances=True))["InstanceStatuses"]
    assert [line["InstanceStatus"]["Status"] for line in everything] == ["ok"] + ["not-applicable"] * 5
    page = await ec2.describe_instance_status(IncludeAllInstances=True, MaxResults=5)
    assert len(page["InstanceStatuses"]) == 5
    rest = await ec2.describe_instance_status(
        IncludeAllInstances=True, MaxResults=5, NextToken=page["NextToken"]
    )
    assert len(rest["InstanceStatuses"]) == 1
    assert "NextToken" not in rest


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("tag:autoscaler:fleet", ["api"], {"api"}),
        ("tag:autoscaler:fleet", ["w*", "ap?"], {"web", "api", "wild"}),
        ("tag:autoscaler:fleet", ["w[e]b"], set()),
        ("tag:team", ["blue"], {"api"}),
        ("tag-key", ["team"], {"api"}),
        ("tag-key", ["*fleet"], {"web", "api", "wild"}),
        ("instance-state-name", ["running", "pending"], {"api"}),
        ("instance-type", ["c7i.*"], {"wild"}),
        ("instance-type", ["m7i.large"], {"web", "api"}),
        ("availability-zone", ["us-east-1c"], {"wild"}),
        ("image-id", ["ami-0123456789abcdef0"], {"web", "api", "wild"}),
    ],
)
async def test_filters(serve, open_client, name, values, found):
    served = await serve(
        fleets=(
            FleetSetup("web", 2),
            FleetSetup("api", 1, state="running", tags={"team": "blue"}),
            FleetSetup("wild", 2, vm_type="c7i.xlarge", zones=("us-east-1c",)),
        )
    )
    async with open_client(served.url) as ec2:
        ids = await ids_of(ec2, Filters=[{"Name": name, "Values": values}])
    assert {view.fleet for view in served.world.views(0) if view.id in ids} == found


async def test_filters_are_joined_and_an_unknown_one_is_refused(served, ec2):
    ids = await ids_of(ec2)
    both = [
        {"Name": "instance-id", "Values": ids[:2]},
        {"Name": "availability-zone", "Values": ["us-east-1b"]},
    ]
    assert await ids_of(ec2, Filters=both) == ids[1:2]
    wrong = [{"Name": "colour", "Values": ["red"]}]
    assert await error_of(ec2.describe_instances(Filters=wrong)) == ("InvalidParameterValue", 400)


async def test_twenty_thousand_vms_come_in_pages_of_a_thousand(serve):
    # Read as text, because the SDK itself needs most of a second to parse each of these pages.
    served = await serve(fleets=(FleetSetup("web", 20_000),))
    query = {
        "Action": "DescribeInstances",
        "MaxResults": "1000",
        "Filter.1.Name": "tag:autoscaler:fleet",
        "Filter.1.Value.1": "web",
    }
    seen, pages, token = [], 0, ""
    async with aiohttp.ClientSession(headers=SIGNED) as http:
        while pages < 30:
            body = {**query, "NextToken": token} if token else query
            async with http.post(served.url, data=body) as reply:
                text = await reply.text()
            pages += 1
            seen += [part.partition("<")[0] for part in text.split("<instanceId>")[1:]]
            token = text.partition("<nextToken>")[2].partition("<")[0]
            if not token:
                break
    assert pages == 20
    assert seen == [view.id for view in served.world.views(0)]


async def test_the_sdk_pages_by_instance(serve, open_client):
    served = await serve(fleets=(FleetSetup("web", 23),))
    async with open_client(served.url) as ec2:
        pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 10})
        sizes = [sum(len(r["Instances"]) for r in page["Reservations"]) async for page in pages]
    assert sizes == [10, 10, 3]


async def test_vms_of_one_launch_stand_in_one_reservation(ec2):
    made = await ec2.run_instances(**{**ONE, "MinCount": 3, "MaxCount": 3})
    reply = await ec2.describe_instances()
    last = reply["Reservations"][-1]
    assert last["ReservationId"] == made["ReservationId"]
    assert [i["AmiLaunchIndex"] for i in last["Instances"]] == [0, 1, 2]
    assert len(reply["Reservations"]) == 7


async def test_a_launch_from_a_template(served, ec2):
    reply = await ec2.create_launch_template(
        LaunchTemplateName="small",
        LaunchTemplateData={
            "ImageId": "ami-00000000",
            "InstanceType": "t3.small",
            "UserData": "aGk=",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "1"}]}],
        },
    )
    template_id = reply["LaunchTemplate"]["LaunchTemplateId"]
    await ec2.create_launch_template_version(
        LaunchTemplateId=template_id,
        SourceVersion="1",
        LaunchTemplateData={"InstanceType": "t3.large", "Placement": {"AvailabilityZone": "us-east-1b"}},
    )
    versions = await ec2.describe_launch_template_versions(LaunchTemplateId=template_id)
    found = [
        (v["VersionNumber"], v["DefaultVersion"], v["LaunchTemplateData"]["InstanceType"])
        for v in versions["LaunchTemplateVersions"]
    ]
    assert found == [(1, True, "t3.small"), (2, False, "t3.large")]
    assert versions["LaunchTemplateVersions"][1]["LaunchTemplateData"]["ImageId"] == "ami-00000000"

    async def launch(version, **more):
        made = await ec2.run_instances(
            LaunchTemplate={"LaunchTemplateName": "small", "Version": version}, MinCount=1, MaxCount=1, **more
        )
        return made["Instances"][0]

    assert (await launch("$Default"))["InstanceType"] == "t3.small"
    latest = await launch("$Latest")
    assert (latest["InstanceType"], latest["Placement"]["AvailabilityZone"]) == ("t3.large", "us-east-1b")
    assert latest["State"]["Name"] == "pending"
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "<&>"}]}]
    own = await launch("2", InstanceType="m7i.large", TagSpecifications=tags)
    assert own["InstanceType"] == "m7i.large"
    assert {t["Key"]: t["Value"] for t in own["Tags"]} == {"a": "2", "b": "<&>"}
    assert {t["LaunchTemplateName"] for t in (await ec2.describe_launch_templates())["LaunchTemplates"]} == {
        "web",
        "small",
    }


async def test_the_same_client_token_launches_once(served, ec2):
    first = await ec2.run_instances(**ONE, ClientToken="t-1")
    again = await ec2.run_instances(**ONE, ClientToken="t-1")
    assert again["ReservationId"] == first["ReservationId"]
    assert again["Instances"][0]["InstanceId"] == first["Instances"][0]["InstanceId"]
    assert len(served.world.views(0)) == 7
    other = ec2.run_instances(**{**ONE, "MaxCount": 2}, ClientToken="t-1")
    assert await error_of(other) == ("IdempotentParameterMismatch", 400)


async def test_tags_are_written(ec2):
    first, second, *_ = await ids_of(ec2)
    await ec2.create_tags(Resources=[first, second], Tags=[{"Key": "state", "Value": "dräning"}])
    assert await ids_of(ec2, Filters=[{"Name": "tag:state", "Values": ["dräning"]}]) == [first, second]


async def test_a_dry_run_is_an_error_and_does_nothing(served, ec2):
    ids = await ids_of(ec2)
    expected = ("DryRunOperation", 412)
    assert await error_of(ec2.start_instances(InstanceIds=ids, DryRun=True)) == expected
    assert await error_of(ec2.stop_instances(InstanceIds=ids, DryRun=True)) == expected
    assert await error_of(ec2.terminate_instances(InstanceIds=ids, DryRun=True)) == expected
    assert await error_of(ec2.run_instances(**ONE, DryRun=True)) == expected
    assert await error_of(ec2.create_tags(Resources=ids, Tags=[{"Key": "a"}], DryRun=True)) == expected
    assert await error_of(ec2.describe_instances(DryRun=True)) == expected
    assert {view.state for view in served.world.views(0)} == {"stopped"}
    assert len(served.world.views(0)) == 6
    denied = Fault(FaultKind.API_ERROR, code="UnauthorizedOperation", actions=("StartInstances",))
    served.world.add_fault(denied)
    refused = await error_of(ec2.start_instances(InstanceIds=ids, DryRun=True))
    assert refused == ("UnauthorizedOperation", 403)


@pytest.mark.parametrize(
    ("call", "code", "status"),
    [
        (lambda e, i: e.start_instances(InstanceIds=["i-12345678"]), "InvalidInstanceID.NotFound", 400),
        (lambda e, i: e.start_instances(InstanceIds=["vm"]), "InvalidInstanceID.Malformed", 400),
        (
            lambda e, i: e.stop_instances(InstanceIds=[i], Hibernate=True),
            "UnsupportedHibernationConfiguration",
            400,
        ),
        (lambda e, i: e.describe_instances(MaxResults=4), "InvalidParameterValue", 400),
        (lambda e, i: e.describe_instances(MaxResults=1001), "InvalidParameterValue", 400),
        (lambda e, i: e.describe_instances(NextToken="bm9uc2Vuc2U="), "InvalidParameterValue", 400),
        (
            lambda e, i: e.describe_instances(MaxResults=5, InstanceIds=[i]),
            "InvalidParameterCombination",
            400,
        ),
        (lambda e, i: e.run_instances(MinCount=1, MaxCount=1), "MissingParameter", 400),
        (lambda e, i: e.run_instances(**{**ONE, "MinCount": 2}), "InvalidParameterValue", 400),
        (lambda e, i: e.run_instances(**ONE, SubnetId="subnet-1"), "InvalidSubnetID.NotFound", 400),
        (lambda e, i: e.run_instances(**ONE, KernelId="aki-1"), "UnknownParameter", 400),
        (
            lambda e, i: e.run_instances(
                LaunchTemplate={"LaunchTemplateName": "none"}, MinCount=1, MaxCount=1
            ),
            "InvalidLaunchTemplateName.NotFoundException",
            400,
        ),
        (
            lambda e, i: e.run_instances(
                LaunchTemplate={"LaunchTemplateName": "web", "Version": "7"}, MinCount=1, MaxCount=1
            ),
            "InvalidLaunchTemplateId.VersionNotFound",
            400,
        ),
        (
            lambda e, i: e.describe_launch_template_versions(LaunchTemplateId="lt-12345678"),
            "InvalidLaunchTemplateId.NotFound",
            400,
        ),
        (
            lambda e, i: e.create_launch_template(
                LaunchTemplateName="web", LaunchTemplateData={"ImageId": "ami-1"}
            ),
            "InvalidLaunchTemplateName.AlreadyExistsException",
            400,
        ),
        (lambda e, i: e.create_tags(Resources=["vol-1"], Tags=[{"Key": "a"}]), "InvalidID", 400),
        (lambda e, i: e.describe_volumes(), "InvalidAction", 400),
    ],
)
async def test_what_a_request_gets_wrong(ec2, call, code, status):
    vm_id = (await ids_of(ec2))[0]
    assert await error_of(call(ec2, vm_id)) == (code, status)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InsufficientInstanceCapacity", 500),
        ("InternalError", 500),
        ("Unavailable", 503),
        ("ServiceUnavailable", 503),
        ("RequestLimitExceeded", 503),
        ("UnauthorizedOperation", 403),
        ("AuthFailure", 401),
        ("OptInRequired", 401),
        ("VcpuLimitExceeded", 400),
        ("IncorrectInstanceState", 400),
        ("OperationNotPermitted", 400),
    ],
)
async def test_what_the_provider_gets_wrong_has_the_status_that_ec2_gives_it(served, ec2, code, status):
    served.world.add_fault(Fault(FaultKind.API_ERROR, code=code, actions=("StartInstances",)))
    first = (await ids_of(ec2))[0]
    assert await error_of(ec2.start_instances(InstanceIds=[first])) == (code, status)


async def test_states_and_capacity_are_refused_as_on_ec2(serve, open_client):
    served = await serve(faults=(Fault(FaultKind.NO_CAPACITY, zone="us-east-1b"),))
    async with open_client(served.url) as ec2:
        first, second, *_ = await ids_of(ec2)
        dry = await error_of(ec2.start_instances(InstanceIds=[first, second]))
        assert dry == ("InsufficientInstanceCapacity", 500)
        await ec2.start_instances(InstanceIds=[first])
        assert await error_of(ec2.stop_instances(InstanceIds=[first])) == ("IncorrectInstanceState", 400)
        served.at(16)
        await ec2.stop_instances(InstanceIds=[first])
        assert await error_of(ec2.start_instances(InstanceIds=[first])) == ("IncorrectInstanceState", 400)


async def test_the_sixth_start_call_at_once_is_throttled(served, ec2):
    ids = await ids_of(ec2)
    for vm_id in ids[:5]:
        await ec2.start_instances(InstanceIds=[vm_id])
    assert await error_of(ec2.start_instances(InstanceIds=ids[5:])) == ("RequestLimitExceeded", 503)
    served.at(0.5)
    await ec2.start_instances(InstanceIds=ids[5:])


async def test_hibernation_and_protection_are_set_at_launch(served, ec2):
    reply = await ec2.run_instances(
        **ONE, HibernationOptions={"Configured": True}, DisableApiTermination=True
    )
    vm_id = reply["Instances"][0]["InstanceId"]
    served.at(100)
    hibernate = {"InstanceIds": [vm_id], "Hibernate": True}
    assert await error_of(ec2.stop_instances(**hibernate)) == ("UnsupportedOperation", 400)
    served.at(200)
    await ec2.stop_instances(**hibernate)
    record = (await ec2.describe_instances(InstanceIds=[vm_id]))["Reservations"][0]["Instances"][0]
    assert record["StateReason"]["Code"] == "Client.UserInitiatedHibernate"
    assert await error_of(ec2.terminate_instances(InstanceIds=[vm_id])) == ("OperationNotPermitted", 400)


async def test_a_lost_reply_is_an_error_of_a_call_that_was_done(served, ec2):
    served.world.add_fault(Fault(FaultKind.LOST_REPLY, actions=("StartInstances",)))
    first = (await ids_of(ec2))[0]
    assert await error_of(ec2.start_instances(InstanceIds=[first])) == ("InternalError", 500)
    assert (await state_of(ec2, first))["Name"] == "pending"


async def test_latency_delays_the_answer_not_the_deed(served, ec2):
    served.world.add_fault(Fault(FaultKind.LATENCY, delay_s=4, actions=("StartInstances",)))
    first = (await ids_of(ec2))[0]
    await ec2.start_instances(InstanceIds=[first])
    assert served.clock.now() == 4
    assert served.world.views(4)[0].launched_at_s == 0


@pytest.mark.parametrize(
    ("headers", "body", "code", "status"),
    [
        ({}, {"Action": "DescribeInstances"}, "MissingAuthenticationToken", 403),
        ({"Authorization": "Bearer x"}, {"Action": "DescribeInstances"}, "AuthFailure", 401),
        (SIGNED, {"Version": "2016-11-15"}, "MissingAction", 400),
        (SIGNED, {"Action": "Reboot"}, "InvalidAction", 400),
        (
            SIGNED,
            {"Action": "StartInstances", "InstanceId.1": "i-12345678", "Colour": "red"},
            "UnknownParameter",
            400,
        ),
        (SIGNED, {"Action": "DescribeInstances", "InstanceId.x": "i-12345678"}, "InvalidParameterValue", 400),
        (SIGNED, {"Action": "DescribeInstances", "DryRun": "perhaps"}, "InvalidParameterValue", 400),
        (SIGNED, {"Action": "CreateTags", "ResourceId.1": "i-12345678"}, "MissingParameter", 400),
    ],
)
async def test_requests_that_no_sdk_would_make(served, headers, body, code, status):
    async with aiohttp.ClientSession(headers=headers) as http, http.post(served.url, data=body) as reply:
        assert reply.status == status
        assert f"<Code>{code}</Code>" in await reply.text()


async def test_a_page_token_belongs_to_its_filters(ec2):
    page = await ec2.describe_instances(MaxResults=5)
    other = [{"Name": "tag-key", "Values": ["Name"]}]
    call = ec2.describe_instances(MaxResults=5, NextToken=page["NextToken"], Filters=other)
    assert await error_of(call) == ("InvalidParameterValue", 400)
